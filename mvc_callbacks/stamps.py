"""Stamps: one digest of what ``stat`` says of many files, so that unchanged ones are not looked up singly."""

from __future__ import annotations

import hashlib
import os
import stat
import struct
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from mvc_callbacks.digests_cache import YOUNG
from mvc_callbacks.sources_files import FileGroup, scan

__all__ = ["Stamp", "stamp"]

_PACK = struct.Struct("<qqqQ").pack
_AT_ONCE = 4096


@dataclass(frozen=True, slots=True)
class Stamp:
    """What ``stat`` says of some files.

    Attributes:
        digest: Another one when a file comes, goes, or may have changed.
        settled: Whether no file is so young that a further change might not be seen.
    """

    digest: bytes
    settled: bool


def stamp(groups: Iterable[FileGroup], *, also: bytes, check: Callable[[], None]) -> Stamp | None:
    """Stat all files of some groups.

    Args:
        groups: The files.
        also: Whatever else the use of the stamp depends on.
        check: Raises when nobody waits any more.

    Returns:
        The stamp; None where one of them is missing, no ordinary file, or cannot be looked at.
    """
    work = _Work(also)
    try:
        for group in groups:
            work.digest.update(b"\0group\0")
            if group.folder is not None:
                for folder, entries in scan(group.folder, work.give_up):
                    check()
                    work.add(folder, [(entry.name, entry.stat()) for entry in entries])
            else:
                part: list[tuple[str, os.stat_result]] = []
                for path in group.paths(work.give_up):
                    part.append((path, os.stat(path)))  # noqa: PTH116 - twice as fast as Path.stat
                    if len(part) == _AT_ONCE:
                        check()
                        work.add("", part)
                        part = []
                work.add("", part)
    except (OSError, ValueError):
        return None
    if work.given_up:
        return None
    return Stamp(work.digest.digest(), work.began - work.youngest >= YOUNG)


class _Work:
    def __init__(self, also: bytes) -> None:
        self.began = time.time_ns()
        self.digest = hashlib.sha256(also)
        self.youngest = 0
        self.given_up = False

    def give_up(self, path: str, problem: str) -> None:
        self.given_up = True

    def add(self, folder: str, found: list[tuple[str, os.stat_result]]) -> None:
        told = [b"\0folder\0", os.fsencode(folder)]
        for name, seen in found:
            if not stat.S_ISREG(seen.st_mode):
                self.given_up = True
            changed, modified = seen.st_ctime_ns, seen.st_mtime_ns
            if changed > self.youngest or modified > self.youngest:
                self.youngest = max(changed, modified)
            told.append(
                b"\0"
                + name.encode("utf-8", "surrogateescape")
                + b"\0"
                + _PACK(seen.st_size, modified, changed, seen.st_ino & (2**64 - 1))
            )
        self.digest.update(b"".join(told))
