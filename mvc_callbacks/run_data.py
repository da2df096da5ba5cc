"""The data of one run: its fingerprints, computed beside training and added to versions made before."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from typing import TYPE_CHECKING

from mvc_callbacks.progress import progress_bar
from mvc_callbacks.saver import SideWork
from mvc_callbacks.store import VersionStore
from mvc_callbacks.versions import Fingerprint, Version

if TYPE_CHECKING:
    from mvc_callbacks.fingerprint import Computed, Plan

__all__ = ["RunData"]

_log = logging.getLogger(__name__)
_OFTEN = 0.1  # seconds


class RunData:
    """The fingerprints of one fit.

    Args:
        store: The store that versions and listings are in.
    """

    def __init__(self, store: VersionStore) -> None:
        self._store = store
        self._plans: Mapping[str, Plan] = {}
        self._work: SideWork | None = None
        self._lock = threading.Lock()
        self._computed: dict[str, Computed] = {}
        self._known: dict[str, Fingerprint] = {}
        self._waiting: list[tuple[str, tuple[str, ...]]] = []
        self._done = (0, 0)  # files and bytes

    def begin(self, plans: Mapping[str, Plan]) -> None:
        """Start to compute, on a thread beside training."""
        self._plans = dict(plans)
        if self._plans:
            self._work = SideWork(self._compute, name="mvc-fingerprint")

    def _compute(self, cancelled: Callable[[], bool]) -> None:
        for name, plan in self._plans.items():
            if cancelled():
                return
            try:
                before = self._done
                computed = plan.compute(
                    progress=lambda files, size, before=before: self._note_done(  # type: ignore[misc]
                        before[0] + files, before[1] + size
                    ),
                    cancelled=cancelled,
                )
            except Exception as error:
                _log.warning("the fingerprint of the data %r failed", name, exc_info=True)
                failed = Fingerprint(
                    None, "none", how="failed", problems=(f"{type(error).__name__}: {error}"[:200],)
                )
                with self._lock:
                    self._known[name] = failed
            else:
                if cancelled():
                    return
                with self._lock:
                    self._computed[name] = computed
            with self._lock:
                waiting = list(self._waiting)
            # A version that was made meanwhile is completed here; one that is being made, by `note`.
            if waiting:
                self._complete()

    def known(self) -> dict[str, Fingerprint]:
        """Return what is known by now; the rest is ``pending``."""
        self._keep_listings()
        with self._lock:
            return {name: self._known.get(name, Fingerprint(None, "pending")) for name in self._plans}

    def found(self, seconds: float | None) -> dict[str, tuple[Fingerprint, Iterable[bytes] | None]]:
        """Return what is known after a while, with the listings, of which nothing is written here.

        Args:
            seconds: How long to wait; None until everything is known.
        """
        self._wait(seconds)
        pending = Fingerprint(None, "pending")
        with self._lock:
            told: dict[str, tuple[Fingerprint, Iterable[bytes] | None]] = {
                name: (self._known.get(name, pending), None) for name in self._plans
            }
            for name, each in self._computed.items():
                told[name] = (each.fingerprint, each.listing)
        return told

    def note(self, version: Version) -> None:
        """Remember a version whose fingerprints are to be completed."""
        pending = tuple(name for name, each in version.data.items() if each.coverage == "pending")
        if pending:
            with self._lock:
                self._waiting.append((version.id, pending))
            self._complete()

    def finish(self, *, wait: bool) -> None:
        """Complete what can be completed.

        Args:
            wait: Whether to wait for what is not computed yet; otherwise that stays ``pending``.
        """
        if self._work is None:
            return
        if not wait:
            self._work.cancel()
        self._wait(None)
        with self._lock:
            waiting = bool(self._waiting)
        if waiting:
            self._complete()

    def _note_done(self, files: int, size: int) -> None:
        self._done = files, size

    def _wait(self, seconds: float | None) -> None:
        """Wait for so long at most, None for as long as it takes; show how far it is after a second."""
        if self._work is None:
            return
        if seconds is not None:
            self._work.wait_for(seconds)
            return
        with progress_bar("hashing the training data", None, terminal=True, counted=True) as told:
            if told is None:
                self._work.wait("the fingerprint of the training data")
                return
            while not self._work.wait_for(_OFTEN):
                told(*self._done)

    def _keep_listings(self) -> None:
        with self._lock:
            computed, self._computed = self._computed, {}
        for name, each in computed.items():
            if each.listing is not None:
                with closing(each.listing) as listing:
                    self._store.put_listing(listing)
            with self._lock:
                self._known[name] = each.fingerprint

    def _complete(self) -> None:
        self._keep_listings()
        with self._lock:
            waiting, self._waiting = self._waiting, []
            known = dict(self._known)
        left = []
        for version_id, names in waiting:
            for name in names:
                if name in known:
                    self._store.complete_fingerprint(version_id, name, known[name])
            missing = tuple(name for name in names if name not in known)
            if missing:
                left.append((version_id, missing))
        with self._lock:
            self._waiting += left
