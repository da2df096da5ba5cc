"""The one room that writes, renames, fsyncs, links and removes files of a store."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from mvc_callbacks.errors import MissingObject, UnsafeFile

__all__ = [
    "Buffer",
    "OpenFile",
    "begins_with",
    "check_folder",
    "exists",
    "gathered",
    "keep_beside",
    "list_folders",
    "list_names",
    "make_folder",
    "make_new_folder",
    "map_file",
    "move",
    "read_file",
    "remove",
    "remove_folder",
    "rename",
    "replace_file",
    "size_of",
    "stage",
    "stamp_of",
    "sweep",
    "sync_folder",
    "sync_folders",
    "touch",
]

Buffer = bytes | bytearray | memoryview
STAGED = ".staged"
_STAGED_NAME = re.compile(
    r"[0-9a-f]{32}\.staged"
)  # as `stage` makes them: an export stages in a user's folder
_A_DAY = 24 * 3600
_CHUNK = 64 * 1024 * 1024  # one write() may not take more than about 2 GiB
_SMALL = 256 * 1024
_GATHERED = 1024 * 1024
_RESERVED = 1024 * 1024  # from here on a file's blocks are asked for together
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_NONBLOCK = getattr(os, "O_NONBLOCK", 0)
_CLOEXEC = getattr(os, "O_CLOEXEC", 0)
_BINARY = getattr(os, "O_BINARY", 0)


_durable: set[str] = set()  # folders whose names this process has synced


def make_folder(path: Path, *, durable: bool = True) -> None:
    """Make a folder and its parents, each one durable in the folder above it.

    Args:
        path: The folder.
        durable: Its own name in its parent may be left to `sync_folders` instead.
    """
    if str(path) in _durable:
        if path.exists():
            return
        _durable.discard(str(path))
    if not durable and path.parent.exists():
        with contextlib.suppress(FileExistsError):
            os.mkdir(path)
        return
    if path.exists():
        # Another process may have made it a moment ago and not have synced it yet.
        sync_folder(path.parent)
        _durable.add(str(path))
        return
    missing = []
    while not path.exists():
        missing.append(path)
        path = path.parent
    for each in reversed(missing):
        with contextlib.suppress(FileExistsError):
            os.mkdir(each)
        sync_folder(each.parent)
        _durable.add(str(each))


def make_new_folder(path: Path) -> bool:
    """Make a folder durably, unless there is something of that name; tell whether it was made.

    Of two that ask for one name at once, only one is told so, also where locks do not work.
    """
    try:
        os.mkdir(path)
    except FileExistsError:
        return False
    sync_folder(path.parent)
    _durable.add(str(path))
    return True


def stage(
    folder: Path, chunks: Iterable[Buffer], *, durable: bool = True, size: int = 0, cached: bool = True
) -> Path:
    """Write chunks into a new file of a staging folder.

    Args:
        folder: The staging folder, on the file system of the target.
        chunks: Buffers, written one after the other.
        durable: Also wait until the disk has them.
        size: Their bytes, where they are known: the disk's blocks are asked for together.
        cached: Whether it will be read soon; otherwise the system need not keep it in memory.

    Returns:
        The path of the new file; nothing is left there when writing fails.

    Raises:
        OSError: If the disk refuses.
    """
    import uuid  # who only reads need not wait for it

    make_folder(folder)
    path = folder / f"{uuid.uuid4().hex}{STAGED}"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _CLOEXEC | _BINARY, 0o666)
    try:
        try:
            if size >= _RESERVED:
                _reserve(descriptor, size)
            for chunk in gathered(chunks):
                _write_all(descriptor, chunk)
            if durable:
                os.fsync(descriptor)
            if not cached and hasattr(os, "posix_fadvise"):
                with contextlib.suppress(OSError):
                    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(path)
        raise
    return path


def _reserve(descriptor: int, size: int) -> None:
    """Ask for the blocks of a file at once, where the system can; the writing tells if there are none."""
    with contextlib.suppress(Exception):
        import ctypes  # os.posix_fallocate writes every block where the file system has no such call

        ctypes.CDLL(None).fallocate64(descriptor, 0, ctypes.c_int64(0), ctypes.c_int64(size))


def gathered(chunks: Iterable[Buffer]) -> Iterator[Buffer]:
    """Go through chunks, small ones put together: each call of the system lets other threads of Python in."""
    small = bytearray()
    for chunk in chunks:
        if len(chunk) < _SMALL and len(small) + len(chunk) <= _GATHERED:
            small += chunk
            continue
        if small:
            yield small
            small = bytearray()
        if len(chunk) < _SMALL:
            small += chunk
        else:
            yield chunk
    if small:
        yield small


def _write_all(descriptor: int, chunk: Buffer) -> None:
    view = memoryview(chunk).cast("B") if len(chunk) else memoryview(b"")
    while len(view):
        written = os.write(descriptor, view[:_CHUNK])  # may be short without an error
        if written <= 0:
            raise OSError(errno.ENOSPC, "a write of no bytes")
        view = view[written:]


def move(source: Path, target: Path) -> None:
    """Rename a staged file over another one, or none; durable once the folder is synced.

    A staged file that cannot be moved is removed.
    """
    try:
        os.replace(source, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(source)
        raise


def rename(source: Path, target: Path) -> None:
    """Give a file of the store another name in its folder, durably; it stays where it was if that fails."""
    os.replace(source, target)
    sync_folder(target.parent)


def keep_beside(path: Path, kept: Path, staging: Path) -> None:
    """Give a file of the store, about to be replaced, another name in its folder, durably.

    Whoever reads meanwhile, or after a crash, finds the file or its successor: it goes from its old name only
    where there are no hard links, or where it is no regular file.
    """
    import uuid

    other = staging / f"{uuid.uuid4().hex}{STAGED}"
    try:
        if not exists(path):
            raise OSError(errno.EINVAL, "no regular file")
        os.link(path, other)
    except OSError:
        rename(path, kept)
        return
    move(other, kept)
    remove(other)  # it stays where both names were of one file already
    sync_folder(kept.parent)


def replace_file(path: Path, data: Buffer, staging: Path) -> None:
    """Put new bytes in the place of a file, atomically and durably."""
    move(stage(staging, [data]), path)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    if os.name == "nt":  # folders cannot be opened there; NTFS journals names by itself
        return
    descriptor = os.open(path, os.O_RDONLY | _CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folders(paths: Iterable[Path], each: Callable[..., Iterable[Any]] = map) -> None:
    """Make the names in folders durable, and their own names where that is not known.

    Args:
        paths: The folders.
        each: ``map``, or that of a pool.
    """
    folders = sorted(set(paths))
    list(each(sync_folder, folders))
    unknown = [path for path in folders if str(path) not in _durable]
    list(each(sync_folder, sorted({path.parent for path in unknown})))
    _durable.update(map(str, unknown))


def remove(path: Path) -> bool:
    """Remove a file; tell whether it was there."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    return True


def remove_folder(path: Path) -> None:
    """Remove a folder of plain files, if it is there."""
    for name in list_names(path):
        remove(path / name)
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(path)


def sweep(folder: Path) -> int:
    """Remove what crashes left staged in a folder more than a day ago; return the bytes freed."""
    freed = 0
    for name in list_names(folder):
        if _STAGED_NAME.fullmatch(name):
            with contextlib.suppress(OSError):  # another user's may stay: it must not stop a save
                _, size, changed = stamp_of(folder / name)
                if time.time() - changed / 1e9 > _A_DAY and remove(folder / name):
                    freed += size
    return freed


def list_names(path: Path) -> list[str]:
    """Return the sorted names in a folder; none where there is no folder."""
    try:
        return sorted(os.listdir(path))
    except (FileNotFoundError, NotADirectoryError):
        return []


def list_folders(path: Path) -> list[str]:
    """Return the sorted names in a folder that are no plain files; links are among them."""
    try:
        with os.scandir(path) as found:
            return sorted(each.name for each in found if not each.is_file(follow_symlinks=False))
    except (FileNotFoundError, NotADirectoryError):
        return []


def exists(path: Path) -> bool:
    """Tell whether a regular file is there, following nothing."""
    return size_of(path) is not None


def size_of(path: Path) -> int | None:
    """Return the bytes of a regular file, None where there is none."""
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def stamp_of(path: Path) -> tuple[int, int, int]:
    """Return inode, bytes and time of change in ns; one of them changes when a file is replaced.

    Raises:
        MissingObject: If it is not there.
    """
    try:
        found = os.lstat(path)
    except FileNotFoundError as error:
        raise MissingObject(f"{path} is missing") from error
    return found.st_ino, found.st_size, found.st_mtime_ns


def touch(path: Path) -> None:
    """Give a file the present time, where that is allowed."""
    with contextlib.suppress(OSError):
        os.utime(path)


def check_folder(path: Path) -> None:
    """Refuse a folder of the store that is a symbolic link or no folder.

    Raises:
        UnsafeFile: If it is one.
    """
    try:
        mode = os.lstat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    if not stat.S_ISDIR(mode):
        raise UnsafeFile(
            f"{path} should be a plain folder of the store but is a link or a file; nothing was read"
        )


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[int, int]]:
    check_folder(path.parent)
    try:
        # Without O_NONBLOCK the opening of a FIFO waits for a writer for ever.
        descriptor = os.open(path, os.O_RDONLY | _NOFOLLOW | _NONBLOCK | _CLOEXEC | _BINARY)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MissingObject(f"{path} is missing") from error
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK, errno.ENXIO, errno.EISDIR):
            raise UnsafeFile(f"{path} is not a regular file; nothing was read") from error
        raise
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise UnsafeFile(f"{path} is not a regular file; nothing was read")
        yield descriptor, found.st_size
    finally:
        os.close(descriptor)


def read_file(path: Path, *, limit: int) -> bytes:
    """Read a whole regular file of the store.

    Raises:
        MissingObject: If it is not there.
        UnsafeFile: If it is a link, FIFO, device or folder, or larger than ``limit`` bytes.
        OSError: If the disk refuses.
    """
    with _opened(path) as (descriptor, size):
        if size > limit:
            raise UnsafeFile(f"{path} has {size} bytes, more than the {limit} that are accepted")
        parts = []
        while part := os.read(descriptor, min(size + 1, _CHUNK)):
            parts.append(part)
        return b"".join(parts)


def begins_with(path: Path, beginning: Buffer) -> bool:
    """Tell whether a regular file of the store is there and begins with some bytes."""
    try:
        with _opened(path) as (descriptor, _):
            return os.read(descriptor, min(len(beginning), _CHUNK)) == bytes(beginning[:_CHUNK])
    except (MissingObject, UnsafeFile):
        return False


def map_file(path: Path) -> memoryview:
    """Map a regular file of the store for reading.

    Returns:
        Its bytes; the mapping lives as long as this view or a slice of it.

    Raises:
        MissingObject: If it is not there.
        UnsafeFile: If it is a link, FIFO, device or folder.
        OSError: If the disk refuses.
    """
    with _opened(path) as (descriptor, size):
        if size == 0:  # an empty file cannot be mapped
            return memoryview(b"")
        import mmap  # a listing of versions never needs it

        # Copy on write: frameworks take only writable memory without a copy, and no write may reach the file.
        return memoryview(mmap.mmap(descriptor, size, access=mmap.ACCESS_COPY))


class OpenFile:
    """A regular file of the store that is kept open: its bytes outlive its name.

    Args:
        path: The file; `read_file` tells what is refused.
    """

    def __init__(self, path: Path) -> None:
        with _opened(path) as (descriptor, _):
            self._descriptor = os.dup(descriptor)
        weakref.finalize(self, os.close, self._descriptor)

    def __iter__(self) -> Iterator[bytes]:
        """Go through its bytes."""
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        while part := os.read(self._descriptor, _CHUNK):
            yield part
