"""Ctrl-C and SIGTERM that wait for the end of a step, so that no half-finished one is saved."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

__all__ = ["Deferral"]

_log = logging.getLogger(__name__)
_USUAL: dict[int, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
_WORDS = {
    signal.SIGINT: "Ctrl-C: stopping at the end of this step; press it again to stop at once",
    signal.SIGTERM: "SIGTERM: stopping at the end of this step",
}


class Deferral:
    """Holds the first Ctrl-C back until `raise_if_asked`; the second one acts at once.

    SIGTERM is not forgotten over Ctrl-C, after which a process may go on: it acts in its place, and where
    Ctrl-C would act at once, `SystemExit` is raised.

    A handler that is not Python's own is left alone: whoever put it there knows what the signal should do.

    Args:
        signals: SIGINT, or SIGTERM too, which asks for no more than once.
        goes_on: Tells, of the innermost frame, whether training goes on there; None where it is over, such as
            after an exception that nobody told of. If not, a signal that comes has its usual meaning.
    """

    def __init__(
        self,
        signals: tuple[signal.Signals, ...] = (signal.SIGINT,),
        goes_on: Callable[[FrameType | None], bool | None] = lambda frame: True,
    ) -> None:
        self._signals = signals
        self._goes_on = goes_on
        self._asked: int | None = None
        self._mine: list[signal.Signals] = []
        self._held = True

    @property
    def asked(self) -> bool:
        """Whether a signal came that waits."""
        return self._asked is not None

    def begin(self) -> None:
        """Begin to hold the signals back, in the main thread only: no other one has any."""
        if threading.current_thread() is not threading.main_thread():
            return
        self._asked = None
        for each in self._signals:
            self._forget_one_that_is_over(each)
            if signal.getsignal(each) is _USUAL[each]:
                signal.signal(each, self._handle)
                self._mine.append(each)

    @staticmethod
    def _forget_one_that_is_over(number: signal.Signals) -> None:
        owner = getattr(signal.getsignal(number), "__self__", None)
        if isinstance(owner, Deferral) and owner._goes_on(sys._getframe()) is None:
            owner.over()

    def over(self) -> None:
        """End where no step's end will come any more; SIGTERM that waited for one acts now."""
        if threading.current_thread() is threading.main_thread():
            self.end()
            if self._asked == signal.SIGTERM:
                self.raise_if_asked()

    def end(self) -> None:
        """Give the signals back their usual meaning."""
        if threading.current_thread() is not threading.main_thread():
            return
        mine, self._mine = self._mine, []
        for each in mine:
            # Bound methods are made anew each time, so they are compared and not identified.
            if signal.getsignal(each) == self._handle:
                signal.signal(each, _USUAL[each])

    def hold(self, held: bool) -> None:
        """Say whether steps go on, whose end may be waited for; else, a signal acts at once."""
        self._held = held

    def raise_if_asked(self) -> None:
        """Let the signal act now, if one came since.

        Raises:
            KeyboardInterrupt: If it was Ctrl-C. SIGTERM ends the process.
        """
        asked, self._asked = self._asked, None
        if asked is not None:
            self._act(asked, None)

    def _handle(self, number: int, frame: FrameType | None) -> Any:
        goes_on = self._goes_on(frame)
        if not goes_on:
            self.end()
        asked = self._asked
        if not goes_on or not self._held or (asked is not None and number == signal.SIGINT):
            self._asked = None
            if number == signal.SIGINT and asked == signal.SIGTERM:
                self.end()
                sys.exit(128 + signal.SIGTERM)
            self._act(number, frame)
        elif asked != number:
            self._asked = number
            _log.warning(_WORDS[signal.Signals(number)])

    def _act(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            signal.default_int_handler(number, frame)
        self.end()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        sys.exit(128 + number)  # only the first process of a container is still here
