"""Copies of memory: every byte arrives, in one piece or in many."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest

from mvc_callbacks import copies


@pytest.mark.parametrize("piece", [copies._PIECE, 8, 1000], ids=["at once", "many pieces", "few shares"])
def test_every_byte_arrives_however_the_work_is_shared(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "_PIECE", piece)
    sources: list[Any] = []
    for size in (1, 7, 8, 9, 0, 900, 64, 1300, 3):
        data = bytes((place * 7 + size) % 251 for place in range(size))
        sources.append((ctypes.c_ubyte * size).from_buffer_copy(data))
    targets: list[Any] = [(ctypes.c_ubyte * len(each))() for each in sources]
    copies.copy_memory(
        (ctypes.addressof(target), ctypes.addressof(source), len(source))
        for target, source in zip(targets, sources, strict=True)
    )
    assert [bytes(each) for each in targets] == [bytes(each) for each in sources]
