"""Staging: host memory into which the variables of one moment are copied while training waits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from mvc_callbacks.copies import copy_memory
from mvc_callbacks.errors import UnsupportedTensor
from mvc_callbacks.numpy_tensors import nonfinite as array_nonfinite
from mvc_callbacks.numpy_tensors import to_neutral
from mvc_callbacks.tensors import Tensor

__all__ = ["Buffers", "any_nonfinite", "take"]

_ALIGNMENT = 64


class Buffers:
    """Host memory that is used again: a copy into touched memory takes half the time.

    One snapshot has it at a time; the next one waits for the save before anyway.
    """

    def __init__(self) -> None:
        self._block: Any = None
        self._torch: Any = None

    def array(self, size: int) -> Any:
        """Return at least ``size`` bytes."""
        block, self._block = self._block, None
        return block if block is not None and block.nbytes >= size else np.empty(size, np.uint8)

    def give_back(self, block: Any) -> None:
        """Take the bytes back."""
        self._block = block

    @property
    def torch(self) -> Any:
        """The same for the torch backend."""
        if self._torch is None:
            from mvc_callbacks.torch_staging import StagingBuffers

            self._torch = StagingBuffers()
        return self._torch


def take(variables: Sequence[Any], buffers: Buffers | None) -> tuple[list[Tensor], Callable[[], None] | None]:
    """Return the values of Keras variables at this moment.

    Args:
        variables: Of any backend.
        buffers: Where to copy to; None shares memory, where the backend does, with variables that must
            then not change.

    Returns:
        The tensors in the same order, and what gives the memory back.

    Raises:
        UnsupportedTensor: If the bits of one cannot be kept; the message names it.
    """
    if keras.backend.backend() == "torch":
        return _take_torch(variables, buffers)
    arrays = [_array(each) for each in variables]
    if buffers is None:
        return [to_neutral(each) for each in arrays], None
    starts, end = [], 0
    for each in arrays:
        starts.append(end)
        end += -(-each.nbytes // _ALIGNMENT) * _ALIGNMENT
    block = buffers.array(end)
    taken, pieces, shown = [], [], []
    for source, start in zip(arrays, starts, strict=True):
        neutral = to_neutral(source)
        part = block[start : start + neutral.nbytes]
        taken.append(Tensor(neutral.dtype, neutral.shape, memoryview(part)))
        if neutral.nbytes:
            shown.append(np.frombuffer(neutral.data, np.uint8))  # keeps the memory alive until it is copied
            pieces.append((part.ctypes.data, shown[-1].ctypes.data, neutral.nbytes))
    copy_memory(pieces)
    return taken, lambda: buffers.give_back(block)


def _array(variable: Any) -> Any:
    try:
        value = variable.value
        # What TensorFlow reads of a variable shows its memory; the variable itself would be copied once more.
        array = np.asarray(value.read_value() if hasattr(value, "read_value") else value)
        if array.dtype.hasobject:
            raise UnsupportedTensor(f"the variable {variable.path!r} cannot be kept: its values are objects")
        to_neutral(array[..., :0] if array.ndim else array, name=variable.path)
    except UnsupportedTensor:
        raise
    except (TypeError, ValueError, RuntimeError) as error:
        raise UnsupportedTensor(f"the variable {variable.path!r} cannot be kept: {error}") from error
    return array


def _take_torch(
    variables: Sequence[Any], buffers: Buffers | None
) -> tuple[list[Tensor], Callable[[], None] | None]:
    from mvc_callbacks.torch_staging import Staging

    staging = Staging()
    places = [staging.add(each.value, each.path) for each in variables]
    if buffers is None:
        shared = staging.share()
        return [shared[place] for place in places], None
    copied, block = staging.copy(buffers.torch)
    return [copied[place] for place in places], lambda: buffers.torch.give_back(block)


def any_nonfinite(tensors: Sequence[Tensor]) -> bool:
    """Tell whether one of them holds NaN or Inf."""
    return any(array_nonfinite(each) for each in tensors)
