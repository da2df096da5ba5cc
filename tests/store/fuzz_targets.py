"""What is fuzzed: one function of bytes for each kind of text or file that is parsed, and seeds for it."""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from store_kit import f32

from mvc_callbacks import canonical, expressions, history, listings, manifests, tree, urls
from mvc_callbacks.aliases import AliasTable
from mvc_callbacks.errors import MVCError
from mvc_callbacks.layout import Layout
from mvc_callbacks.manifests import ManifestFolder
from mvc_callbacks.packs import pack_header, parse_header, tensor_at
from mvc_callbacks.refs import check_name, parse_ref
from mvc_callbacks.row_checks import check_row
from mvc_callbacks.rows import apply_event, differs, is_event, row_of, version_of
from mvc_callbacks.summaries import Summary
from mvc_callbacks.tensors import weights_digest
from mvc_callbacks.times import point_in_time
from mvc_callbacks.weight_files import read_safetensors

__all__ = ["TARGETS", "examples", "seeds", "within"]

KEPT = Path(__file__).parent.parent / "data" / "store-v1"
LISTING = b"".join(
    canonical.encode({"path": path, "sha256": digit * 64, "size": 3}) + b"\n"
    for path, digit in (("a/1.png", "a"), ("a/2.png", "b"), ("b.png", "c"))
)
_SECONDS = 1
_NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
_folder = Path(tempfile.mkdtemp(prefix="mvc-fuzz-"))


def within(target: Callable[[bytes], Any], data: bytes) -> None:
    """Parse bytes; nothing but an error of the package may come out, with a text and soon.

    Args:
        target: One of `TARGETS`.
        data: Whatever somebody may have written.
    """
    began = time.thread_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            target(data)
        except MVCError as error:
            assert str(error)
    assert time.thread_time() - began < _SECONDS


def _file(data: bytes, name: str) -> Path:
    path = _folder / name
    path.write_bytes(data)
    return path


def pack(data: bytes) -> None:
    """Read a pack, and all tensors in it."""
    for entry in parse_header(data, len(data)).values():
        tensor_at(memoryview(data), entry, entry.dtype, entry.shape).digest()


def foreign_safetensors(data: bytes) -> None:
    """Read the safetensors file of somebody else."""
    for tensor in read_safetensors(_file(data, "model.safetensors"))[0].values():
        tensor.digest()


def manifest(data: bytes) -> None:
    """Read a manifest under the name that its entries have, where they have one."""
    digest = "0" * 64
    try:
        told = canonical.decode(data, what="manifest")
        entries = manifests._entries(told["tensors"], told["objects"])
        digest = weights_digest((each.name, each.dtype, each.shape, each.digest) for each in entries)
    except Exception:
        pass  # what cannot even be named is read all the same
    folder = ManifestFolder(_folder / "manifests", _folder / "tmp")
    path = folder.path_of(digest)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    try:
        _ = folder.read(digest).objects
    finally:
        path.unlink()


def record(data: bytes) -> None:
    """Take a version's record for a row and a version."""
    row = row_of("a" * 64, canonical.decode(data, what="record"))
    version_of(row, None).to_dict()
    assert not differs(row, row)


def event(data: bytes) -> None:
    """Apply an event to a version."""
    told = canonical.decode(data, what="event")
    if not isinstance(told, dict) or not is_event(told):
        return
    row = _row()
    if told["event"] in ("prune", "evaluation", "fingerprint", "note"):
        apply_event(row, "b" * 64, told)
        check_row(row)
        version_of(row, None).to_dict()


def database(data: bytes) -> None:
    """Read a database of the history."""
    path = _file(data, "base/0001.json")
    rows = history.History(_folder, _folder / "tmp").rows_of(path)
    Summary.of(rows)
    for row in rows:
        version_of(row, None).to_dict()


def alias_table(data: bytes) -> None:
    """Read the aliases, and go back."""
    table = AliasTable(_file(data, "aliases.json"), _folder / "tmp")
    table.is_told({})
    for name in {*table.current(), *(move.name for move in table.log())}:
        table.next_turn(name)
        within(lambda _, name=name: table.undo_target(name), b"")


def format_file(data: bytes) -> None:
    """Read what a store is, and what its writers tell each other."""
    _file(data, "format.json")
    (_folder / "tmp").mkdir(exist_ok=True)
    _file(data, "tmp/shared.json")
    layout = Layout(_folder)
    layout.shared()
    layout.check()


def a_tree(data: bytes) -> None:
    """Make a value of its tree."""
    tree.decode(canonical.decode(data, what="tree"), {"0": f32(1, 2), "a": f32(3)})


def listing(data: bytes) -> None:
    """Read a listing of files, and compare it with another one."""
    list(listings.read([data[:7], data[7:]]))
    listings.compare([data], [LISTING])


def condition(data: bytes) -> None:
    """Read a condition, and ask it."""
    found = expressions.parse(data.decode("utf-8", "replace"))
    for value in (1.5, "text", None, True, ["text"], expressions.UNKNOWN):
        found.holds(lambda _, value=value: value)


def text(data: bytes) -> None:
    """Read a ref, a URL, a name and a time."""
    given = data.decode("utf-8", "replace")
    for ask in (
        lambda: parse_ref(given),
        lambda: urls.parse(f"mvc://{given}"),
        lambda: check_name(given, "alias"),
        lambda: point_in_time(given, _NOW),
    ):
        within(lambda _, ask=ask: ask(), b"")


TARGETS: dict[str, Callable[[bytes], None]] = {
    "pack": pack,
    "foreign safetensors": foreign_safetensors,
    "manifest": manifest,
    "record": record,
    "event": event,
    "database": database,
    "aliases": alias_table,
    "format": format_file,
    "tree": a_tree,
    "listing": listing,
    "condition": condition,
    "text": text,
}


def _all(folder: Path, *endings: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.rglob("*")) if path.suffix in endings]


def _first(folder: Path, ending: str) -> bytes:
    return _all(folder, ending)[0]


def _row() -> dict[str, Any]:
    told = canonical.decode(_first(KEPT / "versions", ".json"), what="record")
    row = row_of("a" * 64, told)
    pending = {"digest": None, "coverage": "pending", "files": 0, "bytes": 0, "how": "", "problems": []}
    row["data"] = {**row["data"], "late": {**pending, "scheme": "mvc-1", "listing": None}}
    return row


def seeds(name: str) -> list[bytes]:
    """Return what the fuzzer of a target begins with: files of the kept store, and texts of the tests."""
    header, tensors = pack_header([("a" * 64, f32(1, 2)), ("b" * 64, f32(3))])
    made = header + b"".join(bytes(tensor.data) for _, tensor in tensors)
    value = {"a": (1, 2.5), "b": {3: b"x"}, "c": {"d"}, "e": [1j, None, True], "f": range(3)}
    told = tree.encode(value, is_tensor=lambda _: False).json
    late = {
        "event": "fingerprint", "time": "2026-01-01T00:00:00.000000Z", "versions": ["a" * 64], "name": "late",
        "fingerprint": {"digest": "c" * 64, "coverage": "files"}, "kind": "event", "format": 1,
    }  # fmt: skip
    return {
        "pack": [made, *_all(KEPT / "objects", ".safetensors")],
        "foreign safetensors": [made, *_all(KEPT / "objects", ".safetensors")],
        "manifest": _all(KEPT / "manifests", ".json"),
        "record": _all(KEPT / "versions", ".json"),
        "event": [canonical.encode(late), *_all(KEPT / "events", ".json")],
        "database": _all(KEPT / "history", ".json"),
        "aliases": [(KEPT / "aliases.json").read_bytes()],
        "format": [(KEPT / "format.json").read_bytes(), b'{"epoch":"e","run":"base","sequence":3}'],
        "tree": [canonical.encode(told), *_all(KEPT / "objects", ".json")],
        "listing": [LISTING, LISTING.replace(b'"a/1.png"', b'{"$bytes":"/w=="}')],
        "condition": [
            b"lr<1e-3 and (val_loss<0.5 or not run=='baseline')", b"`a b`>=-2 and name~\"x\" and x==none",
        ],
        "text": [
            b"best:val/acc:max~2", b"base/12", b"production~1", b"abcdef12", b"/a/b@latest",
            b"2026-01-01T08:30", b"45min", b"yesterday",
        ],
    }[name]  # fmt: skip


def examples(strategy: st.SearchStrategy[bytes], count: int) -> Iterator[bytes]:
    """Draw from a strategy of Hypothesis, the same each time."""
    drawn: list[bytes] = []

    @settings(
        max_examples=count,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def draw(value: bytes) -> None:
        drawn.append(value)

    draw()
    yield from drawn


(_folder / "base").mkdir()
