"""Packs: safetensors files of several tensors, written deterministically and read with distrust."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from mvc_callbacks import canonical
from mvc_callbacks.errors import CorruptObject, CorruptRecord, UnsupportedTensor
from mvc_callbacks.tensors import ITEM_SIZE, STORED_AS_BYTES, Tensor, stored_form

Buffer = bytes | bytearray | memoryview

__all__ = ["SINGLE", "Place", "pack_header", "parse_header", "tensor_at"]

SINGLE = "tensor"
"""The key of the only tensor of an object that is named by its tensor digest."""

_LONGEST_HEADER = 100_000_000  # stock safetensors refuses longer ones too
_MOST_ENTRIES = 100_000
_FIELDS = {"dtype", "shape", "data_offsets"}


@dataclass(frozen=True, slots=True)
class Place:
    """Where one tensor lies.

    Attributes:
        dtype: The stored dtype.
        shape: The stored shape.
        start: Its first byte, counted from the file's beginning.
        end: The byte after its last.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def pack_header(tensors: Iterable[tuple[str, Tensor]]) -> tuple[bytes, list[tuple[str, Tensor]]]:
    """Lay out a pack.

    The order is by stored item size, largest first, then by key: every tensor is aligned to its item size,
    and the same tensors make the same file.

    Args:
        tensors: Keys (tensor digests) and tensors, in any order.

    Returns:
        The file's beginning, and the tensors in the order in which their data follows.

    Raises:
        ValueError: If a key occurs twice, is ``__metadata__``, or there are more than 100 000.
    """
    given = list(tensors)
    forms = {key: (tensor, *stored_form(tensor.dtype, tensor.shape)) for key, tensor in given}
    if len(forms) != len(given) or "__metadata__" in forms:
        raise ValueError("the keys of a pack must differ, and none may be '__metadata__'")
    if len(forms) > _MOST_ENTRIES:
        raise ValueError(f"{len(forms)} tensors are more than the {_MOST_ENTRIES} that a pack may hold")
    header: dict[str, Any] = {}
    at = 0
    for key in sorted(forms, key=lambda each: (-ITEM_SIZE[forms[each][1]], each)):
        tensor, dtype, shape = forms[key]
        header[key] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + tensor.nbytes]}
        at += tensor.nbytes
    text = json.dumps(header, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, [(key, forms[key][0]) for key in header]


def parse_header(data: Buffer, file_size: int, *, what: str = "object") -> dict[str, Place]:
    """Read the header of a safetensors file that anybody may have written.

    Nothing is allocated for what the header claims before the claim is checked against the file's size.

    Args:
        data: The file's beginning, at least to the end of its header; usually the whole file, mapped.
        file_size: Size of the whole file in bytes.
        what: Names the file in errors.

    Returns:
        Key to place, in the order of the data.

    Raises:
        CorruptObject: If the header is too long, is not the JSON that `pack_header` writes, has too many
            entries, a dtype that is never stored or a key twice, or if the tensors overlap, leave a hole,
            differ from their shapes' sizes or do not end with the file.
    """
    if file_size < 8 or len(data) < 8:
        raise CorruptObject(f"{what}: {file_size} bytes are too few for a safetensors file")
    length = int.from_bytes(data[:8], "little")
    if length > _LONGEST_HEADER or 8 + length > min(file_size, len(data)):
        raise CorruptObject(f"{what}: it claims a header of {length} bytes; the file has {file_size}")
    text = bytes(data[8 : 8 + length])
    if text.count(b'"data_offsets"') > _MOST_ENTRIES:
        raise CorruptObject(f"{what}: it has more than {_MOST_ENTRIES} entries")
    try:
        header = canonical.decode(text, what=what, limit=_LONGEST_HEADER)
    except CorruptRecord as error:
        raise CorruptObject(str(error)) from error
    if not isinstance(header, dict):
        raise CorruptObject(f"{what}: its header is not an object")
    entries = {key: _entry(key, value, 8 + length, what) for key, value in header.items()}
    return _checked_layout(entries, 8 + length, file_size, what)


def _entry(key: str, value: Any, base: int, what: str) -> Place:
    if not isinstance(value, dict) or value.keys() != _FIELDS:
        raise CorruptObject(f"{what}: the entry {key[:80]!r} is not a tensor's")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_SIZE or dtype in STORED_AS_BYTES:
        raise CorruptObject(f"{what}: {key[:80]!r} has the dtype {str(dtype)[:40]!r}, which is never stored")
    if not (_is_sizes(shape) and _is_sizes(offsets) and len(offsets) == 2 and len(shape) <= 256):
        raise CorruptObject(f"{what}: {key[:80]!r} has a shape or offsets that are no sizes")
    if offsets[1] - offsets[0] != math.prod(shape) * ITEM_SIZE[dtype]:
        raise CorruptObject(f"{what}: the bytes of {key[:80]!r} are not as many as its shape needs")
    return Place(dtype, tuple(shape), base + offsets[0], base + offsets[1])


def _is_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(each) is int and 0 <= each < 2**63 for each in value)


def _checked_layout(entries: dict[str, Place], at: int, file_size: int, what: str) -> dict[str, Place]:
    ordered = sorted(entries.items(), key=lambda item: (item[1].start, item[1].end))
    for key, entry in ordered:
        if entry.start != at:
            raise CorruptObject(f"{what}: {key[:80]!r} leaves a hole or overlaps another tensor")
        at = entry.end
    if at != file_size:
        raise CorruptObject(f"{what}: its tensors end at byte {at}; the file has {file_size}")
    return dict(ordered)


def tensor_at(
    data: memoryview, entry: Place, dtype: str, shape: Sequence[int], *, what: str = "object"
) -> Tensor:
    """Return a tensor of a mapped file, without a copy, as the dtype and shape that a manifest claims.

    Args:
        data: The whole file.
        entry: Where the tensor lies in it.
        dtype: Logical dtype.
        shape: Logical shape.
        what: Names the file in errors.

    Raises:
        CorruptObject: If what is stored is not a tensor of that dtype and shape.
    """
    try:
        form = stored_form(dtype, shape)
    except UnsupportedTensor as error:
        raise CorruptObject(f"{what}: {error}") from error
    if form != (entry.dtype, entry.shape):
        raise CorruptObject(
            f"{what}: it holds {entry.dtype} {list(entry.shape)}; the manifest says {dtype} {list(shape)}"
        )
    return Tensor(dtype, tuple(shape), data[entry.start : entry.end])
