"""How much weights changed, by tensor and by layer; needs numpy."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from mvc_callbacks.diff import LayerChange, TensorChange
from mvc_callbacks.errors import MissingFramework
from mvc_callbacks.tensors import Tensor

__all__ = ["layer_changes", "tensor_changes"]

_AT_ONCE = 1 << 20  # items that are looked at together: a large tensor is never copied whole
_PLAIN = {
    "U8": "u1",
    "I8": "i1",
    "U16": "<u2",
    "I16": "<i2",
    "U32": "<u4",
    "I32": "<i4",
    "U64": "<u8",
    "I64": "<i8",
    "F16": "<f2",
    "F32": "<f4",
    "F64": "<f8",
    "C64": "<c8",
    "C128": "<c16",
    "BOOL": "?",
}
# Name: bits of exponent and mantissa, the exponent's bias, and what it does with its last exponent.
_SMALL = {
    "F8_E4M3": (4, 3, 7, "fn"),
    "F8_E5M2": (5, 2, 15, "ieee"),
    "F8_E4M3FNUZ": (4, 3, 8, "fnuz"),
    "F8_E5M2FNUZ": (5, 2, 16, "fnuz"),
}
_FOUR_BITS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


def tensor_changes(
    before: Mapping[str, Tensor],
    after: Mapping[str, Tensor],
    *,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[TensorChange, ...]:
    """Measure every tensor that both sides have in one shape, whatever its dtypes.

    Args:
        before: Name to tensor, in the older version.
        after: The same in the newer one.
        progress: Called with the bytes done and their sum.

    Returns:
        One value for each, in the order of ``before``.

    Raises:
        MissingFramework: If numpy is not installed.
    """
    try:
        import numpy as np
    except ImportError:
        raise MissingFramework("numbers of weights need numpy: pip install numpy") from None
    if sys.byteorder != "little":  # stored bytes are
        raise MissingFramework("numbers of weights are told on little-endian machines only")
    both = [name for name in before if name in after and before[name].shape == after[name].shape]
    total, done = sum(before[name].nbytes for name in both), 0
    found = []
    for name in both:
        found.append(_change(np, name, before[name], after[name]))
        done += before[name].nbytes
        if progress is not None:
            progress(done, total)
    return tuple(found)


def _change(np: Any, name: str, a: Tensor, b: Tensor) -> TensorChange:
    squares = squares_a = largest = 0.0
    items = bad_a = bad_b = 0
    same = a.dtype == b.dtype and a.data == b.data
    with np.errstate(all="ignore"):
        for x, y in zip(_values(np, a), _values(np, b), strict=True):
            finite_x, finite_y = np.isfinite(x), np.isfinite(y)
            bad_a += int(x.size - finite_x.sum())
            bad_b += int(y.size - finite_y.sum())
            both = finite_x & finite_y
            x, y = x[both], y[both]
            items += int(both.sum())
            squares_a += float((np.abs(x) ** 2).sum())
            if not same and x.size:
                step = np.abs(y - x)
                squares += float((step**2).sum())
                largest = max(largest, float(step.max()))
    return TensorChange(
        name=name,
        items=items,
        relative=_ratio(squares, squares_a),
        largest=largest,
        nonfinite=(bad_a, bad_b),
        squares=(squares, squares_a),
        same=same,
    )


def _ratio(squares: float, of: float) -> float:
    if squares == 0:
        return 0.0
    return math.sqrt(squares / of) if of else math.inf


def _values(np: Any, tensor: Tensor) -> Iterable[Any]:
    """Give a tensor's values as float64 or complex128, some at a time."""
    decode = _decoder(np, tensor.dtype)
    width = _width(tensor.dtype)
    step = _AT_ONCE * width
    for start in range(0, tensor.nbytes, step):
        yield decode(np.frombuffer(tensor.data[start : start + step], dtype=np.uint8))


def _width(dtype: str) -> int:
    from mvc_callbacks.tensors import item_size

    return item_size(dtype)


def _decoder(np: Any, dtype: str) -> Callable[[Any], Any]:
    if dtype in _PLAIN:
        kind = np.complex128 if dtype[0] == "C" else np.float64
        return lambda raw: raw.view(_PLAIN[dtype]).astype(kind)
    if dtype == "C32":
        return lambda raw: raw.view("<f2").astype(np.float64).reshape(-1, 2).view(np.complex128).reshape(-1)
    if dtype == "BF16":  # the upper half of a float32
        return lambda raw: (raw.view("<u2").astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    if dtype == "F4_E2M1X2":
        signed = np.array([*_FOUR_BITS, *(-each for each in _FOUR_BITS)])
        return lambda raw: np.stack([signed[raw & 15], signed[raw >> 4]], axis=-1).reshape(-1)
    table = np.array([_small_float(dtype, code) for code in range(256)])
    return lambda raw: table[raw]


def _small_float(dtype: str, code: int) -> float:
    """Return what a byte means as a float of eight bits (OCP Microscaling; ``fnuz`` as in ONNX)."""
    if dtype == "F8_E8M0":
        return math.nan if code == 255 else 2.0 ** (code - 127)
    exponent_bits, mantissa_bits, bias, kind = _SMALL[dtype]
    sign = -1.0 if code & 128 else 1.0
    exponent, mantissa = (code >> mantissa_bits) & (2**exponent_bits - 1), code & (2**mantissa_bits - 1)
    if kind == "fnuz" and code == 128:
        return math.nan
    if kind == "fn" and code & 127 == 127:
        return math.nan
    if kind == "ieee" and exponent == 2**exponent_bits - 1:
        return math.nan if mantissa else sign * math.inf
    if exponent == 0:
        return float(sign * mantissa * 2.0 ** (1 - bias - mantissa_bits))
    return float(sign * (1 + mantissa / 2**mantissa_bits) * 2.0 ** (exponent - bias))


def layer_changes(changes: Iterable[TensorChange]) -> tuple[LayerChange, ...]:
    """Put the tensors of one layer together: those whose names are the same up to the last dot."""
    layers: dict[str, list[TensorChange]] = {}
    for each in changes:
        layers.setdefault(each.name.rpartition(".")[0] or each.name, []).append(each)
    return tuple(
        LayerChange(
            name,
            len(mine),
            _ratio(sum(each.squares[0] for each in mine), sum(each.squares[1] for each in mine)),
            max(each.largest for each in mine),
        )
        for name, mine in layers.items()
    )
