"""Summaries: what each database of a history comes to, remembered by one host while its file stays.

The best of 100 000 versions is found, and the newest twenty listed, without going through them. A summary
only says where to look: what is told of a version is read from the history.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mvc_callbacks.history import History, Row
from mvc_callbacks.host_cache import cache_folder, open_database, place_of, stamp_of
from mvc_callbacks.progress import progress_bar

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

__all__ = ["Extreme", "Found", "Order", "Summaries", "Summary", "order_of"]

FEW = 4
"""Databases that are read faster than the cache is opened."""
YOUNG = 2 * 10**9
"""Nanoseconds. A younger folder may get one more name without its times changing."""
_LARGEST = 1024**3
_SCHEMA = """
CREATE TABLE IF NOT EXISTS folders (run TEXT NOT NULL PRIMARY KEY, stamp TEXT NOT NULL, names TEXT NOT NULL)
    WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS summaries (
    run TEXT NOT NULL, name TEXT NOT NULL, stamp TEXT NOT NULL, told TEXT NOT NULL, PRIMARY KEY (run, name)
) WITHOUT ROWID;
"""

Order = tuple[int, str, str]


def order_of(row: Row) -> Order:
    """Return what orders versions of different runs: sequence, then time, then id."""
    return row["sequence"], row["created"], row["id"]


class Extreme(NamedTuple):
    """The best version by a metric, in one database; the earliest of equal ones.

    Attributes:
        value: Of the metric.
        order: Of the version, which ends with its id.
        number: Of the version in its run.
    """

    value: float
    order: Order
    number: int


class Summary(NamedTuple):
    """What one database holds. All but the first three count versions that have their weights.

    It is told as JSON, and used as that is read: there may be a thousand of them.

    Attributes:
        versions: How many.
        newest: Order of the newest one.
        names: Metrics of all of them.
        monitors: What was watched, with the order of the newest version that watched it.
        least: Metric to the version with the least of it.
        most: Metric to the version with the most of it.
        metrics: Metrics, with the names and digests of the validation data that they were measured on.
    """

    versions: int
    newest: Order
    names: Sequence[str]
    monitors: Sequence[tuple[str, str, Order]]
    least: Mapping[str, Extreme]
    most: Mapping[str, Extreme]
    metrics: Mapping[str, Sequence[tuple[str, str]]]

    @classmethod
    def of(cls, rows: Iterable[Row]) -> Summary:
        """Summarise rows."""
        count, newest = 0, (0, "", "")
        names: dict[str, None] = {}
        found = _Found()
        for row in rows:
            count += 1
            order = order_of(row)
            newest = max(newest, order)
            names |= dict.fromkeys(row["metrics"])
            if not any(each["what"] == "weights" for each in row["pruned"]):
                found.add(row, order)
        return cls._of(count, newest, names, found)

    @classmethod
    def joined(cls, summaries: Iterable[Summary]) -> Summary:
        """Make one of several: what all of them come to."""
        count, newest = 0, (0, "", "")
        names: dict[str, None] = {}
        found = _Found()
        for each in summaries:
            count += each.versions
            newest = max(newest, each.newest)
            names |= dict.fromkeys(each.names)
            for watched, order in each.watched():
                found.monitors[watched] = max(found.monitors.get(watched, order), order)
            for name in each.metrics:
                found.metrics.setdefault(name, set()).update(
                    (of, digest) for of, digest in each.metrics[name]
                )
                for kept, mode, sign in ((found.least, "min", 1), (found.most, "max", -1)):
                    best = each.best(name, mode)
                    if best is not None and _is_better(best, kept.get(name), sign):
                        kept[name] = best
        return cls._of(count, newest, names, found)

    @classmethod
    def _of(cls, count: int, newest: Order, names: Iterable[str], found: _Found) -> Summary:
        return cls(
            count,
            newest,
            tuple(names),
            [(*watched, order) for watched, order in found.monitors.items()],
            found.least,
            found.most,
            {name: sorted(data) for name, data in found.metrics.items()},
        )

    def watched(self) -> Iterator[tuple[tuple[str, str], Order]]:
        """Go through what was watched, with the order of the newest version that did."""
        for name, mode, (sequence, created, identity) in self.monitors:
            yield (name, mode), (sequence, created, identity)

    def best(self, metric: str, mode: str) -> Extreme | None:
        """Return the best by a metric."""
        found = (self.least if mode == "min" else self.most).get(metric)
        if found is None:
            return None
        value, (sequence, created, identity), number = found
        return Extreme(value, (sequence, created, identity), number)


class _Found:
    """What was found in the rows that have weights."""

    def __init__(self) -> None:
        self.monitors: dict[tuple[str, str], Order] = {}
        self.least: dict[str, Extreme] = {}
        self.most: dict[str, Extreme] = {}
        self.metrics: dict[str, set[tuple[str, str]]] = {}

    def add(self, row: Row, order: Order) -> None:
        if row["monitor"]:
            watched = (row["monitor"][0], row["monitor"][1])
            self.monitors[watched] = max(self.monitors.get(watched, order), order)
        measured = [
            (name, told["digest"])
            for name, told in row["data"].items()
            if name.partition(".")[0] == "val" and told.get("digest")
        ]
        for name, value in row["metrics"].items():
            seen = self.metrics.setdefault(name, set())
            if isinstance(value, (int, float)) and not math.isnan(value):
                seen.update(measured)
                here = Extreme(value, order, row["number"])
                for best, sign in ((self.least, 1), (self.most, -1)):
                    if _is_better(here, best.get(name), sign):
                        best[name] = here


def _is_better(here: Extreme, known: Extreme | None, sign: int) -> bool:
    return known is None or (sign * here.value, here.order) < (sign * known.value, known.order)


Database = tuple[str, str]
"""A run, and the name of one of its databases."""


class Found(NamedTuple):
    """The summary of one database.

    Attributes:
        path: The database.
        summary: What it holds.
        stamp: Changes when its file does; empty where that cannot be told.
        folder: The same of its run's folder.
    """

    path: str
    summary: Summary
    stamp: str = ""
    folder: str = ""


class Summaries:
    """Gives the summaries of a history, and remembers them where it is large.

    Args:
        history: The history.
        identity: Tells the store's uuid.
    """

    def __init__(self, history: History, identity: Callable[[], str]) -> None:
        self._history = history
        self._identity = identity
        self.terminal = False
        """Whether long reading is shown on the terminal too: a command owns it."""

    def of(self, run: str | None = None) -> list[Found]:
        """Return the summaries of all databases of a run, or of all.

        Raises:
            CorruptHistory: If one of them cannot be believed.
        """
        runs = self._history.runs() if run is None else [run]
        if len(runs) <= FEW:
            paths = [path for each in runs for path in self._history.chunks(each)]
            if len(paths) <= FEW:
                return [Found(str(path), Summary.of(self._history.rows_of(path))) for path in paths]
        return _Look(self._history, self._open(), self.terminal).of(runs)

    def _open(self) -> sqlite3.Connection | None:
        import sqlite3

        place = place_of(self._history.root)
        try:
            path = cache_folder(self._identity()) / f"summaries-1-{place}.sqlite"
            return open_database(path, _SCHEMA, largest=_LARGEST)
        except (sqlite3.Error, OSError, RuntimeError) as error:  # RuntimeError: no home folder
            _say("remembered", error)
            return None


class _Place(NamedTuple):
    """A database, and its summary where that is known."""

    run: str
    name: str
    stamp: str
    folder: str
    summary: Summary | None

    @property
    def bytes(self) -> int:
        return int(self.stamp.split()[1]) if self.stamp else 0


class _Look:
    """One look at all databases: what did not change is taken from the cache, the rest is read."""

    def __init__(self, history: History, database: sqlite3.Connection | None, terminal: bool) -> None:
        self._history = history
        self._database = database
        self._terminal = terminal
        self._folders: dict[str, tuple[str, str]] = {}
        self._known: dict[Database, tuple[str, list[Any]]] = {}
        self._new_folders: list[tuple[str, str, str]] = []
        self._new: list[tuple[str, str, str, str]] = []

    def of(self, runs: list[str]) -> list[Found]:
        import sqlite3

        try:
            if self._database is not None:
                self._recall(runs[0] if len(runs) == 1 else None)
        except (sqlite3.Error, ValueError) as error:
            _say("recalled", error)
        found = self._read([each for run in runs for each in self._run(run)])
        try:
            if self._database is not None:
                self._keep()
                self._database.close()
        except sqlite3.Error as error:
            _say("remembered", error)
        return found

    def _recall(self, run: str | None) -> None:
        assert self._database is not None
        where, given = ("", []) if run is None else (" WHERE run=?", [run])
        for name, stamp, names in self._database.execute(
            f"SELECT run, stamp, names FROM folders{where}", given
        ):
            self._folders[name] = (stamp, names)
        rows = self._database.execute(
            f"SELECT run, name, stamp, told FROM summaries{where}", given
        ).fetchall()
        told = json.loads(f"[{','.join(row[3] for row in rows)}]")
        for (of, name, stamp, _), each in zip(rows, told, strict=True):
            self._known[of, name] = (stamp, each)

    def _keep(self) -> None:
        assert self._database is not None
        if not self._new and not self._new_folders:
            return
        self._database.execute("BEGIN IMMEDIATE")
        self._database.executemany("INSERT OR REPLACE INTO folders VALUES (?,?,?)", self._new_folders)
        self._database.executemany("INSERT OR REPLACE INTO summaries VALUES (?,?,?,?)", self._new)
        self._database.execute("COMMIT")

    def _run(self, run: str) -> Iterator[_Place]:
        folder = f"{self._history.root}{os.sep}{run}"
        settled, names = self._names(run, folder)
        for name in names:
            stamp = stamp_of(f"{folder}{os.sep}{name}", young=YOUNG)
            known = self._known.get((run, name))
            if known is None or not stamp or known[0] != stamp:
                yield _Place(run, name, stamp, settled, None)
            else:
                count, newest, *others = known[1]
                yield _Place(run, name, stamp, settled, Summary(count, tuple(newest), *others))

    def _names(self, run: str, folder: str) -> tuple[str, list[str]]:
        """Return the stamp of a run's folder, and the names of its databases."""
        stamp = stamp_of(folder, folder=True, young=YOUNG)
        known = self._folders.get(run)
        if known is not None and known[0] == stamp and stamp:
            return stamp, known[1].split("/")
        names = [path.name for path in self._history.chunks(run)]
        if not stamp or stamp_of(folder, folder=True, young=YOUNG) != stamp:
            return "", names
        if names:
            self._new_folders.append((run, stamp, "/".join(names)))
        return stamp, names

    def _read(self, places: Sequence[_Place]) -> list[Found]:
        """Read those databases that are not known."""
        found = []
        done, whole = 0, sum(each.bytes for each in places if each.summary is None)
        with progress_bar("reading the history", None, terminal=self._terminal) as told:
            for each in places:
                path = f"{self._history.root}{os.sep}{each.run}{os.sep}{each.name}"
                summary, stamp = each.summary, each.stamp
                if summary is None:
                    summary = Summary.of(self._history.rows_of(Path(path)))
                    if stamp_of(path, young=YOUNG) != stamp:
                        stamp = ""
                    if stamp:
                        text = json.dumps(summary, separators=(",", ":"))
                        self._new.append((each.run, each.name, stamp, text))
                    done += each.bytes
                    if told is not None:
                        told(done, whole)
                found.append(Found(path, summary, stamp, each.folder))
        return found


def _say(what: str, error: Exception) -> None:
    import logging  # `mvc log` is over before it would be loaded

    logging.getLogger(__name__).info("what the history comes to cannot be %s: %s", what, error)
