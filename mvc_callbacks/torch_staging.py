"""Staging: host memory into which the tensors of one moment are copied while training waits."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Hashable
from typing import Any

import torch

from mvc_callbacks.copies import copy_memory
from mvc_callbacks.tensors import Tensor
from mvc_callbacks.torch_tensors import copy_bits, dtype_name, memory_of, neutral_of, plain

__all__ = ["Staging", "StagingBuffers"]

_ALIGNMENT = 64  # of every tensor in a block: a cache line, and more than any dtype needs
_MOST_FREE = 2
_STEP = 64 * 1024 * 1024  # of the size of large blocks: what grows a little still fits, and is not made anew


class StagingBuffers:
    """Blocks of host memory that are used again: a copy into touched memory takes half the time.

    A block is taken whole by one snapshot and comes back when that is released. Threads may share one of
    these; a copy or a pickle of it is empty.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free: list[torch.Tensor] = []

    def __reduce__(self) -> tuple[Any, ...]:
        return StagingBuffers, ()

    def acquire(self, size: int, *, pinned: bool = False) -> torch.Tensor:
        """Return a block of at least ``size`` bytes.

        Args:
            size: In bytes.
            pinned: Whether copies from a GPU will go into it.
        """
        with self._lock:
            fitting = [
                each for each in self._free if each.numel() >= size and (not pinned or each.is_pinned())
            ]
            if fitting:
                block = min(fitting, key=torch.Tensor.numel)
                self._free = [each for each in self._free if each is not block]
                return block
            self._free.clear()  # too small for what is saved now: they would only be held
        if size > _STEP:
            size = -(-size // _STEP) * _STEP
        if pinned:
            with contextlib.suppress(
                RuntimeError
            ):  # page-locked memory is limited; without it copies are slower
                return torch.empty(size, dtype=torch.uint8, pin_memory=True)
        return torch.empty(size, dtype=torch.uint8)

    def give_back(self, block: torch.Tensor) -> None:
        """Take a block back; the same one twice does nothing."""
        with self._lock:
            if not any(each is block for each in self._free):
                self._free = [*self._free, block][-_MOST_FREE:]

    @property
    def held(self) -> int:
        """Bytes of the blocks that are free now."""
        with self._lock:
            return sum(block.numel() for block in self._free)


class Staging:
    """The tensors of one moment: gathered first, then brought to host memory together.

    Tensors that show the same memory in the same way are brought once.
    """

    def __init__(self) -> None:
        self._places: dict[Hashable, int] = {}
        self._sources: list[torch.Tensor] = []
        self._kept: list[torch.Tensor] = []  # while these live, no other tensor can have their addresses

    def add(self, tensor: torch.Tensor, name: str) -> int:
        """Gather a tensor and return its place.

        Raises:
            UnsupportedTensor: If its bits cannot be kept.
        """
        source = plain(tensor, name=name)
        key = _view_of(tensor)
        place = self._places.get(key) if key is not None else None
        if place is None:
            place = len(self._sources)
            self._sources.append(source)
            self._kept.append(tensor)
            if key is not None:
                self._places[key] = place
        return place

    def share(self) -> list[Tensor]:
        """Return the tensors without a copy where that can be; they change as training goes on."""
        return [neutral_of(source) for source in self._sources]

    def copy(self, buffers: StagingBuffers) -> tuple[list[Tensor], torch.Tensor]:
        """Copy the tensors to host memory.

        Returns:
            The copies in the order of their places, and the block that they lie in, to be given back.
        """
        starts, end = [], 0
        for source in self._sources:
            starts.append(end)
            end += -(-source.numel() * source.element_size() // _ALIGNMENT) * _ALIGNMENT
        devices = {source.device for source in self._sources if source.is_cuda}
        block = buffers.acquire(end, pinned=bool(devices))
        try:
            ours = []
            for source, start in zip(self._sources, starts, strict=True):
                size = source.numel() * source.element_size()
                if size and source.device.type == "cpu" and source.is_contiguous():
                    ours.append((block.data_ptr() + start, source.data_ptr(), size))
                elif size:
                    copy_bits(source, _part(block, start, source), non_blocking=source.is_cuda)
            copy_memory(ours)
        except BaseException:
            buffers.give_back(block)
            raise
        finally:
            for device in devices:  # also after an error: a copy may still be writing into the block
                torch.cuda.current_stream(device).synchronize()
        memory = memory_of(block)
        return [
            _neutral(source, memory, start) for source, start in zip(self._sources, starts, strict=True)
        ], block


def _view_of(tensor: torch.Tensor) -> Hashable | None:
    if tensor.numel() == 0 or hasattr(tensor, "full_tensor"):
        return None
    return (
        tensor.device,
        tensor.data_ptr(),
        tensor.shape,
        tensor.stride(),
        tensor.dtype,
        tensor.is_conj(),
        tensor.is_neg(),
    )


def _part(block: torch.Tensor, start: int, like: torch.Tensor) -> torch.Tensor:
    size = like.numel() * like.element_size()
    return block[start : start + size].view(like.dtype).view(like.shape)


def _neutral(source: torch.Tensor, memory: memoryview, start: int) -> Tensor:
    size = source.numel() * source.element_size()
    return Tensor(dtype_name(source.dtype), tuple(source.shape), memory[start : start + size])
