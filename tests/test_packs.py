"""Promises of the packs: deterministic, aligned, readable by stock safetensors, and strict when read."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mvc_callbacks.errors import CorruptObject
from mvc_callbacks.packs import SINGLE, Place, pack_header, parse_header, tensor_at
from mvc_callbacks.tensors import ITEM_SIZE, Tensor, stored_form


def make(dtype: str, shape: tuple[int, ...], seed: int = 0) -> Tensor:
    size = ITEM_SIZE[dtype]
    for axis in shape:
        size *= axis
    data = random.Random(seed).randbytes(size)
    return Tensor(dtype, shape, memoryview(bytes(each & 1 for each in data) if dtype == "BOOL" else data))


def pack(tensors: list[tuple[str, Tensor]]) -> bytes:
    header, ordered = pack_header(tensors)
    return header + b"".join(tensor.data for _, tensor in ordered)


def file_of(header: Any, data: bytes = b"", *, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def parsed(data: bytes) -> dict[str, Place]:
    return parse_header(data, len(data))


def test_a_pack_is_the_layout_spelled_out_by_hand() -> None:
    tensors = [
        ("bb", Tensor("U8", (3,), memoryview(b"xyz"))),
        ("cc", Tensor("F32", (1,), memoryview(b"\x00\x00\x80\x3f"))),
        ("aa", Tensor("C64", (1,), memoryview(b"12345678"))),
        ("dd", Tensor("F64", (), memoryview(b"abcdefgh"))),
    ]
    text = (
        b'{"dd":{"dtype":"F64","shape":[],"data_offsets":[0,8]},'
        b'"cc":{"dtype":"F32","shape":[1],"data_offsets":[8,12]},'
        b'"aa":{"dtype":"U8","shape":[1,8],"data_offsets":[12,20]},'
        b'"bb":{"dtype":"U8","shape":[3],"data_offsets":[20,23]}}'
    )
    text += b" " * (-len(text) % 8)
    expected = struct.pack("<Q", len(text)) + text + b"abcdefgh" + b"\x00\x00\x80\x3f" + b"12345678" + b"xyz"
    assert pack(tensors) == expected
    assert pack(tensors[::-1]) == expected


everything = st.lists(
    st.tuples(
        st.sampled_from(sorted(ITEM_SIZE)),
        st.lists(st.integers(0, 3), max_size=3).map(tuple),
        st.integers(0, 99),
    ),
    max_size=12,
)


@settings(max_examples=100, deadline=None)
@given(everything, st.randoms())
def test_any_pack_reads_back_aligned_and_the_same_in_any_order(specs: Any, shuffler: random.Random) -> None:
    tensors = {f"{index:03d}": make(*spec) for index, spec in enumerate(specs)}
    items = list(tensors.items())
    data = pack(items)
    shuffler.shuffle(items)
    assert pack(items) == data
    entries = parsed(data)
    assert entries.keys() == tensors.keys()
    for key, tensor in tensors.items():
        entry = entries[key]
        assert (entry.dtype, entry.shape) == stored_form(tensor.dtype, tensor.shape)
        assert entry.start % ITEM_SIZE[entry.dtype] == 0
        back = tensor_at(memoryview(data), entry, tensor.dtype, tensor.shape)
        assert (back.digest(), bytes(back.data)) == (tensor.digest(), bytes(tensor.data))


def test_stock_safetensors_reads_packs_and_single_tensors(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    safetensors = pytest.importorskip("safetensors")
    from safetensors.torch import load, load_file

    tensors = {f"{dtype}-{shape}": make(dtype, shape) for dtype in ITEM_SIZE for shape in ((), (2, 3), (0,))}
    path = tmp_path / "pack.safetensors"
    path.write_bytes(pack(list(tensors.items())))
    loaded = load_file(path)
    assert loaded.keys() == tensors.keys()
    with safetensors.safe_open(path, "pt") as opened:
        for key, tensor in tensors.items():
            for back in (loaded[key], opened.get_tensor(key), load(tensor.header() + tensor.data)[SINGLE]):
                assert tuple(back.shape) == stored_form(tensor.dtype, tensor.shape)[1]
                assert back.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() == bytes(tensor.data)


def test_a_single_tensor_is_a_pack_of_its_own() -> None:
    tensor = make("BF16", (3, 1))
    data = tensor.header() + tensor.data
    assert data == pack([(SINGLE, tensor)])
    assert list(parsed(data)) == [SINGLE]


def test_an_empty_pack_is_a_file_too() -> None:
    assert parsed(pack([])) == {}


def test_keys_that_no_pack_may_hold_are_refused_when_it_is_written() -> None:
    one = make("U8", (1,))
    for keys in (["a", "a"], ["__metadata__"]):
        with pytest.raises(ValueError, match="keys"):
            pack_header([(key, one) for key in keys])
    with pytest.raises(ValueError, match="100000"):
        pack_header([(str(index), one) for index in range(100_001)])


GOOD = {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}
BAD = {
    "empty": b"",
    "seven bytes": b"1234567",
    "a pickle": b"\x80\x04\x95" + b"\x00" * 100,
    "length of 2^63": file_of(b"{}", length=2**63),
    "length of 2^64-1": file_of(b"{}", length=2**64 - 1),
    "length over 100 MB": file_of(b"{}", length=100_000_001),
    "length past the end": file_of(b"{}", length=3),
    "no JSON": file_of(b"abcdefgh"),
    "a list": file_of([]),
    "not UTF-8": file_of(b'{"\xff":1}'),
    "a byte order mark": file_of(b"\xef\xbb\xbf{}"),
    "deep nesting": file_of(b"[" * 100_000),
    "a long integer": file_of(b'{"a":' + b"1" * 5000 + b"}"),
    "NaN": file_of(b'{"a":NaN}'),
    "a duplicate key": file_of(
        b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
        b"x",
    ),
    "metadata": file_of({"__metadata__": {"a": "b"}}),
    "a missing field": file_of({"a": {"dtype": "U8", "shape": [2]}}, b"xx"),
    "a further field": file_of({"a": {**GOOD, "x": 1}}, b"xx"),
    "an unknown dtype": file_of({"a": {**GOOD, "dtype": "U9"}}, b"xx"),
    "a dtype that is never stored": file_of({"a": {**GOOD, "dtype": "F8_E8M0"}}, b"xx"),
    "a dtype that is no text": file_of({"a": {**GOOD, "dtype": ["U8"]}}, b"xx"),
    "a negative axis": file_of({"a": {**GOOD, "shape": [-1, -2]}}, b"xx"),
    "a boolean axis": file_of({"a": {**GOOD, "shape": [True, 2]}}, b"xx"),
    "a fractional axis": file_of({"a": {**GOOD, "shape": [2.0]}}, b"xx"),
    "a huge axis": file_of({"a": {**GOOD, "shape": [2**64]}}, b"xx"),
    "a shape that overflows": file_of({"a": {**GOOD, "shape": [2**62, 2**62, 2]}}, b"xx"),
    "a shape of another size": file_of({"a": {**GOOD, "shape": [3]}}, b"xx"),
    "three offsets": file_of({"a": {**GOOD, "data_offsets": [0, 2, 2]}}, b"xx"),
    "offsets backwards": file_of({"a": {**GOOD, "data_offsets": [2, 0]}}, b"xx"),
    "an overlap": file_of({"a": GOOD, "b": GOOD}, b"xx"),
    "a hole at the start": file_of({"a": {**GOOD, "data_offsets": [1, 3]}}, b"xxx"),
    "a hole between": file_of({"a": GOOD, "b": {**GOOD, "data_offsets": [3, 5]}}, b"xxxxx"),
    "bytes after the end": file_of({"a": GOOD}, b"xxx"),
    "data that is cut": file_of({"a": GOOD}, b"x"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_21_22_24_a_file_made_by_a_stranger_is_refused(what: str) -> None:
    with pytest.raises(CorruptObject):
        parsed(BAD[what])


def test_bad_input_21_too_many_entries_are_refused_before_they_are_made() -> None:
    text = b'{"a":{"dtype":"U8","shape":[],"data_offsets":[0,1]}' * 100_001
    with pytest.raises(CorruptObject, match="entries"):
        parsed(file_of(text))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 7))
def test_a_flipped_bit_in_a_header_is_refused_or_read_as_something_else(at: int, bit: int) -> None:
    data = bytearray(pack([("aa", make("F32", (2, 2))), ("bb", make("U8", (3,)))]))
    data[at % len(data)] ^= 1 << bit
    try:
        entries = parsed(bytes(data))
    except CorruptObject:
        return
    assert all(0 <= entry.start <= entry.end <= len(data) for entry in entries.values())


def test_bad_input_23_a_manifest_that_lies_about_dtype_or_shape_is_refused() -> None:
    tensor = make("F32", (2, 3))
    data = tensor.header() + tensor.data
    entry = parsed(data)[SINGLE]
    for dtype, shape in (("F32", (3, 2)), ("I32", (2, 3)), ("C64", (3,)), ("XX", (2, 3)), ("U8", (24,))):
        with pytest.raises(CorruptObject):
            tensor_at(memoryview(data), entry, dtype, shape)
