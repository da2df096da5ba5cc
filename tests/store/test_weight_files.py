"""Safetensors files that anybody may have written: read as they are, refused by name, and recognised."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from store_kit import commit, f32, snapshot

from mvc_callbacks.errors import UnsafeFile, UnsupportedFormat
from mvc_callbacks.snapshot import Snapshot
from mvc_callbacks.store import VersionStore
from mvc_callbacks.tensors import State
from mvc_callbacks.weight_files import digest_of_file, identify, read_safetensors


def write(path: Path, header: Any, body: bytes = b"") -> Path:
    data = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(data).to_bytes(8, "little") + data + body)
    return path


def entry(dtype: Any, shape: Any, start: Any, end: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def test_a_file_is_read_with_its_metadata_and_the_dtypes_that_are_named_otherwise(tmp_path: Path) -> None:
    header = {
        "__metadata__": {"format": "pt"},
        "w": entry("F32", [2], 0, 8),
        "small": entry("F4", [2, 4], 8, 12),
        "none": entry("I8", [0], 12, 12),
    }
    path = write(tmp_path / "m.safetensors", header, bytes(range(12)))
    tensors, metadata = read_safetensors(path)
    assert metadata == {"format": "pt"}
    assert {name: (each.dtype, each.shape, bytes(each.data)) for name, each in tensors.items()} == {
        "w": ("F32", (2,), bytes(range(8))),
        "small": ("F4_E2M1X2", (2, 2), bytes(range(8, 12))),
        "none": ("I8", (0,), b""),
    }
    assert len(digest_of_file(path)) == 64
    assert read_safetensors(write(tmp_path / "x", {"__metadata__": 5})) == ({}, {})


@pytest.mark.parametrize(
    ("header", "why"),
    [
        (b"{", "is not a safetensors file"),
        (b"{{", "is not a safetensors file: "),
        (b"[]", "its header is not an object"),
        ({"w": 5}, "cannot be read"),
        ({"w": {}}, "cannot be read"),
        ({"w": entry("F32", [2], 0, 8)}, "not as many as its shape needs"),
        ({"w": entry("F32", [1], 8, 4)}, "not as many as its shape needs"),
        ({"w": entry("F32", [-1], 0, 4)}, "its shape or its place is not one"),
        ({"w": entry("F32", [1.0], 0, 4)}, "its shape or its place is not one"),
        ({"w": entry("F32", [2**64], 0, 4)}, "its shape or its place is not one"),
        ({"w": entry("X7", [1], 0, 4)}, "no version can hold its dtype 'X7'"),
        ({"w": entry("F4", [], 0, 4)}, "not as many as its shape needs"),
        ({"w": entry(["F32"], [1], 0, 4)}, "cannot be read"),
    ],
)
def test_what_is_no_such_file_is_refused_with_why(header: Any, why: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedFormat, match=why):
        read_safetensors(write(tmp_path / "m.safetensors", header, bytes(4)))


def test_a_file_that_is_short_or_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    with pytest.raises(FileNotFoundError):
        read_safetensors(path)
    for data in (b"", b"1234", (100).to_bytes(8, "little") + b"{}"):
        path.write_bytes(data)
        with pytest.raises(UnsupportedFormat, match="is not a safetensors file"):
            read_safetensors(path)
    os.mkfifo(tmp_path / "pipe")
    for other in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(UnsafeFile, match="is not a regular file"):
            read_safetensors(other)


def test_versions_are_recognised_by_their_tensors_whatever_stands_before_their_names(
    store: VersionStore,
) -> None:
    commit(store, "base", 2)
    commit(store, "again", 1)
    [pruned] = commit(store, "pruned", 1, metrics={})
    store.open_run("empty", framework="torch").commit(Snapshot(State({})))
    mine = snapshot(1).weights.tensors
    done: list[tuple[int, int]] = []
    found = identify(store, mine, progress=lambda *each: done.append(each))
    assert [f"{each.run}/{each.number}" for each in found.exact] == ["base/1", "again/1", "pruned/1"]
    assert [(each.run, shared) for each, shared in found.nearest] == [("base", 2)]
    assert done == [(number, 5) for number in range(1, 6)]
    assert found.to_dict()["exact"][2] == {"id": pruned.id, "run": "pruned", "number": 1}
    assert found.to_dict()["nearest"][0]["shared"] == 2
    prefixed = identify(store, {f"model.{name}": each for name, each in mine.items()})
    assert [each.run for each in prefixed.exact] == ["base", "again", "pruned"]
    # The same tensors under names that differ by more than what stands before them are near, not the same.
    mixed = identify(store, {f"{name}.{place}": each for place, (name, each) in enumerate(mine.items())})
    assert mixed.exact == () and [shared for _, shared in mixed.nearest] == [4, 4, 4, 2]
    nothing = identify(store, {})
    assert [each.run for each in nothing.exact] == ["empty"]
    other = identify(store, {"other": f32(99)})
    assert (other.exact, other.nearest) == ((), ())
