"""Neutral tensors: a dtype's name, a shape and bytes; no array library is needed to understand one."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from mvc_callbacks import canonical
from mvc_callbacks.errors import UnsupportedTensor

__all__ = [
    "ITEM_SIZE",
    "STORED_AS_BYTES",
    "State",
    "Tensor",
    "item_size",
    "stored_form",
    "weights_digest",
]

# Names are those of safetensors. What every release since 0.6 loads into torch is stored under its own dtype.
_NATIVE = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "U16": 2,
    "I16": 2,
    "F16": 2,
    "BF16": 2,
    "U32": 4,
    "I32": 4,
    "F32": 4,
    "U64": 8,
    "I64": 8,
    "F64": 8,
}

STORED_AS_BYTES: Mapping[str, int] = {
    "C32": 4,  # torch.complex32
    "C64": 8,  # unknown to safetensors 0.6, which would then refuse a whole pack for one such tensor
    "C128": 16,
    "F4_E2M1X2": 1,  # torch.float4_e2m1fn_x2: two values in a byte, the shape counts bytes
    "F8_E4M3FNUZ": 1,  # safetensors since 0.8
    "F8_E5M2FNUZ": 1,
    "F8_E8M0": 1,  # safetensors saves it but cannot load it into torch
}
"""Logical dtypes that are stored as U8 with a last axis of the item size, and that size in bytes."""

ITEM_SIZE: Mapping[str, int] = {**_NATIVE, **STORED_AS_BYTES}
"""Every logical dtype and the bytes of one item."""


def item_size(dtype: str) -> int:
    """Return the bytes of one item of a logical dtype.

    Raises:
        UnsupportedTensor: If the dtype is unknown.
    """
    try:
        return ITEM_SIZE[dtype]
    except (KeyError, TypeError):
        raise UnsupportedTensor(f"this release of mvc_callbacks does not know the dtype {dtype!r}") from None


def stored_form(dtype: str, shape: Iterable[int]) -> tuple[str, tuple[int, ...]]:
    """Return the dtype and shape under which a tensor lies in a safetensors file.

    Args:
        dtype: Logical dtype.
        shape: Logical shape.

    Returns:
        The same, or ``("U8", (*shape, item size))`` for what stock safetensors cannot load.

    Raises:
        UnsupportedTensor: If the dtype is unknown.
    """
    size = item_size(dtype)
    return ("U8", (*shape, size)) if dtype in STORED_AS_BYTES else (dtype, tuple(shape))


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """A tensor as bytes.

    Attributes:
        dtype: Logical dtype, named as safetensors does (``F32``, ``BF16``), or a key of `STORED_AS_BYTES`.
        shape: Logical shape; empty for a single value.
        data: Little-endian, row-major bytes; format ``B``, one axis. It keeps the owner of the memory alive.
    """

    dtype: str
    shape: tuple[int, ...]
    data: memoryview

    def __post_init__(self) -> None:
        view = self.data
        if view.format != "B" or view.ndim != 1 or not view.c_contiguous:
            raise TypeError("data must be a contiguous memoryview of format 'B' with one axis")
        if view.nbytes != math.prod(self.shape) * item_size(self.dtype) or any(
            axis < 0 for axis in self.shape
        ):
            raise ValueError(f"{view.nbytes} bytes are not a {self.dtype} tensor of shape {list(self.shape)}")

    @property
    def nbytes(self) -> int:
        """Number of bytes."""
        return self.data.nbytes

    def header(self) -> bytes:
        """Return what comes before the data in a safetensors file of this tensor alone, named ``tensor``."""
        dtype, shape = stored_form(self.dtype, self.shape)
        entry = {"dtype": dtype, "shape": shape, "data_offsets": [0, self.nbytes]}
        return _padded(json.dumps({"tensor": entry}, separators=(",", ":")).encode("ascii"))

    def digest(self) -> str:
        """Return the tensor digest: the SHA-256 of that file, in 64 hex digits."""
        digest = hashlib.sha256(self.header())
        digest.update(self.data)
        return digest.hexdigest()


def _padded(header: bytes) -> bytes:
    header += b" " * (-len(header) % 8)  # the data begins on a multiple of 8
    return len(header).to_bytes(8, "little") + header


def weights_digest(entries: Iterable[tuple[str, str, Iterable[int], str]]) -> str:
    """Return the digest of a state, the same wherever and however its tensors are stored.

    Args:
        entries: Name, logical dtype, logical shape and tensor digest of each tensor, in any order. They are
            sorted by name, code point by code point.

    Returns:
        SHA-256 in 64 hex digits of the canonical JSON of the sorted ``[name, dtype, shape, digest]``.

    Raises:
        ValueError: If a name occurs twice.
    """
    given = list(entries)
    told = {name: [name, dtype, list(shape), digest] for name, dtype, shape, digest in given}
    if len(told) != len(given):
        raise ValueError("a tensor's name occurs twice in one state")
    return canonical.digest_of(canonical.encode([told[name] for name in sorted(told)]))


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """Named tensors that belong together.

    Attributes:
        tensors: Name to tensor. Tied names have the very same object, so that it is hashed once.
        groups: Name to ``train``, ``frozen`` or ``buffer``; a name that is missing is ``train``.
        labels: Name to what a person calls it, where that is something else.
        tied: Groups of two and more names that showed the same memory in the same way.
    """

    tensors: Mapping[str, Tensor]
    groups: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    tied: tuple[tuple[str, ...], ...] = ()

    @property
    def nbytes(self) -> int:
        """Logical bytes of all tensors; tied ones count once for each name."""
        return sum(tensor.nbytes for tensor in self.tensors.values())
