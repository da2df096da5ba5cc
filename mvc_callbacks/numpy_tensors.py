"""Arrays of numpy to neutral tensors and back, bit for bit; with ml_dtypes also bfloat16 and float8."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from mvc_callbacks.errors import UnsupportedTensor
from mvc_callbacks.tensors import Tensor

__all__ = ["bytes_of", "dtype_name", "from_neutral", "nonfinite", "numpy_dtype", "to_neutral", "view_of"]

_NAMES = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "U16": "uint16",
    "I16": "int16",
    "U32": "uint32",
    "I32": "int32",
    "U64": "uint64",
    "I64": "int64",
    "F16": "float16",
    "F32": "float32",
    "F64": "float64",
    "C64": "complex64",
    "C128": "complex128",
}
_EXTENSIONS = {  # dtypes of the package ml_dtypes, which every backend of Keras brings with it
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu",
}
_BY_NAME = {own: name for name, own in {**_NAMES, **_EXTENSIONS}.items()}
_EXPONENTS = {"F16": 0x7C00, "BF16": 0x7F80}  # all of these bits are set in NaN and Inf, and only there
_LARGE = 1 << 20  # items that are looked at together

if (
    sys.byteorder != "little"
):  # pragma: no cover - stored bytes are little-endian and would have to be swapped
    raise ImportError("mvc_callbacks supports numpy on little-endian machines only")


def dtype_name(dtype: Any, *, what: str = "") -> str:
    """Return the neutral name of a numpy dtype, or of a dtype's name as Keras writes it.

    Raises:
        UnsupportedTensor: If it has none: text, objects, integers of four bits.
    """
    known = dtype if isinstance(dtype, str) else dtype.name
    try:
        return _BY_NAME[known]
    except KeyError:
        raise UnsupportedTensor(f"{what or 'an array'} cannot be kept: its dtype is {known}") from None


def numpy_dtype(name: str) -> Any:
    """Return the numpy dtype of a neutral name.

    Raises:
        UnsupportedTensor: If numpy has none, or ml_dtypes is needed and not installed.
    """
    if name in _NAMES:
        return np.dtype(_NAMES[name])
    if name not in _EXTENSIONS:
        raise UnsupportedTensor(f"numpy has no dtype for {name}")
    try:
        import ml_dtypes

        return np.dtype(getattr(ml_dtypes, _EXTENSIONS[name]))
    except (ImportError, AttributeError):
        raise UnsupportedTensor(
            f"numpy has no dtype for {name} by itself: install a newer ml_dtypes (pip install -U ml_dtypes)"
        ) from None


def bytes_of(array: Any) -> Any:
    """Return the bytes of a contiguous array, without a copy, as an array of one axis."""
    return array.reshape(-1).view(np.uint8)


def to_neutral(array: Any, *, name: str = "") -> Tensor:
    """Return an array as a neutral tensor; without a copy where it is contiguous and little-endian.

    Raises:
        UnsupportedTensor: If its dtype has no neutral name.
    """
    dtype = dtype_name(array.dtype, what=repr(name) if name else "")
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("<"))
    whole = np.ascontiguousarray(array).reshape(array.shape)  # the first makes one axis of none
    return Tensor(dtype, tuple(int(axis) for axis in array.shape), memoryview(bytes_of(whole)))


def view_of(tensor: Tensor) -> Any:
    """Return an array that shows a neutral tensor's memory."""
    return np.frombuffer(tensor.data, dtype=numpy_dtype(tensor.dtype)).reshape(tensor.shape)


def from_neutral(tensor: Tensor) -> Any:
    """Return a neutral tensor as an array, in memory of its own.

    Raises:
        UnsupportedTensor: If numpy has no such dtype.
    """
    return view_of(tensor).copy()


def nonfinite(tensor: Tensor) -> bool:
    """Tell whether a neutral tensor holds NaN or Inf; integers never do.

    In this thread alone: it is called beside a training that uses all cores.

    Raises:
        UnsupportedTensor: If numpy has no such dtype.
    """
    if not tensor.nbytes or tensor.dtype[0] not in "FBC" or tensor.dtype in ("BOOL", "F4_E2M1X2"):
        return False
    exponent = _EXPONENTS.get(tensor.dtype)
    if exponent is not None:
        bits = np.frombuffer(tensor.data, dtype="<u2")
        return any(bool(((part & exponent) == exponent).any()) for part in _parts(bits))
    flat = view_of(tensor).reshape(-1)
    if tensor.dtype[0] == "C":
        flat = flat.view(flat.real.dtype)
    if flat.itemsize >= 4:
        # The sum needs no memory and is nearly always finite; only where it is not, each value is looked at.
        with np.errstate(all="ignore"):
            if np.isfinite(np.add.reduce(flat)):
                return False
    return not all(bool(np.isfinite(part).all()) for part in _parts(flat))


def _parts(flat: Any) -> Iterator[Any]:
    return (flat[start : start + _LARGE] for start in range(0, flat.size, _LARGE))
