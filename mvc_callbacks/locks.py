"""The lock of a store: one writer of its history at a time, with a bounded wait."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from mvc_callbacks.errors import StoreLocked, UnsafeFile

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

__all__ = ["StoreLock"]

_PAUSE = 0.01
_TRIES = 10
_held: set[int] = set()  # descriptors that a forked child must not keep open
_opening = threading.Lock()  # no fork between the opening of a descriptor and its entry in the set


def _forget_in_child() -> None:
    # flock belongs to the open file: a DataLoader worker that outlives its parent would hold the lock.
    for descriptor in _held:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _held.clear()
    _opening.release()


getattr(os, "register_at_fork", lambda **_: None)(  # where nothing forks there is none
    before=_opening.acquire, after_in_parent=_opening.release, after_in_child=_forget_in_child
)


class StoreLock:
    """An advisory lock on one file, between processes and between threads.

    Args:
        path: The lock file; it is made when first needed and never removed.
        timeout: Longest wait in seconds.
    """

    def __init__(self, path: Path, *, timeout: float = 60.0) -> None:
        self.path = path
        self.timeout = timeout
        self._state = threading.local()

    @contextlib.contextmanager
    def __call__(self, purpose: str, *, patience: float = 1) -> Iterator[bool]:
        """Hold the lock; taken again by the same thread it does nothing more.

        Args:
            purpose: Told to whoever waits.
            patience: How many times the usual longest wait is waited.

        Yields:
            Whether the lock truly excludes others; False where the file system has no locks.

        Raises:
            StoreLocked: If it could not be had in time; the message says who holds it.
            UnsafeFile: If the lock file is a link, FIFO, device or folder.
        """
        # A forked child inherits the count of the thread that forked, but not the lock.
        if getattr(self._state, "depth", 0) and self._state.pid == os.getpid():
            self._state.depth += 1
            try:
                yield self._state.works
            finally:
                self._state.depth -= 1
            return
        descriptor, works = self._take(self.timeout * patience)
        try:
            self._tell(descriptor, purpose)
            self._state.depth, self._state.works, self._state.pid = 1, works, os.getpid()
            try:
                yield works
            finally:
                self._state.depth = 0
                if descriptor in _held:  # not in a child that was forked in here and leaves too
                    _unlock(descriptor)
        finally:
            _close(descriptor)

    def _take(self, timeout: float) -> tuple[int, bool]:
        left = _TRIES
        while True:
            descriptor = self._open()
            left -= 1
            try:
                works = self._acquire(descriptor, timeout)
                if not works or not left or self._is_there(descriptor):
                    return descriptor, works
            except BaseException:
                _close(descriptor)
                raise
            _close(descriptor)

    def _is_there(self, descriptor: int) -> bool:
        """Tell whether the lock is still the file of that name: somebody may have emptied ``tmp/``."""
        try:
            return os.path.samestat(os.fstat(descriptor), os.lstat(self.path))
        except FileNotFoundError:
            return False

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_CREAT
        for name in ("O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK"):
            flags |= getattr(os, name, 0)
        with _opening:
            try:
                descriptor = os.open(self.path, flags, 0o666)
            except OSError as error:
                if error.errno in (errno.ELOOP, errno.EMLINK, errno.ENXIO, errno.EISDIR):
                    raise UnsafeFile(f"{self.path} is not a regular file; the lock was not taken") from error
                raise
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.close(descriptor)
                raise UnsafeFile(f"{self.path} is not a regular file; the lock was not taken")
            _held.add(descriptor)
            return descriptor

    def _acquire(self, descriptor: int, timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        while True:
            try:
                _try_lock(descriptor)
                return True
            except OSError as error:
                if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
                    return False
                if error.errno not in (errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK, errno.EDEADLK):
                    raise
            if time.monotonic() >= deadline:
                raise StoreLocked(
                    f"the lock {self.path} was not free within {timeout:g} s; "
                    f"{self._holder(descriptor)}. Wait for it, or end that process if it hangs"
                )
            time.sleep(_PAUSE)

    def _holder(self, descriptor: int) -> str:
        try:
            told = json.loads(os.pread(descriptor, 4096, 1) if hasattr(os, "pread") else b"")
            return (
                f"process {told['pid']} on {told['host']} holds it since {told['since']} ({told['purpose']})"
            )
        except (OSError, ValueError, KeyError, TypeError):
            return "who holds it is not known"

    def _tell(self, descriptor: int, purpose: str) -> None:
        import socket  # who only reads takes no lock

        told = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "purpose": purpose,
            "since": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "program": Path(sys.argv[0] if sys.argv else "").name,
        }
        with contextlib.suppress(OSError):  # only a courtesy to those who wait
            os.ftruncate(descriptor, 0)
            os.lseek(descriptor, 0, os.SEEK_SET)
            os.write(
                descriptor, b" " + json.dumps(told).encode("ascii")
            )  # byte 0 is the one locked on Windows


def _close(descriptor: int) -> None:
    if descriptor in _held:  # a child that was forked meanwhile has it no more
        _held.discard(descriptor)
        os.close(descriptor)


def _try_lock(descriptor: int) -> None:
    if sys.platform == "win32":
        os.lseek(descriptor, 0, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _unlock(descriptor: int) -> None:
    with contextlib.suppress(OSError):  # closing the descriptor lets go in any case
        if sys.platform == "win32":
            os.lseek(descriptor, 0, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_UN)
