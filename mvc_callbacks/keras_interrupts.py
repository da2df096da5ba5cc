"""Ctrl-C and SIGTERM in a Keras fit: a version of the last finished step, and then the end."""

from __future__ import annotations

import functools
import signal
import weakref
from collections.abc import Mapping
from typing import Any

from mvc_callbacks.interrupts import Deferral
from mvc_callbacks.keras_callbacks import ours
from mvc_callbacks.keras_frames import goes_on

__all__ = ["Interruption"]


class Interruption:
    """What one VersionCheckpoint does when a fit is ended from outside.

    Keras calls no hook then, so the first signal waits for one. Several VersionCheckpoints in a fit all save,
    and the last of them lets the signal act.

    Args:
        callback: The VersionCheckpoint.
        arguments: Of ``fit``; None where Keras' own does not run, whose end nobody could notice.
    """

    def __init__(self, callback: Any, arguments: Mapping[str, Any] | None) -> None:
        self._everyone = ours(arguments) if arguments is not None else []
        self._is_last = bool(self._everyone) and self._everyone[-1] is callback
        # Not by its model: another fit of the same one may follow, without any of us.
        fit = weakref.ref((arguments or {}).get("callbacks", self), lambda _: deferral.over())
        deferral = self._deferral = Deferral((signal.SIGINT, signal.SIGTERM), functools.partial(goes_on, fit))
        deferral.hold(False)

    def begin(self) -> None:
        """Begin to hold signals back, if this is the last VersionCheckpoint of the fit."""
        if self._is_last:
            self._deferral.begin()

    def end(self) -> None:
        """Give the signals back their usual meaning."""
        self._deferral.end()

    def over(self) -> None:
        """Let SIGTERM act that came in a fit which raised before the end of that step."""
        self._deferral.over()

    @property
    def asked(self) -> bool:
        """Whether the fit was asked to end."""
        last = getattr(self._everyone[-1], "_session", None) if self._everyone else None
        return last is not None and last.interruption._deferral.asked

    def step_done(self) -> None:
        """Note that there is something to save: until then, a signal acts at once."""
        self._deferral.hold(True)

    def act(self) -> None:
        """Let the signal act, after everybody has saved and all is on disk.

        Raises:
            KeyboardInterrupt: If it was Ctrl-C. SIGTERM ends the process.
        """
        if not self._is_last or not self._deferral.asked:
            return
        try:
            for each in self._everyone:
                each._close()
        finally:
            self._deferral.end()
        self._deferral.raise_if_asked()
