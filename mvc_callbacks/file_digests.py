"""Digests of many files: read on threads, in batches, each file whole and at one moment, or told why not."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import NamedTuple

from mvc_callbacks.digests_cache import DigestsCache

__all__ = ["Cancelled", "Hashed", "hash_files"]

_BLOCK = 1024 * 1024
_AT_ONCE = 2048  # paths that are looked at together
_FILES_A_TASK = 64
_BYTES_A_TASK = 8 * 1024 * 1024
_TRIES = 3
_PAUSE = 0.05  # seconds before a file that was changing is read again
_SMALL = 32 * 1024  # bytes of a file whose reading and hashing is less work than handing it to a thread
_SPARSE_FROM = 1024**3
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_CLOEXEC", 0)
_BINARY = getattr(os, "O_BINARY", 0)
_VIRTUAL = ("/proc/", "/sys/", "/dev/")
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class Cancelled(Exception):
    """Nobody waits for the digests any more."""


class Hashed(NamedTuple):
    """What became of one file.

    Attributes:
        path: As it was given.
        name: As it was given.
        size: Bytes read.
        sha256: Hex digits; None where the file was not read to its end.
        problem: Why not, or what is doubtful about it; None when all is well.
        read: Whether the bytes were read now, rather than known from before.
    """

    path: str
    name: bytes
    size: int
    sha256: str | None
    problem: str | None = None
    read: bool = True


class _Wanted(NamedTuple):
    path: str
    name: bytes
    size: int


_Done = list[tuple[Hashed, "os.stat_result | None", int]]
"""Files of one task: what became of each, what ``stat`` said, and when it was begun to be read."""


def hash_files(
    paths: Iterable[tuple[str, bytes]],
    *,
    cache: DigestsCache,
    cancelled: Callable[[], bool],
    largest: int | None = None,
    threads: int | None = None,
) -> Iterator[Hashed]:
    """Hash files on several threads; hashlib and reading let go of the interpreter's lock.

    Small files that the system has in memory are read by this thread alone: others would wait for the
    interpreter's lock rather than for them. Only some thousand paths are held at a time, however many there
    are.

    Args:
        paths: Absolute path and the name to give back with it.
        cache: Digests from before.
        cancelled: Asked now and then.
        largest: Files of more bytes are told as not hashed; None for no limit.
        threads: How many; as many as there are processors, when None.

    Yields:
        What became of each file, in no order.

    Raises:
        Cancelled: Soon after ``cancelled`` says so.
    """
    threads = threads or min(os.cpu_count() or 1, 16)
    waiting: set[Future[_Done]] = set()
    at_hand = True
    pool = ThreadPoolExecutor(threads, thread_name_prefix="mvc-hash")
    remaining = iter(paths)
    try:
        while batch := list(islice(remaining, _AT_ONCE)):
            _check(cancelled)
            told, wanted = _look(batch, cache, largest)
            yield from told
            for task in _tasks(wanted):
                _check(cancelled)
                if at_hand and sum(each.size for each in task) <= _SMALL * len(task):
                    began, worked = time.perf_counter(), time.thread_time()
                    yield from _remember(_hash_all(task, cancelled), cache)
                    at_hand = 2 * (time.thread_time() - worked) > time.perf_counter() - began
                    continue
                while len(waiting) >= 2 * threads:
                    yield from _collect(waiting, cache)
                _check(cancelled)
                waiting.add(pool.submit(_hash_all, task, cancelled))
        while waiting:
            yield from _collect(waiting, cache)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _check(cancelled: Callable[[], bool]) -> None:
    if cancelled():
        raise Cancelled


def _collect(waiting: set[Future[_Done]], cache: DigestsCache) -> Iterator[Hashed]:
    done, _ = wait(waiting, return_when=FIRST_COMPLETED)
    for future in done:
        waiting.discard(future)
        yield from _remember(future.result(), cache)


def _remember(done: _Done, cache: DigestsCache) -> Iterator[Hashed]:
    for hashed, seen, began in done:
        if seen is not None and hashed.sha256 is not None:
            cache.add(hashed.path, seen, hashed.sha256, now=began)
        yield hashed


def _look(
    batch: list[tuple[str, bytes]], cache: DigestsCache, largest: int | None
) -> tuple[list[Hashed], list[_Wanted]]:
    """Stat the paths: what is no ordinary file is told, what is known is taken, the rest is to be read."""
    told: list[Hashed] = []
    found: dict[str, os.stat_result] = {}
    for path, name in batch:
        try:
            seen = os.stat(path)  # noqa: PTH116 - twice as fast as Path.stat, and there may be a million
            problem = _refusal(path, seen, largest)
        except (OSError, ValueError) as error:
            problem = _reason(error)
        if problem is None:
            found[path] = seen
        else:
            told.append(Hashed(path, name, 0, None, problem, read=False))
    known = cache.look_up(found)
    wanted = []
    for path, name in batch:
        if path not in found:
            continue
        if path in known:
            told.append(Hashed(path, name, found[path].st_size, known[path], read=False))
        else:
            wanted.append(_Wanted(path, name, found[path].st_size))
    return told, wanted


def _refusal(path: str, seen: os.stat_result, largest: int | None) -> str | None:
    if not stat.S_ISREG(seen.st_mode):
        return f"{next((word for test, word in _KINDS if test(seen.st_mode)), 'no ordinary file')}; skipped"
    if largest is not None and seen.st_size > largest:
        return f"{seen.st_size} bytes, more than the limit of {largest}; not hashed"
    if seen.st_size >= _SPARSE_FROM and _is_sparse(path, seen):
        return f"a sparse file of {seen.st_size} bytes; not hashed"
    # Files there look ordinary, have no size, and may block or never end. Only size 0 pays for the look.
    if seen.st_size == 0 or path.startswith(_VIRTUAL):
        real = os.path.realpath(path)
        if real.startswith(_VIRTUAL) and not real.startswith("/dev/shm/"):
            return "a file of the system's, not of data; skipped"
    return None


def _is_sparse(path: str, seen: os.stat_result) -> bool:
    """Tell whether most of a large file is a hole.

    Few blocks alone do not say so: file systems that compress, and some in user space, count them otherwise.
    Those that know of holes can be asked for one.
    """
    if getattr(seen, "st_blocks", seen.st_size) * 512 * 8 > seen.st_size or not hasattr(os, "SEEK_HOLE"):
        return False
    try:
        descriptor = os.open(path, _FLAGS)
    except OSError:
        return False  # reading it will tell why
    try:
        return os.lseek(descriptor, 0, os.SEEK_HOLE) < seen.st_size
    except OSError:
        return False
    finally:
        os.close(descriptor)


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, FileNotFoundError):
        return "missing"
    return f"unreadable ({getattr(error, 'strerror', None) or error})"


def _tasks(wanted: list[_Wanted]) -> Iterator[list[_Wanted]]:
    task: list[_Wanted] = []
    size = 0
    for each in wanted:
        if task and (len(task) >= _FILES_A_TASK or size + each.size > _BYTES_A_TASK):
            yield task
            task, size = [], 0
        task.append(each)
        size += each.size
    if task:
        yield task


def _hash_all(task: list[_Wanted], cancelled: Callable[[], bool]) -> _Done:
    block = bytearray(_BLOCK if any(each.size > 65536 for each in task) else 65536)
    done = []
    for each in task:
        _check(cancelled)
        began = time.time_ns()
        hashed, seen = _hash_one(each, memoryview(block), cancelled)
        done.append((hashed, seen, began))
    return done


def _hash_one(
    wanted: _Wanted, block: memoryview, cancelled: Callable[[], bool]
) -> tuple[Hashed, os.stat_result | None]:
    """Read a file until it was the same before and after; the last reading counts when it never is."""
    path, name = wanted.path, wanted.name
    problem: str | None = None
    size, sha256 = 0, ""
    for attempt in range(_TRIES):
        if attempt:
            time.sleep(_PAUSE * attempt)
        try:
            size, sha256, before, after = _read(path, block, cancelled)
        except (OSError, ValueError) as error:
            problem = _reason(error)
            if not isinstance(error, FileNotFoundError):
                break
        else:
            if _same(before, after) and size == before.st_size:
                return Hashed(path, name, size, sha256), after
            problem = None
    if problem is not None:
        return Hashed(path, name, 0, None, problem), None
    return Hashed(path, name, size, sha256, "unstable: it changed each time while it was read"), None


def _read(
    path: str, block: memoryview, cancelled: Callable[[], bool]
) -> tuple[int, str, os.stat_result, os.stat_result]:
    # Not blocking: what was a file a moment ago may be a FIFO that nobody writes to.
    descriptor = os.open(path, _FLAGS | _BINARY)
    try:
        before = os.fstat(descriptor)
        if not stat.S_ISREG(before.st_mode):
            raise ValueError("no ordinary file any more")
        digest = hashlib.sha256()
        size = 0
        while count := _read_into(descriptor, block):
            digest.update(block[:count])
            size += count
            if size >= before.st_size:
                break  # what has come since then, the times tell; and one that grows for ever is read once
            if count == len(block) == _BLOCK:
                _check(cancelled)
    finally:
        os.close(descriptor)
    # By name once more: the file may have been replaced while the old one was being read.
    return size, digest.hexdigest(), before, os.stat(path)  # noqa: PTH116 - as above


def _read_in_place(descriptor: int, block: memoryview) -> int:
    return os.readv(descriptor, [block])


def _read_and_copy(descriptor: int, block: memoryview) -> int:
    data = os.read(descriptor, len(block))
    block[: len(data)] = data
    return len(data)


_read_into = _read_in_place if hasattr(os, "readv") else _read_and_copy


def _same(before: os.stat_result, after: os.stat_result) -> bool:
    return (
        before.st_size == after.st_size
        and before.st_mtime_ns == after.st_mtime_ns
        and before.st_ctime_ns == after.st_ctime_ns
        and before.st_ino == after.st_ino
    )
