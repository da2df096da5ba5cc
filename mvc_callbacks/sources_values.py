"""Digests of what lies in memory: arrays of any library, indices, and plain Python values."""

from __future__ import annotations

import datetime
import hashlib
import os
import struct
import sys
from array import array
from collections.abc import Iterable, Iterator
from typing import Any

__all__ = [
    "Untellable",
    "array_bytes",
    "array_digest",
    "encode",
    "frame",
    "indices_digest",
    "is_array",
    "u64",
]

_CHUNK = 16 * 1024 * 1024
_DEEPEST = 50
_KINDS = {"f": "F", "i": "I", "u": "U", "c": "C"}
_TORCH = {
    "bool": "BOOL",
    "bfloat16": "BF16",
    "float16": "F16",
    "float32": "F32",
    "float64": "F64",
    "complex32": "C32",
    "complex64": "C64",
    "complex128": "C128",
    **{f"int{bits}": f"I{bits}" for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": f"U{bits}" for bits in (8, 16, 32, 64)},
}


class Untellable(Exception):
    """A value that has no digest; the message says which."""


def u64(number: int) -> bytes:
    """Return eight little-endian bytes."""
    return number.to_bytes(8, "little")


def frame(data: bytes) -> bytes:
    """Return bytes with their length before them, so that no two lists of them look alike."""
    return u64(len(data)) + data


def _is(value: Any, module: str, name: str) -> bool:
    """Tell whether a value is of a class, without importing what nobody imported."""
    kind = getattr(sys.modules.get(module), name, None)
    return isinstance(kind, type) and isinstance(value, kind)


def is_array(value: Any) -> bool:
    """Tell whether a value is an array or tensor of numpy, torch, jax or TensorFlow."""
    return (
        _is(value, "numpy", "ndarray")
        or _is(value, "torch", "Tensor")
        or _is(value, "jax", "Array")
        or (_is(value, "tensorflow", "Tensor") and hasattr(value, "numpy"))
    )


def array_bytes(value: Any) -> int:
    """Return how many bytes an array has; 0 where it does not say."""
    try:
        size = getattr(value, "nbytes", 0)
    except RuntimeError:  # of a sparse tensor
        return 0
    return size if isinstance(size, int) else 0


def array_digest(value: Any) -> bytes:
    """Return the digest of an array: of its dtype, shape and content, whatever library and device it is of.

    Returns:
        SHA-256 of the framed name of the dtype (``F32``, ``I64``, …), the number of axes, each axis, and the
        little-endian row-major data.

    Raises:
        Untellable: If it is sparse, quantised, without data, or of Python objects that have no digest.
    """
    if _is(value, "torch", "Tensor"):
        return _torch_digest(value)
    import numpy  # an array of some kind was seen: numpy is there

    if not isinstance(value, numpy.ndarray):
        value = value.numpy() if hasattr(value, "numpy") else numpy.asarray(value)
    if value.dtype.hasobject:
        return _digest([_head("object", value.shape), encode(value.tolist())])
    name = _numpy_name(value.dtype)
    little = value.dtype.newbyteorder("<")
    return _digest([_head(name, value.shape), *_numpy_chunks(numpy, value, little)])


def _digest(chunks: Iterable[Any]) -> bytes:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.digest()


def _head(dtype: str, shape: Iterable[int]) -> bytes:
    axes = [u64(int(axis)) for axis in shape]
    return frame(dtype.encode()) + u64(len(axes)) + b"".join(axes)


def _numpy_name(dtype: Any) -> str:
    if dtype.kind == "b":
        return "BOOL"
    if dtype.kind in _KINDS and dtype.isbuiltin != 2:
        return f"{_KINDS[dtype.kind]}{dtype.itemsize * 8}"
    if dtype.name == "bfloat16":  # of ml_dtypes, as jax has it
        return "BF16"
    little = dtype.newbyteorder("<")
    return str(little.descr) if dtype.names else f"{dtype.name}:{little.str}"


def _numpy_chunks(numpy: Any, value: Any, little: Any) -> Iterator[Any]:
    if value.size == 0:
        return
    if value.ndim == 0:
        value = value.reshape(1)
    rows = max(1, _CHUNK * len(value) // max(1, value.nbytes))
    for start in range(0, len(value), rows):
        part = numpy.ascontiguousarray(value[start : start + rows], dtype=little)
        yield part.reshape(-1).view(numpy.uint8).data


def _torch_digest(value: Any) -> bytes:
    import torch

    dtype = str(value.dtype).removeprefix("torch.")
    if value.layout is not torch.strided or value.is_quantized or value.device.type == "meta":
        raise Untellable(f"a {dtype} tensor that is sparse, quantised or without data")
    return _digest([_head(_TORCH.get(dtype, dtype), value.shape), *_torch_chunks(torch, value.detach())])


def _torch_chunks(torch: Any, value: Any) -> Iterator[Any]:
    if value.numel() == 0:
        return
    if value.ndim == 0:
        value = value.reshape(1)
    rows = max(1, _CHUNK * len(value) // max(1, value.numel() * value.element_size()))
    for start in range(0, len(value), rows):
        part = value[start : start + rows].resolve_conj().resolve_neg().cpu().contiguous()
        if part.is_complex():
            part = torch.view_as_real(part)
        yield part.reshape(-1).view(torch.uint8).numpy().data


def indices_digest(indices: Any, *, ordered: bool = True) -> bytes:
    """Return the digest of selected indices.

    Args:
        indices: A list, tuple, range, array or tensor.
        ordered: Whether another order is another selection.

    Returns:
        SHA-256 of the number of indices and each as eight little-endian bytes, signed.

    Raises:
        Untellable: If they are something else, such as a generator.
    """
    if is_array(indices):
        # A mask selects by its places, and a list of the same zeros and ones something else.
        if str(indices.dtype).removeprefix("torch.") == "bool":
            return array_digest(indices)
        indices = indices.tolist()
    if not isinstance(indices, (list, tuple, range, array)):
        raise Untellable(f"indices that are a {type(indices).__name__}")
    try:
        numbers = array("q", indices)
    except TypeError:
        numbers = array("q", map(_number, indices))
    except OverflowError as error:
        raise Untellable("indices beyond 64 bits") from error
    if not ordered:
        numbers = array("q", sorted(numbers))
    if sys.byteorder == "big":
        numbers.byteswap()
    return _digest([u64(len(numbers)), memoryview(numbers)])


def _number(value: Any) -> int:
    if hasattr(value, "__index__"):  # arrays have it, of floats too
        return int(value)
    raise Untellable(f"an index that is a {type(value).__name__}")


def encode(value: Any, _depth: int = 0) -> bytes:
    """Tell plain values as bytes that are the same for equal values only.

    Args:
        value: None, booleans, numbers, text, bytes, paths, dates, arrays, and lists, tuples, sets and dicts
            of them.

    Raises:
        Untellable: If there is something else in it, or a cycle.
    """
    kind = type(value)
    if kind is str:
        return b"s" + frame(value.encode("utf-8", "surrogatepass"))
    if value is None or kind is bool:
        return b"n" if value is None else b"t" if value else b"f"
    if kind is int:
        return b"i" + frame(str(value).encode() if abs(value) < 2**63 else hex(value).encode())
    if kind is float:
        return b"d" + struct.pack("<d", value)
    if _depth > _DEEPEST:
        raise Untellable("values nested in one another, too deeply or for ever")
    if isinstance(value, (list, tuple)):
        return b"l" + u64(len(value)) + b"".join([encode(each, _depth + 1) for each in value])
    if isinstance(value, dict):
        pairs = sorted(encode(key, _depth + 1) + encode(each, _depth + 1) for key, each in value.items())
        return b"m" + u64(len(pairs)) + b"".join(pairs)
    return _encode_rare(value, _depth)


def _encode_rare(value: Any, depth: int) -> bytes:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return b"b" + frame(bytes(value))
    if isinstance(value, (set, frozenset)):
        return b"u" + u64(len(value)) + b"".join(sorted(encode(each, depth + 1) for each in value))
    if isinstance(value, os.PathLike):
        return encode(os.fspath(value), depth)
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return b"@" + frame(value.isoformat().encode())
    if is_array(value):
        return b"a" + array_digest(value)
    if _is(value, "numpy", "generic"):
        return encode(value.item(), depth + 1)
    if isinstance(value, (str, int, float)):  # an enum's member, numpy's str_
        if isinstance(value, str):
            return encode(str.__str__(value), depth + 1)
        return encode(value.__index__() if isinstance(value, int) else float(value), depth + 1)
    if isinstance(value, range):
        return encode(list(value), depth)
    raise Untellable(f"a {type(value).__module__}.{type(value).__qualname__}")
