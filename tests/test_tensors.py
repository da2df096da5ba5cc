"""Promises of the neutral tensors: digests that never change, and the same bytes as stock safetensors."""

from __future__ import annotations

import hashlib
import json
import struct

import pytest

from mvc_callbacks.errors import UnsupportedTensor
from mvc_callbacks.tensors import ITEM_SIZE, STORED_AS_BYTES, State, Tensor, stored_form, weights_digest


def test_the_tensor_digest_is_the_definition_spelled_out_by_hand() -> None:
    data = struct.pack("<6f", 0.0, -0.0, 1.5, -2.25, float("inf"), 3.0)
    text = b'{"tensor":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}'
    text += b" " * 2  # 62 bytes of JSON, filled to 64
    by_hand = hashlib.sha256(struct.pack("<Q", 64) + text + data).hexdigest()

    tensor = Tensor("F32", (2, 3), memoryview(data))

    assert by_hand == "11899d62b16b7778b585dd9af6df67d8b276d586ed9f95fd26df24c52b0bdf5e"
    assert tensor.header() == struct.pack("<Q", 64) + text
    assert tensor.digest() == by_hand


def test_a_single_value_and_an_empty_tensor_have_golden_digests() -> None:
    text = b'{"tensor":{"dtype":"I64","shape":[],"data_offsets":[0,8]}}' + b" " * 6
    by_hand = hashlib.sha256(struct.pack("<Q", 64) + text + struct.pack("<q", -7)).hexdigest()
    assert by_hand == "cf6b84045bc558466551311666de01f868acfd5d60889173368aef80a6111bb0"
    assert Tensor("I64", (), memoryview(struct.pack("<q", -7))).digest() == by_hand

    text = b'{"tensor":{"dtype":"BF16","shape":[0,3],"data_offsets":[0,0]}}' + b" " * 2
    by_hand = hashlib.sha256(struct.pack("<Q", 64) + text).hexdigest()
    assert by_hand == "bab7eb4e81ab2a5e5bcb072a3c44dae740d97d28015620589dda255558903d6f"
    assert Tensor("BF16", (0, 3), memoryview(b"")).digest() == by_hand


def test_what_stock_safetensors_cannot_load_is_digested_as_bytes_with_a_last_axis() -> None:
    data = struct.pack("<4d", 1.0, -1.0, 0.5, 2.0)
    text = b'{"tensor":{"dtype":"U8","shape":[2,16],"data_offsets":[0,32]}}' + b" " * 2
    by_hand = hashlib.sha256(struct.pack("<Q", 64) + text + data).hexdigest()
    assert by_hand == "baca7b385974a6f31407de5eb8b6970aef6bd80b1d009707050301a1ff372c26"
    assert Tensor("C128", (2,), memoryview(data)).digest() == by_hand


def test_the_weights_digest_is_the_definition_spelled_out_by_hand() -> None:
    told = (
        '[["b\\u00e9","F32",[2,3],"11899d62b16b7778b585dd9af6df67d8b276d586ed9f95fd26df24c52b0bdf5e"],'
        '["c","C128",[2],"baca7b385974a6f31407de5eb8b6970aef6bd80b1d009707050301a1ff372c26"]]'
    )
    by_hand = hashlib.sha256(told.encode("ascii")).hexdigest()
    assert by_hand == "70965a0e7e5f25eab397c365b96949d573b5b44804b8bc8575bf696e8e408226"
    entries = [
        ("c", "C128", (2,), "baca7b385974a6f31407de5eb8b6970aef6bd80b1d009707050301a1ff372c26"),
        ("bé", "F32", (2, 3), "11899d62b16b7778b585dd9af6df67d8b276d586ed9f95fd26df24c52b0bdf5e"),
    ]
    assert weights_digest(entries) == by_hand
    assert weights_digest(reversed(entries)) == by_hand


def test_the_weights_digest_of_nothing_is_that_of_an_empty_list() -> None:
    assert weights_digest([]) == hashlib.sha256(b"[]").hexdigest()


def test_a_name_that_occurs_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        weights_digest([("a", "U8", (), "0"), ("a", "U8", (), "1")])


@pytest.mark.parametrize("dtype", sorted(ITEM_SIZE))
@pytest.mark.parametrize("shape", [(), (3,), (0,), (2, 1, 3)])
def test_the_stored_form_holds_as_many_bytes_as_the_logical_one(dtype: str, shape: tuple[int, ...]) -> None:
    stored, stored_shape = stored_form(dtype, shape)
    size = ITEM_SIZE[dtype]
    for axis in shape:
        size *= axis
    stored_size = ITEM_SIZE[stored]
    for axis in stored_shape:
        stored_size *= axis
    assert stored_size == size
    assert stored not in STORED_AS_BYTES
    header = Tensor(dtype, shape, memoryview(bytes(size))).header()
    assert len(header) % 8 == 0
    assert json.loads(header[8:])["tensor"] == {
        "dtype": stored,
        "shape": list(stored_shape),
        "data_offsets": [0, size],
    }


@pytest.mark.parametrize("dtype", ["F33", "", "f32", "I4", None])
def test_an_unknown_dtype_is_refused_by_name(dtype: str) -> None:
    with pytest.raises(UnsupportedTensor, match=repr(dtype)):
        stored_form(dtype, ())


def test_bytes_that_do_not_fit_the_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="7 bytes"):
        Tensor("F32", (2,), memoryview(b"1234567"))
    with pytest.raises(ValueError, match="8 bytes"):
        Tensor("F32", (-1, -2), memoryview(b"12345678"))
    with pytest.raises(TypeError, match="contiguous"):
        Tensor("U8", (2,), memoryview(b"1234")[::2])


def test_a_state_counts_its_bytes() -> None:
    one = Tensor("U8", (4,), memoryview(b"abcd"))
    assert State({"a": one, "b": one}).nbytes == 8
