"""The cache of file digests of one host: an unchanged file costs one stat.

A digest is believed only while path, size, times of modification and change, and inode are what they were.
The change time cannot be set back by a program, so that a file whose modification time was put back is
noticed. Everything in here may be lost at any time; whatever goes wrong with it, hashing goes on without it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from mvc_callbacks.host_cache import open_database

__all__ = ["DigestsCache"]

_log = logging.getLogger(__name__)

YOUNG = 2 * 10**9
"""Nanoseconds. A younger file may change once more without its times changing: FAT counts in two seconds,
ext4 in the ticks of a clock (the "racy" entries of git's index)."""

_SEPARATOR = os.fsencode(os.sep)
_LARGEST = 2 * 1024**3
_AT_ONCE = 500  # older SQLite takes 999 variables in one statement
_WRITTEN_TOGETHER = 20_000  # digests, of half a kilobyte each until then
_TABLE = """
CREATE TABLE IF NOT EXISTS digests (
    folder BLOB NOT NULL, name BLOB NOT NULL,
    size INTEGER NOT NULL, modified INTEGER NOT NULL, changed INTEGER NOT NULL, inode INTEGER NOT NULL,
    sha256 BLOB NOT NULL,
    PRIMARY KEY (folder, name)
) WITHOUT ROWID
"""
_LISTINGS = """
CREATE TABLE IF NOT EXISTS listings (
    stamp BLOB NOT NULL PRIMARY KEY, used INTEGER NOT NULL, files INTEGER NOT NULL, size INTEGER NOT NULL,
    digest BLOB NOT NULL, listing BLOB NOT NULL
)
"""
_LISTINGS_KEPT = 20


class DigestsCache:
    """Digests by path and stat. For one thread.

    Args:
        path: The database; None for a cache that remembers nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self._database: sqlite3.Connection | None = None
        self._new: list[tuple[bytes, bytes, int, int, int, int, bytes]] = []
        self._path = path
        self._empty = False
        if path is not None:
            self._open(path)

    def _open(self, path: Path) -> None:
        try:
            self._database = open_database(path, _TABLE + ";" + _LISTINGS, largest=_LARGEST)
            self._empty = self._database.execute("SELECT 1 FROM digests LIMIT 1").fetchone() is None
        except (sqlite3.Error, OSError, RuntimeError) as error:  # RuntimeError: no home folder
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        _log.info("the cache of file digests cannot be used, everything is hashed: %s", error)
        database, self._database = self._database, None
        self._new = []
        if database is not None:
            database.close()
        broken = isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError)
        if broken and self._path is not None:
            with contextlib.suppress(OSError):
                self._path.unlink()  # no database, or a damaged one: the next one starts afresh

    @property
    def is_open(self) -> bool:
        """Whether anything is remembered."""
        return self._database is not None

    def look_up(self, found: Mapping[str, os.stat_result]) -> dict[str, str]:
        """Return the digests that are still true.

        Args:
            found: Absolute path to what ``stat`` says now.

        Returns:
            Path to SHA-256 in hex, without those that are unknown or changed.
        """
        if self._database is None or self._empty:
            return {}
        folders: dict[bytes, dict[bytes, str]] = {}
        for path in found:
            folder, name = _split(path)
            folders.setdefault(folder, {})[name] = path
        known: dict[str, str] = {}
        try:
            for folder, names in folders.items():
                for rows in self._rows(self._database, folder, list(names)):
                    for name, size, modified, changed, inode, sha256 in rows:
                        stat = found[names[name]]
                        if (
                            stat.st_ctime_ns == changed
                            and stat.st_mtime_ns == modified
                            and stat.st_size == size
                            and _signed(stat.st_ino) == inode
                        ):
                            known[names[name]] = sha256.hex()
        except (sqlite3.Error, AttributeError, KeyError, TypeError, ValueError) as error:
            self._give_up(error)
            return {}
        return known

    @staticmethod
    def _rows(
        database: sqlite3.Connection, folder: bytes, names: list[bytes]
    ) -> Iterable[list[tuple[bytes, int, int, int, int, bytes]]]:
        for start in range(0, len(names), _AT_ONCE):
            part = names[start : start + _AT_ONCE]
            yield database.execute(
                "SELECT name, size, modified, changed, inode, sha256 FROM digests "
                f"WHERE folder=? AND name IN ({','.join('?' * len(part))})",
                [folder, *part],
            ).fetchall()

    def add(self, path: str, stat: os.stat_result, sha256: str, *, now: int | None = None) -> None:
        """Remember a digest, unless the file is so young that a further change might not be seen.

        Args:
            path: Absolute path.
            stat: What ``fstat`` said before and after the file was read.
            sha256: Hex digits.
            now: Nanoseconds since 1970 when it was begun to be read; the clock's, when None.
        """
        now = time.time_ns() if now is None else now
        if self._database is None or now - max(stat.st_ctime_ns, stat.st_mtime_ns) < YOUNG:
            return
        folder, name = _split(path)
        key = (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, _signed(stat.st_ino))
        self._new.append((folder, name, *key, bytes.fromhex(sha256)))
        if len(self._new) >= _WRITTEN_TOGETHER:
            self._write()

    def _write(self) -> None:
        if self._database is None or not self._new:
            return
        try:
            self._database.execute("BEGIN IMMEDIATE")
            self._database.executemany("INSERT OR REPLACE INTO digests VALUES (?,?,?,?,?,?,?)", self._new)
            self._database.execute("COMMIT")
            self._new = []
        except (sqlite3.Error, OverflowError) as error:
            self._give_up(error)

    def recall(self, stamp: bytes) -> tuple[int, int, bytes, bytes] | None:
        """Return what `keep` was given for files that have this stamp."""
        if self._database is None:
            return None
        try:
            row = self._database.execute(
                "SELECT files, size, digest, listing FROM listings WHERE stamp=?", [stamp]
            ).fetchone()
        except sqlite3.Error as error:
            self._give_up(error)
            return None
        return tuple(row) if row is not None else None

    def keep(self, stamp: bytes, files: int, size: int, digest: bytes, listing: bytes) -> None:
        """Remember what all files together came to.

        Args:
            stamp: Digest of their stamp.
            files: How many there are.
            size: Their bytes.
            digest: The digest of them all.
            listing: Their listing.
        """
        self._write()
        if self._database is None:
            return
        try:
            self._database.execute("BEGIN IMMEDIATE")
            row = (stamp, time.time_ns(), files, size, digest, listing)
            self._database.execute("INSERT OR REPLACE INTO listings VALUES (?,?,?,?,?,?)", row)
            self._database.execute(
                "DELETE FROM listings WHERE stamp NOT IN (SELECT stamp FROM listings ORDER BY used DESC "
                "LIMIT ?)",
                [_LISTINGS_KEPT],
            )
            self._database.execute("COMMIT")
        except (sqlite3.Error, OverflowError) as error:
            self._give_up(error)

    def close(self) -> None:
        """Write what is new, and close."""
        self._write()
        if self._database is not None:
            self._database.close()
            self._database = None


def _split(path: str) -> tuple[bytes, bytes]:
    folder, _, name = os.fsencode(path).rpartition(_SEPARATOR)
    return folder, name


def _signed(number: int) -> int:
    """Fit an unsigned inode, as NTFS and some network file systems give, into SQLite's signed 64 bits."""
    number &= 2**64 - 1
    return number - 2**64 if number >= 2**63 else number
