"""Copies: bytes from memory to memory, much of it by several threads at once."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

__all__ = ["copy_memory"]

_PIECE = 16 * 1024 * 1024
_THREADS = max(2, min(8, os.cpu_count() or 2))


def copy_memory(pieces: Iterable[tuple[int, int, int]]) -> None:
    """Copy memory, while other threads of Python run.

    A framework's own copy splits each tensor among its threads and waits for all of them, which takes long
    for many tensors where the cores are busy with something else.

    Args:
        pieces: Address of the target, address of the source, and bytes; they do not overlap. Whoever calls
            keeps the memory alive.
    """
    parts = [
        (target + at, source + at, min(_PIECE, size - at))
        for target, source, size in pieces
        for at in range(0, size, _PIECE)
    ]
    if sum(size for *_, size in parts) <= _PIECE:
        for part in parts:
            ctypes.memmove(*part)
        return
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="mvc-copy") as pool:
        for _ in pool.map(lambda share: [ctypes.memmove(*part) for part in share], _shares(parts)):
            pass


def _shares(parts: list[tuple[int, int, int]]) -> list[list[tuple[int, int, int]]]:
    """Put small parts together: a task costs more than a small copy."""
    shares: list[list[tuple[int, int, int]]] = [[]]
    size = 0
    for part in parts:
        shares[-1].append(part)
        size += part[2]
        if size >= _PIECE:
            shares.append([])
            size = 0
    return shares
