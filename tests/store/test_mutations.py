"""What anybody may have written is read, and only errors of this package come out, soon."""

from __future__ import annotations

import json
import random
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_kit import f32, fingerprint
from torture_kit import figure, scale, shot, small_store

from mvc_callbacks import canonical, tree, tree_reader, tree_tags, urls, writing
from mvc_callbacks.errors import MVCError
from mvc_callbacks.packs import pack_header, parse_header, tensor_at
from mvc_callbacks.refs import parse_ref
from mvc_callbacks.store import VersionStore

_KEYS = [
    "kind", "format", "event", "versions", "what", "time", "policy", "name", "id", "previous", "turn",
    "how", "why", "who", "run", "label", "base", "number", "sequence", "created", "framework", "epoch",
    "step", "metrics", "monitor", "parents", "weights", "digest", "tensors", "bytes", "of", "nonfinite",
    "tied", "extra", "objects", "training_state", "tree", "untold", "hyperparameters", "data", "flags",
    "evaluations", "pruned", "set", "drop", "parts", "in", "dtype", "shape", "data_offsets", "$float",
    "$tensor", "$tuple", "$dict", "$numpy", "$bytes", "$enum", "$datetime", "aliases", "log",
    "fingerprints", "1", "2", "01",
]  # fmt: skip
_TAGS = sorted({*tree_tags.RECALL, *tree_reader._CONTAINERS, "$tensor", "$numpy"})
_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(
        ["", "../x", "a" * 64, "0" * 64, "F32", "C128", "nan", "\ud800", "prune", "version", "min"]
    ),
)
JSON = st.recursive(
    _SCALARS,
    lambda inner: st.one_of(
        st.builds(lambda tag, told: {tag: told}, st.sampled_from(_TAGS), inner),
        st.lists(inner, max_size=4),
        st.dictionaries(st.sampled_from(_KEYS) | st.text(max_size=5), inner, max_size=5),
    ),
    max_leaves=12,
)
"""Values as they could stand anywhere in a file of a store."""


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    if isinstance(value, dict):
        found += [each for key in value for each in _paths(value[key], (*path, key))]
    elif isinstance(value, list):
        found += [each for place in range(len(value)) for each in _paths(value[place], (*path, place))]
    return found


def _replace(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    again = dict(value) if isinstance(value, dict) else list(value)
    again[path[0]] = _replace(value[path[0]], path[1:], new)
    return again


@st.composite
def mutated(draw: st.DrawFn, whole: bytes) -> bytes:
    """Draw a file that was damaged, or that somebody wrote on purpose."""
    how = draw(st.integers(0, 5))
    if how <= 2 and whole[:1] in b"{[" and whole[-1:] != b"\n":  # not a listing, which is lines of JSON
        value = json.loads(whole)
        path = draw(st.sampled_from(_paths(value)))
        return json.dumps(_replace(value, path, draw(JSON))).encode()
    if how == 3:
        return json.dumps(draw(JSON)).encode()
    if how == 4:
        return draw(st.binary(max_size=64))
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(0, len(data) - 1)))
        cut = draw(st.integers(0, 8))
        data[place : place + cut] = draw(st.binary(max_size=8))
    return bytes(data)


def _soon(what: Callable[[], Any]) -> None:
    """Do it; it may refuse by an error of ours, within a second of this thread's own time."""
    began = time.thread_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            what()
        except MVCError as error:
            assert str(error)
    assert time.thread_time() - began < 1


@pytest.fixture(scope="module")
def victim(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[VersionStore, dict[str, list[tuple[Path, bytes]]]]:
    """A small store, and its files by their folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "LARGE", 32)
        small = small_store(tmp_path_factory.mktemp("victim") / "store")
    kinds: dict[str, list[tuple[Path, bytes]]] = {}
    for path in sorted(small.path.rglob("*")):
        if path.is_file() and path.name != "lock":
            kind = path.relative_to(small.path).parts[0]
            kind = f"{kind}{path.suffix}" if kind == "objects" else kind
            kinds.setdefault(kind, []).append((path, path.read_bytes()))
    return VersionStore(small.path), kinds


def _ask_everything(store: VersionStore) -> None:
    there = VersionStore(store.path)
    for each in (
        there.versions,
        there.runs,
        there.aliases,
        there.alias_log,
        there.verify,
        lambda: there.get("latest"),
        lambda: there.get("best"),
        lambda: there.get("production"),
        lambda: there.get("base/2~1"),
        lambda: there.newest_of("base"),
        lambda: there.tensors("base/2"),
        lambda: there.training_state("base/4"),
        lambda: there.diff("base/2", "other/1"),
        lambda: there.details(there.get("base/2").id),
        lambda: there.prune("base/4", dry_run=True),
    ):
        _soon(each)


KINDS = (
    "aliases.json", "events", "format.json", "history", "manifests", "objects.json", "objects.safetensors",
    "runs", "tmp", "versions",
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_any_file_of_a_store_may_say_anything(
    victim: tuple[VersionStore, dict[str, list[tuple[Path, bytes]]]], kind: str
) -> None:
    store, kinds = victim

    @settings(max_examples=scale(12, 2000), database=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def mutate(data: st.DataObject) -> None:
        path, whole = data.draw(st.sampled_from(kinds[kind]))
        told = data.draw(mutated(whole))
        try:
            path.write_bytes(told)
            _ask_everything(store)
        finally:
            path.write_bytes(whole)
        figure("inputs mutated", 1)

    mutate()


def test_any_record_that_is_named_rightly_may_say_anything(
    victim: tuple[VersionStore, dict[str, list[tuple[Path, bytes]]]],
) -> None:
    """A stranger who writes a store names his records by their digests."""
    store, kinds = victim

    @settings(max_examples=scale(25, 4000), database=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def mutate(data: st.DataObject) -> None:
        kind = data.draw(st.sampled_from(["events", "versions", "runs"]))
        _, whole = data.draw(st.sampled_from(kinds[kind]))
        value = json.loads(whole)
        path = data.draw(st.sampled_from(_paths(value)))
        told = json.dumps(_replace(value, path, data.draw(JSON))).encode()
        digest = canonical.digest_of(told)
        target = store.path / kind / digest[:2] / f"{digest}.json"
        there = target.exists()
        made = not target.parent.exists()
        try:
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(told)
            _ask_everything(store)
            before = {version.id for version in store.versions()}
            _soon(VersionStore(store.path).rebuild)
            assert {each for each in before if each != digest} <= {
                version.id for version in store.versions()
            } or kind == "events"
        finally:
            if not there:
                target.unlink()
            if made:
                target.parent.rmdir()
            for path, data_before in (each for kind in kinds.values() for each in kind):
                if not path.exists() or path.read_bytes() != data_before:
                    path.write_bytes(data_before)
            for path in (store.path / "history").glob("*/*"):
                if path not in {each for each, _ in kinds["history"]}:
                    path.unlink()
            for path in (store.path / "history").glob("*"):
                if path.name not in ("base", "other"):
                    path.rmdir()
        figure("inputs mutated", 1)

    mutate()


def test_any_bytes_may_be_a_header_a_tree_a_ref_or_a_url() -> None:
    header, tensors = pack_header([("a" * 64, f32(1, 2)), ("b" * 64, f32(3))])
    pack = header + b"".join(bytes(tensor.data) for _, tensor in tensors)
    told = tree.encode({"a": (1, 2.5), "b": {3: b"x"}, "c": {"d"}}, is_tensor=lambda _: False).json
    whole = canonical.encode(told)
    count = scale(300, 76_000)

    def pack_of(data: bytes) -> None:
        for entry in parse_header(data, len(data)).values():
            tensor_at(memoryview(data), entry, entry.dtype, entry.shape)

    def header_of(data: bytes) -> None:
        pack_of(len(data).to_bytes(8, "little") + data + b"x" * 12)

    def tree_of(data: bytes) -> None:
        tree.decode(canonical.decode(data, what="tree"), {})

    def text_of(data: bytes) -> None:
        text = data.decode("utf-8", "replace")
        _soon(lambda: parse_ref(text))
        urls.parse(f"mvc://{text}")

    readers = [pack_of, header_of, tree_of, text_of]
    wholes = [pack, header[8:], whole, b"best:val/acc:max~2"]

    @settings(max_examples=count, database=None, suppress_health_check=list(HealthCheck))
    @given(st.integers(0, 3), st.data())
    def mutate(which: int, data: st.DataObject) -> None:
        told = data.draw(mutated(wholes[which]))
        _soon(lambda: readers[which](told))

    mutate()
    figure("inputs mutated", count)


def test_trees_of_any_values_are_decoded_or_refused() -> None:
    count = scale(200, 10_000)

    @settings(max_examples=count, database=None, suppress_health_check=list(HealthCheck))
    @given(JSON)
    def decode(value: Any) -> None:
        _soon(lambda: tree.decode(value, {}))

    decode()
    figure("inputs mutated", count)


def test_a_thousand_megabytes_are_not_read_for_a_small_file(tmp_path: Path) -> None:
    """Sizes are looked at before memory is taken."""
    import resource

    store = VersionStore(tmp_path / "store")
    version = store.open_run("base", framework="torch").commit(shot(1), data={"train": fingerprint("a")})
    dice = random.Random(8)
    paths = [path for path in store.path.rglob("*") if path.suffix in (".json", ".safetensors")]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for path in dice.sample(paths, len(paths)):
        whole = path.read_bytes()
        with path.open("ab") as file:
            file.truncate(2_000_000_000)
        there = VersionStore(store.path)
        for ask in (there.versions, there.verify, there.aliases, lambda: there.details(version.id)):  # noqa: B023
            _soon(ask)
        path.write_bytes(whole)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 700_000  # kB
