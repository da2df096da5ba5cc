"""Footprints: what a process took of memory, and a folder of the disk."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

__all__ = ["peak_memory", "size_of"]


def peak_memory() -> float:
    """Return the largest resident memory of this process until now, in MB."""
    kept = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kept / 1e6 if sys.platform == "darwin" else kept * 1024 / 1e6


def size_of(folder: Path) -> dict[str, float]:
    """Return ``bytes`` (in MB) and ``files`` of a folder; a file with several names counts once."""
    found = {
        (each.stat().st_dev, each.stat().st_ino): each.stat().st_size
        for each in folder.rglob("*")
        if each.is_file()
    }
    return {"bytes": sum(found.values()) / 1e6, "files": len(found)}
