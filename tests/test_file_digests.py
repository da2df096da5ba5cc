"""Digests of files while others change them, and with a cache that is taken away on the way."""

from __future__ import annotations

import logging
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from mvc_callbacks import file_digests, fingerprint_data, plans, stamps
from mvc_callbacks.digests_cache import DigestsCache
from mvc_callbacks.file_digests import hash_files
from mvc_callbacks.fingerprint import plan
from mvc_callbacks.host_cache import open_database, times_of

TABLE = "CREATE TABLE IF NOT EXISTS t (x)"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    for name in "abc":
        (folder / f"{name}.txt").write_text(name * 100)
    return folder


def hashed(*paths: Path, cache: DigestsCache | None = None) -> dict[str, file_digests.Hashed]:
    """Hash files, whose names are known to the cache as they are, or are looked at by it first."""
    given = [(str(path), path.name.encode()) for path in paths]
    found = hash_files(given, cache=cache or DigestsCache(None), cancelled=lambda: False, threads=1)
    return {Path(each.path).name: each for each in found}


class Meddling(DigestsCache):
    """Does something after files were looked at, and before they are read."""

    def __init__(self, meddle: Any) -> None:
        super().__init__(None)
        self.meddle = meddle

    def look_up(self, found: Any) -> dict[str, str]:
        self.meddle()
        return super().look_up(found)


def test_a_file_that_goes_before_it_is_read_is_told_as_missing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_digests, "_PAUSE", 0)
    told = hashed(folder / "a.txt", folder / "b.txt", cache=Meddling((folder / "a.txt").unlink))
    assert (told["a.txt"].sha256, told["a.txt"].problem) == (None, "missing")
    assert told["b.txt"].problem is None


def test_a_file_that_becomes_a_fifo_before_it_is_read_keeps_nobody_waiting(folder: Path) -> None:
    def replace() -> None:
        (folder / "a.txt").unlink()
        os.mkfifo(folder / "a.txt")

    told = hashed(folder / "a.txt", cache=Meddling(replace))
    assert told["a.txt"].problem == "unreadable (no ordinary file any more)"


def test_both_ways_of_reading_fill_the_same_block(folder: Path) -> None:
    for read in (file_digests._read_in_place, file_digests._read_and_copy):
        block = bytearray(64)
        with (folder / "a.txt").open("rb", buffering=0) as file:
            assert [read(file.fileno(), memoryview(block)) for _ in range(3)] == [64, 36, 0]
        assert block == b"a" * 64


def test_a_file_that_is_given_out_in_small_pieces_is_read_to_its_end(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = hashed(folder / "a.txt")
    read_into = file_digests._read_into
    monkeypatch.setattr(file_digests, "_read_into", lambda file, block: read_into(file, block[:30]))
    assert hashed(folder / "a.txt") == expected


def test_a_large_file_is_sparse_only_where_the_file_system_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_digests, "_SPARSE_FROM", 1 << 16)
    whole, hole = folder / "whole", folder / "hole"
    whole.write_bytes(bytes(range(256)) * 512)
    with hole.open("wb") as file:
        file.truncate(1 << 24)
    told = hashed(whole, hole)
    assert told["whole"].problem is None
    if told["hole"].problem is None:
        pytest.skip("this file system knows of no holes")
    assert "a sparse file of 16777216 bytes; not hashed" in told["hole"].problem
    seen = hole.stat()
    with monkeypatch.context() as patch:
        patch.delattr(os, "SEEK_HOLE")
        assert not file_digests._is_sparse(str(hole), seen)
    hole.unlink()
    assert not file_digests._is_sparse(str(hole), seen)  # it went since it was looked at
    os.mkfifo(hole)
    assert not file_digests._is_sparse(str(hole), seen)


# Plans.


def test_a_computation_that_nobody_waits_for_ends_between_files_and_between_items(folder: Path) -> None:
    planned = plan([str(folder), [f"sentence {number}" for number in range(100)]])
    for last in range(1, 30):
        asked: list[None] = []

        def late(asked: list[None] = asked, last: int = last) -> bool:
            asked.append(None)
            return len(asked) >= last

        told = planned.compute(cancelled=late).fingerprint
        if len(asked) < last:
            break
        assert (told.coverage, told.digest) == ("pending", None)
    assert 3 < last < 29
    assert told == fingerprint_data([str(folder), [f"sentence {number}" for number in range(100)]])


def test_a_file_that_is_named_twice_and_changes_in_between_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plans, "_REMEMBERED", 0)  # as of the million-and-first name on
    read_into, changes = file_digests._read_into, iter([b"one", b"two"])

    def meddle(descriptor: int, block: memoryview) -> int:
        begins = os.lseek(descriptor, 0, os.SEEK_CUR) == 0
        count = read_into(descriptor, block)
        if begins:
            block[:3] = next(changes)
        return count

    monkeypatch.setattr(file_digests, "_read_into", meddle)
    told = plan([str(folder / "a.txt")] * 2).compute(threads=1).fingerprint
    assert (told.coverage, told.files) == ("partial", 1)
    assert "a.txt: two contents under one name; it changed meanwhile" in told.problems[0]


def test_what_files_came_to_is_not_remembered_when_one_changed_since_it_was_read(
    aged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[bytes] = []
    monkeypatch.setattr(DigestsCache, "keep", lambda self, stamp, *told: kept.append(stamp))
    work = plans._Work.hash_files.__globals__
    stamp = work["stamp"]

    def meddle(*given: Any, **named: Any) -> Any:
        found = stamp(*given, **named)
        (aged / "a.txt").write_text("changed")
        return found

    before = fingerprint_data(aged)
    assert len(kept) == 1
    monkeypatch.setitem(work, "stamp", meddle)
    assert fingerprint_data(aged) != before
    assert len(kept) == 1


def test_a_long_list_of_files_is_stamped_in_parts(aged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stamps, "_AT_ONCE", 2)
    paths = [str(aged / f"{name}.txt") for name in "abc"]
    told = fingerprint_data(paths)
    assert told.files == 3
    assert fingerprint_data(paths) == told


# The cache.


@pytest.mark.parametrize("step", ["look_up", "add", "keep", "recall"])
def test_a_cache_whose_tables_go_while_it_is_used_is_given_up(
    step: str, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "digests.sqlite"
    stat = (folder / "a.txt").stat()
    for _ in range(2):  # the second one has something to look up
        cache = DigestsCache(path)
        cache.add(str(folder / "a.txt"), stat, "00" * 32, now=stat.st_mtime_ns + 10**10)
        if not cache.look_up({str(folder / "a.txt"): stat}):
            cache.close()
    with sqlite3.connect(path) as database:
        database.execute("DROP TABLE digests" if step in ("look_up", "add") else "DROP TABLE listings")
    database.close()
    with caplog.at_level(logging.INFO):
        if step == "look_up":
            assert cache.look_up({str(folder / "a.txt"): stat}) == {}
        elif step == "add":
            cache.close()
        elif step == "keep":
            cache.keep(b"stamp", 1, 1, b"digest", b"listing")
        else:
            assert cache.recall(b"stamp") is None
    assert "the cache of file digests cannot be used, everything is hashed" in caplog.text
    assert not cache.is_open
    assert cache.recall(b"stamp") is None and cache.look_up({}) == {}
    cache.keep(b"stamp", 1, 1, b"digest", b"listing")
    cache.close()
    assert DigestsCache(path).is_open


def test_a_database_that_grew_too_large_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "cache" / "it.sqlite"
    database = open_database(path, TABLE, largest=10**9)
    database.execute("INSERT INTO t VALUES (1)")
    database.close()
    for largest, count in ((10**9, 1), (10, 0)):
        database = open_database(path, TABLE, largest=largest)
        assert database.execute("SELECT count(*) FROM t").fetchone() == (count,)
        database.close()


def test_a_database_that_is_only_in_use_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "it.sqlite"
    open_database(path, TABLE, largest=10**9).close()
    before = times_of(str(path))
    with pytest.raises(sqlite3.OperationalError):
        open_database(path, "CREATE TABLE", largest=10**9)
    assert times_of(str(path)) == before is not None
    path.write_bytes(b"garbage" * 100)
    with pytest.raises(sqlite3.DatabaseError):
        open_database(path, TABLE, largest=10**9)
    assert times_of(str(path)) is None
