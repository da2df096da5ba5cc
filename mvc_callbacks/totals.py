"""Totals: what all databases of a history come to together, in one file of the host's cache.

A thousand summaries take longer to read than a listing of twenty versions may. While no folder and no
file of the history changed, their sum is read instead.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mvc_callbacks import summaries
from mvc_callbacks.history import History
from mvc_callbacks.host_cache import cache_folder, keep_text, place_of, recall_text, stamp_of
from mvc_callbacks.summaries import FEW, Found, Order, Summaries, Summary

__all__ = ["Database", "Total", "Totals"]

_LARGEST = 256 * 1024**2


class Database(NamedTuple):
    """One database.

    Attributes:
        path: The database.
        newest: Order of the newest version in it.
    """

    path: str
    newest: Order


class Total(NamedTuple):
    """What the databases of a run, or of all runs, come to.

    Attributes:
        summary: All of them together.
        databases: Each of them, with the newest versions first.
    """

    summary: Summary
    databases: Sequence[Database]


class Totals:
    """Gives the totals of a history, and remembers the one of all runs where there are many.

    Args:
        history: The history.
        each: Its summaries.
        identity: Tells the store's uuid.
    """

    def __init__(self, history: History, each: Summaries, identity: Callable[[], str]) -> None:
        self._history = history
        self._summaries = each
        self._identity = identity

    def of(self, run: str | None = None) -> Total:
        """Return what a run, or all, come to.

        Raises:
            CorruptHistory: If a database cannot be believed.
        """
        if run is not None:
            # Of two databases of one run, the later one has the larger numbers.
            found = self._summaries.of(run)[::-1]
            return _total(found)
        runs = self._history.runs()
        path = self._path()
        known = self._recall(path, runs) if path is not None else None
        if known is not None:
            return known
        found = sorted(self._summaries.of(), key=lambda each: each.summary.newest, reverse=True)
        total = _total(found)
        if path is not None and len(found) > FEW:
            self._keep(path, runs, found, total)
        return total

    def _path(self) -> Path | None:
        try:
            return cache_folder(self._identity()) / f"totals-1-{place_of(self._history.root)}.json"
        except (OSError, RuntimeError):  # RuntimeError: no home folder
            return None

    def _recall(self, path: Path, runs: Sequence[str]) -> Total | None:
        """Return what was remembered, if each folder and each file is still the one that it was made of."""
        try:
            told = json.loads(recall_text(path, _LARGEST))
            if list(told["runs"]) != runs:
                return None
            root = f"{self._history.root}{os.sep}"
            if not all(stamp_of(root + run, folder=True) == stamp for run, stamp in told["runs"].items()):
                return None
            if not all(stamp_of(root + name) == stamp for name, stamp, _ in told["databases"]):
                return None
            databases = [Database(root + name, tuple(newest)) for name, _, newest in told["databases"]]
            count, newest, *others = told["summary"]
            return Total(Summary(count, tuple(newest), *others), databases)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):  # it may be lost, and be anything
            return None

    def _keep(self, path: Path, runs: Sequence[str], found: Sequence[Found], total: Total) -> None:
        stamps = {Path(each.path).parent.name: each.folder for each in found}
        stamps = {run: stamps[run] if run in stamps else self._empty(run) for run in runs}
        if not all(stamps.values()) or not all(each.stamp for each in found):
            return  # one may change once more without its times changing
        root = len(str(self._history.root)) + 1
        told: dict[str, Any] = {
            "runs": stamps,
            "databases": [(each.path[root:], each.stamp, each.summary.newest) for each in found],
            "summary": total.summary,
        }
        keep_text(path, json.dumps(told, separators=(",", ":")))

    def _empty(self, run: str) -> str:
        """Return the stamp of the folder of a run without a version: a fit may have saved nothing."""
        folder = f"{self._history.root}{os.sep}{run}"
        stamp = stamp_of(folder, folder=True, young=summaries.YOUNG)
        return stamp if not self._history.chunks(run) and stamp_of(folder, folder=True) == stamp else ""


def _total(found: Sequence[Found]) -> Total:
    databases = [Database(each.path, each.summary.newest) for each in found]
    return Total(Summary.joined(each.summary for each in found), databases)
