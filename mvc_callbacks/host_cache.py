"""The caches of one host: where they lie, and their databases. All of it may be lost at any time."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3

__all__ = [
    "Times",
    "cache_folder",
    "keep_text",
    "open_database",
    "place_of",
    "recall_text",
    "stamp_of",
    "times_of",
]

Times = tuple[int, int, int, int]
"""Inode, size, and the times of a file."""


def cache_folder(name: str) -> Path:
    """Return ``$XDG_CACHE_HOME/mvc/<name>``, which need not exist."""
    base = os.environ.get("XDG_CACHE_HOME") or ""
    return (Path(base) if Path(base).is_absolute() else Path("~/.cache").expanduser()) / "mvc" / name


def place_of(folder: Path) -> str:
    """Return a short name for a folder as this host sees it.

    A copy of a store has its uuid but files of its own, and hosts may share a home folder. Two of them with
    one name would only take turns: what is remembered of a file is believed of that file alone.
    """
    import platform
    import zlib  # a digest of `hashlib` would cost `mvc log` the loading of OpenSSL

    return f"{zlib.crc32(os.fsencode(folder)):08x}{zlib.crc32(os.fsencode(platform.node())):08x}"


def keep_text(path: Path, text: str) -> None:
    """Keep a text; where it cannot be kept nothing is lost."""
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            beside.write_text(text, "utf-8")
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)


def recall_text(path: Path, largest: int) -> str:
    """Return a text that was kept; empty where it is larger than that many bytes.

    Raises:
        OSError: If there is none.
        ValueError: If it is no text.
    """
    with path.open("rb") as file:
        data = file.read(largest + 1)
    return data.decode("utf-8") if len(data) <= largest else ""


def open_database(path: Path, schema: str, *, largest: int) -> sqlite3.Connection:
    """Open a database of a cache, and make it where there is none.

    It has a rollback journal: a write-ahead log needs memory that its users share, which a home folder on a
    network has not.

    Args:
        path: The database.
        schema: Statements that make its tables where they are missing.
        largest: Bytes from which on it is begun anew.

    Raises:
        sqlite3.Error: If it cannot be used; a damaged one is removed, so that the next one starts afresh.
        OSError: If the folder cannot be had.
    """
    import sqlite3

    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if path.exists() and path.stat().st_size > largest:
        path.unlink()
    # Its users do not share it between threads at the same time.
    database = sqlite3.connect(path, timeout=2.0, isolation_level=None, check_same_thread=False)
    try:
        database.execute("PRAGMA synchronous=NORMAL")
        database.executescript(schema)
    except sqlite3.Error as error:
        database.close()
        if not isinstance(error, sqlite3.OperationalError):
            with contextlib.suppress(OSError):
                path.unlink()
        raise
    return database


def stamp_of(path: str, *, folder: bool = False, young: int = 0) -> str:
    """Return what changes when a file is replaced, or a folder's names are.

    Args:
        path: The file or the folder.
        folder: Whether it is a folder that is looked at.
        young: Nanoseconds within which it may change once more and its times not.

    Returns:
        A text; empty where it cannot be told, or not yet.
    """
    try:
        found = os.lstat(path)
    except OSError:
        return ""
    if not (stat.S_ISDIR if folder else stat.S_ISREG)(found.st_mode):
        return ""
    if young and time.time_ns() - max(found.st_ctime_ns, found.st_mtime_ns) < young:
        return ""
    return f"{found.st_ino} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"


def times_of(path: str) -> Times | None:
    """Return what `stamp_of` tells, without the words: for a thousand files that did not change."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
