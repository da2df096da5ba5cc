"""Tensors of torch to neutral ones and back, bit for bit."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

import torch

from mvc_callbacks.errors import IncompatibleModel, UnsupportedTensor
from mvc_callbacks.tensors import Tensor

__all__ = [
    "copy_bits",
    "copy_into",
    "dtype_name",
    "from_neutral",
    "memory_of",
    "neutral_of",
    "nonfinite",
    "plain",
    "to_neutral",
    "view_of",
    "why_unsupported",
]

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
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu",
    "F4_E2M1X2": "float4_e2m1fn_x2",
    "C32": "complex32",
    "C64": "complex64",
    "C128": "complex128",
}
# Older releases of torch lack some.
_DTYPES: dict[str, torch.dtype] = {
    name: getattr(torch, own) for name, own in _NAMES.items() if hasattr(torch, own)
}
_BY_DTYPE = {dtype: name for name, dtype in _DTYPES.items()}
# Copies are made between integers of the same size: torch does so for every layout, and changes no bit.
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}

if (
    sys.byteorder != "little"
):  # pragma: no cover - stored bytes are little-endian and would have to be swapped
    raise ImportError("mvc_callbacks supports torch on little-endian machines only")


def dtype_name(dtype: torch.dtype) -> str:
    """Return the neutral name of a dtype.

    Raises:
        UnsupportedTensor: If it has none: quantised, sub-byte and opaque dtypes.
    """
    try:
        return _BY_DTYPE[dtype]
    except KeyError:
        raise UnsupportedTensor(f"tensors of {dtype} cannot be kept") from None


def why_unsupported(tensor: torch.Tensor) -> str | None:
    """Tell why the bits of a tensor cannot be kept, or None."""
    if torch.nn.parameter.is_lazy(tensor):
        return "it is uninitialised; run a batch through the lazy module first"
    if hasattr(tensor, "full_tensor"):
        return None
    if tensor.is_nested:
        return "it is nested"
    if tensor.layout != torch.strided:
        return f"it is sparse ({tensor.layout}); keep tensor.to_dense()"
    if tensor.is_quantized or tensor.dtype not in _BY_DTYPE:
        return f"its dtype is {tensor.dtype}"
    if tensor.is_meta:
        return "it is on the meta device and has no values"
    if type(tensor).__torch_dispatch__ is not torch.Tensor.__torch_dispatch__:
        return f"it is a {type(tensor).__module__}.{type(tensor).__qualname__}, whose values lie elsewhere"
    return None


def plain(tensor: torch.Tensor, *, name: str = "") -> torch.Tensor:
    """Return a tensor without gradient, subclass, and lazy conjugation or negation; nothing else is copied.

    A DTensor is gathered by its ``full_tensor()``: a collective, which every rank has to call.

    Raises:
        UnsupportedTensor: If its bits cannot be kept; the message names it.
    """
    if (reason := why_unsupported(tensor)) is not None:
        raise UnsupportedTensor(f"the tensor {name!r} cannot be kept: {reason}")
    with torch.no_grad():
        if hasattr(tensor, "full_tensor"):
            return plain(tensor.full_tensor(), name=name)
        tensor = tensor.detach()
        if type(tensor) is not torch.Tensor:
            tensor = tensor.as_subclass(torch.Tensor)
        return tensor.resolve_conj().resolve_neg()


def memory_of(tensor: torch.Tensor) -> memoryview:
    """Return the memory of a plain contiguous tensor in host memory, which the view keeps alive."""
    size = tensor.numel() * tensor.element_size()
    if size == 0:
        return memoryview(b"")
    memory: Any = (ctypes.c_ubyte * size).from_address(tensor.data_ptr())
    memory.owner = tensor  # ctypes does not know whose memory it is
    return memoryview(memory).cast("B")


def to_neutral(tensor: torch.Tensor, *, name: str = "") -> Tensor:
    """Return a tensor of torch as a neutral one; without a copy where it is contiguous in host memory.

    Args:
        tensor: Of any device, layout in memory, and supported dtype.
        name: Its name, for the error.

    Raises:
        UnsupportedTensor: If it is sparse, nested, quantised, uninitialised, on the meta device, a wrapper,
            or of a dtype of less than a byte.
    """
    return neutral_of(plain(tensor, name=name))


def neutral_of(host: torch.Tensor) -> Tensor:
    """Return what `plain` gave as a neutral tensor."""
    if host.device.type != "cpu" or not host.is_contiguous():
        copy = torch.empty(host.shape, dtype=host.dtype)
        copy_bits(host, copy)
        host = copy
    return Tensor(_BY_DTYPE[host.dtype], tuple(host.shape), memory_of(host))


def from_neutral(tensor: Tensor) -> torch.Tensor:
    """Return a neutral tensor as one of torch, in memory of its own.

    Raises:
        UnsupportedTensor: If this release of torch lacks the dtype.
    """
    dtype = _DTYPES.get(tensor.dtype)
    if dtype is None:
        raise UnsupportedTensor(f"torch {torch.__version__} has no dtype for {tensor.dtype}")
    made = torch.empty(tensor.shape, dtype=dtype)
    if tensor.nbytes:
        memory_of(made)[:] = tensor.data
    return made


def view_of(tensor: Tensor) -> torch.Tensor:
    """Return a tensor of torch that shows a neutral one's memory, which must be writable."""
    if not tensor.nbytes:
        return from_neutral(tensor)
    return torch.frombuffer(tensor.data, dtype=torch.uint8).view(_DTYPES[tensor.dtype]).view(tensor.shape)


def copy_into(source: Tensor, target: torch.Tensor, *, name: str = "") -> None:
    """Copy a neutral tensor into one of torch, in place, on whatever device and layout that has.

    Raises:
        IncompatibleModel: If shape or dtype differ; nothing was copied.
    """
    if tuple(target.shape) != source.shape or dtype_name(target.dtype) != source.dtype:
        raise IncompatibleModel(
            f"{name!r} is {dtype_name(target.dtype)} {list(target.shape)} in the model and "
            f"{source.dtype} {list(source.shape)} in the version"
        )
    with torch.inference_mode(target.is_inference()):
        copy_bits(from_neutral(source), target.detach())


def copy_bits(source: torch.Tensor, target: torch.Tensor, *, non_blocking: bool = False) -> None:
    """Copy between tensors of one shape and dtype, NaN payloads included."""
    with torch.no_grad():
        if source.dtype.is_complex and not (source.is_conj() or target.is_conj()):
            source, target = torch.view_as_real(source), torch.view_as_real(target)
        lazy = source.is_conj() or target.is_conj() or source.is_neg() or target.is_neg()
        bits = None if lazy else _BITS.get(source.element_size())
        if bits is not None:
            source, target = source.view(bits), target.view(bits)
        target.copy_(source, non_blocking=non_blocking)


def nonfinite(tensor: torch.Tensor) -> bool:
    """Tell whether a plain tensor holds NaN or Inf; integers never do."""
    if not (tensor.dtype.is_floating_point or tensor.dtype.is_complex) or tensor.numel() == 0:
        return False
    if tensor.dtype.is_complex:
        tensor = torch.view_as_real(tensor)
    if tensor.element_size() == 1:
        if _BY_DTYPE[tensor.dtype] == "F4_E2M1X2":
            return False  # every pattern of bits is a number
        tensor = tensor.to(torch.float32)  # isfinite knows no float8
    # The sum needs no memory and is nearly always finite; only where it is not, each value is looked at.
    if bool(torch.isfinite(tensor.sum())):
        return False
    return not bool(torch.isfinite(tensor).all())
