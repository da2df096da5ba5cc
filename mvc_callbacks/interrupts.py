"""Ctrl-C that waits for the end of a step, so that no half-finished one is saved."""

from __future__ import annotations

import logging
import signal
import threading
from types import FrameType
from typing import Any

__all__ = ["Deferral"]

_log = logging.getLogger(__name__)


class Deferral:
    """Holds the first Ctrl-C back until `raise_if_asked`; the second one acts at once.

    A handler that is not Python's own is left alone: whoever put it there knows what Ctrl-C should do.
    """

    def __init__(self) -> None:
        self._asked = False
        self._active = False
        self._held = True

    def begin(self) -> None:
        """Begin to hold Ctrl-C back, in the main thread only: no other one has signals."""
        if threading.current_thread() is not threading.main_thread():
            return
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._handle)
            self._active, self._asked = True, False

    def end(self) -> None:
        """Give Ctrl-C back its usual meaning."""
        if self._active and threading.current_thread() is threading.main_thread():
            self._active = False
            # Bound methods are made anew each time, so they are compared and not identified.
            if signal.getsignal(signal.SIGINT) == self._handle:
                signal.signal(signal.SIGINT, signal.default_int_handler)

    def hold(self, held: bool) -> None:
        """Say whether steps go on, whose end may be waited for; a validation is interrupted at once."""
        self._held = held

    def raise_if_asked(self) -> None:
        """Interrupt now, if that was asked for since.

        Raises:
            KeyboardInterrupt: If it was.
        """
        if self._asked:
            self._asked = False
            raise KeyboardInterrupt

    def _handle(self, number: int, frame: FrameType | None) -> Any:
        if self._asked or not self._held:
            self._asked = False
            signal.default_int_handler(number, frame)
        self._asked = True
        _log.warning("Ctrl-C: stopping at the end of this step; press it again to stop at once")
