"""The saver: work that goes on beside training, one save at a time, with its errors kept for later."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable

__all__ = ["Saver", "SideWork", "give_way"]

_log = logging.getLogger(__name__)
PATIENCE = 1.0  # seconds after which somebody who waits is told why
_NICER = 10  # a tenth of the share of a thread of training, where both want a core


class Saver:
    """Runs jobs in order on a thread of its own, or at once.

    A thread lives only while there is work. It is no daemon: an interpreter that exits waits for it, so a
    version that was handed over is on disk before the process ends.

    Args:
        background: Whether jobs run on the thread; otherwise they run inside `submit`.
    """

    def __init__(self, *, background: bool = True) -> None:
        self._background = background
        self._jobs: deque[Callable[[], None]] = deque()
        self._changed = threading.Condition()
        self._running = False
        self._error: BaseException | None = None

    @property
    def idle(self) -> bool:
        """Whether nothing is under way."""
        with self._changed:
            return not self._running

    def submit(self, job: Callable[[], None]) -> None:
        """Run a job after those submitted before it; an error of it is kept for `take_error`."""
        if not self._background:
            self._run(job)
            return
        with self._changed:
            self._jobs.append(job)
            if self._running:
                return
            self._running = True
            thread = threading.Thread(target=self._work, name="mvc-saver")
            try:
                thread.start()
            except RuntimeError:  # the interpreter is going down, and no thread starts any more
                _log.debug("no thread starts any more: saving at once")
                self._running = False
                job = self._jobs.pop()
            else:
                _drain_at_exit(self)
                return
        self._run(job)

    def wait(self, what: str = "the last version to be on disk") -> None:
        """Return when nothing is under way any more.

        Args:
            what: What is waited for, told in the log when it takes more than a second.
        """
        with self._changed:
            if self._changed.wait_for(lambda: not self._running, PATIENCE):
                return
            started = time.monotonic() - PATIENCE
            _log.info("waiting for %s", what)
            self._changed.wait_for(lambda: not self._running)
        _log.info("waited %.1f s for %s", time.monotonic() - started, what)

    def wait_for(self, seconds: float) -> bool:
        """Wait for so long at most; tell whether nothing is under way any more."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._running, seconds)

    def take_error(self) -> BaseException | None:
        """Return the first error since the last call, and forget it."""
        with self._changed:
            error, self._error = self._error, None
        return error

    def _work(self) -> None:
        give_way()
        while True:
            with self._changed:
                if not self._jobs:
                    self._running = False
                    self._changed.notify_all()
                    return
                job = self._jobs.popleft()
            self._run(job)
            del job  # it holds a whole state in memory

    def _run(self, job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as error:
            if not self._background and not isinstance(error, Exception):
                raise  # Ctrl-C in the middle of a save at once is not an error of the save
            with self._changed:
                self._error = self._error or error


class SideWork:
    """One long piece of work that may be cancelled, such as hashing the training data.

    Its thread is a daemon: a process that exits does not wait for it.

    Args:
        work: Called on the thread with a function that tells whether it was cancelled.
        name: The thread's name.
    """

    def __init__(self, work: Callable[[Callable[[], bool]], None], *, name: str) -> None:
        self._work = work
        self._cancelled = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def done(self) -> bool:
        """Whether it has ended, in whichever way."""
        return not self._thread.is_alive()

    def cancel(self) -> None:
        """Ask it to end soon."""
        self._cancelled.set()

    def wait_for(self, seconds: float | None) -> bool:
        """Wait for so long at most, None for as long as it takes; tell whether it has ended."""
        self._thread.join(seconds)
        return self.done

    def wait(self, what: str) -> None:
        """Return when it has ended; say what is waited for when that takes more than a second."""
        self._thread.join(PATIENCE)
        if self._thread.is_alive():
            _log.info("waiting for %s", what)
            self._thread.join()

    def _run(self) -> None:
        give_way()
        try:
            self._work(self._cancelled.is_set)
        except Exception:
            _log.warning("%s ended with an error", self._thread.name, exc_info=True)


def give_way() -> None:
    """Let other threads have the cores before this one and those that it starts.

    Training steps wait for the slowest of their threads: one that has to share a core holds all up.
    """
    if sys.platform == "linux":  # elsewhere it would be the whole process's
        thread = threading.get_native_id()
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + _NICER)


_busy: weakref.WeakSet[Saver] = weakref.WeakSet()
_registered_in: int | None = None


def _drain_at_exit(saver: Saver) -> None:
    # Thread pools stop accepting work before the interpreter joins its threads, and a save uses one; so the
    # savers are drained before the pools. The hook is the one that concurrent.futures itself uses; where it
    # is missing, the thread is joined all the same.
    global _registered_in
    _busy.add(saver)
    if _registered_in != os.getpid():
        _registered_in = os.getpid()
        # Its hook must be there first, because the last one runs first.
        import concurrent.futures.thread  # noqa: F401

        register = getattr(threading, "_register_atexit", None)
        if register is not None:
            try:
                register(_drain)
            except RuntimeError:  # already going down
                _log.debug("too late to drain before the thread pools")


def _drain() -> None:
    if os.getpid() == _registered_in:  # a forked worker has no saver's thread to wait for
        for saver in list(_busy):
            saver.wait()
