"""Rebuilding: history and aliases made again from records and events alone."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mvc_callbacks import files
from mvc_callbacks.aliases import AliasTable
from mvc_callbacks.errors import CorruptHistory, MVCError
from mvc_callbacks.finding import order_of
from mvc_callbacks.history import Row
from mvc_callbacks.layout import Layout, Shared
from mvc_callbacks.progress import Progress
from mvc_callbacks.reading import read_state, read_tree
from mvc_callbacks.refs import check_name
from mvc_callbacks.rows import apply_event, by_version, is_event, row_of

__all__ = ["RebuildReport", "Rebuilder"]

_KEPT = ".damaged"


@dataclass(frozen=True, slots=True)
class RebuildReport:
    """What a rebuild made.

    Attributes:
        versions: Number of versions in the new history.
        runs: Number of runs.
        aliases: Number of aliases; 0 where only one run was made again.
        left_out: Ids of records that were not adopted, with the reason.
        problems: What could not be believed, and what else a person should know; one line each.
    """

    versions: int
    runs: int
    aliases: int
    left_out: tuple[tuple[str, str], ...]
    problems: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Tell the report as plain JSON values."""
        return {
            "versions": self.versions,
            "runs": self.runs,
            "aliases": self.aliases,
            "left_out": [{"id": identity, "why": why} for identity, why in self.left_out],
            "problems": list(self.problems),
        }


class Rebuilder:
    """Makes history and aliases again.

    Args:
        layout: The store.
        progress: Called with the records read and their number.
    """

    def __init__(self, layout: Layout, progress: Progress | None = None) -> None:
        self._layout = layout
        self._progress = progress
        self._problems: list[str] = []

    def rebuild(self, only: str | None = None) -> RebuildReport:
        """Make the history again, of one run or of all, and the aliases with all.

        Files that cannot be read are kept beside the new ones, under another name.

        Args:
            only: A run's label; None for everything.

        Returns:
            What was made.

        Raises:
            OSError: If the disk refuses to give a record, an event or what is left of the history: what it
                holds may be well, and must not be left out for a disk that was away for a moment.
        """
        layout = self._layout
        with layout.lock("rebuilding the history"):
            acknowledged = self._acknowledged()
            events = self._events()
            standing = self._standing(events, acknowledged)
            deleted = _deleted(events) - standing
            rows, left_out = self._rows(acknowledged, events, only, standing)
            by_run: dict[str, list[Row]] = {}
            # Of two rows with one number the last is kept: the one that was acknowledged, else the later one.
            for row in sorted(rows, key=lambda each: (each["id"] in acknowledged, *order_of(each))):
                by_run.setdefault(row["run"], []).append(row)
            left = {run: _distinct(each, left_out) for run, each in by_run.items()}
            for run in layout.history.runs() if only is None else [only]:
                self._keep_old(run, {row["id"] for row in by_run.get(run, ())} | deleted)
            for run, each in left.items():
                layout.history.replace(run, each)
            aliases = 0
            if only is None:
                self._finish_deletions(deleted, left)
                aliases = self.rebuild_aliases(events)
                newest = max(rows, key=order_of, default=None)
                if newest is not None:
                    layout.share(Shared(uuid.uuid4().hex, newest["sequence"], newest["run"]))
            return RebuildReport(
                sum(map(len, left.values())),
                len(left),
                aliases,
                tuple(left_out),
                tuple(dict.fromkeys(self._problems)),
            )

    def _finish_deletions(self, deleted: set[str], left: Mapping[str, list[Row]]) -> None:
        """Take out of the history what is deleted, also where a crash came between the event and its work."""
        history = self._layout.history
        for run in history.runs():
            if run not in left and history.chunks(run):
                history.replace(run, [])
        for identity in sorted(deleted):
            if self._layout.versions.has(identity):
                self._layout.versions.remove(identity)

    def _acknowledged(self) -> dict[str, Row]:
        """Return what can still be read of the history, by id."""
        found: dict[str, Row] = {}
        for run in self._layout.history.runs():
            with suppress(MVCError):
                folder = self._layout.history.folder_of(run)
                # What an earlier rebuild has kept may be the last that tells, if that did not get through.
                kept = [folder / name for name in files.list_names(folder) if name.endswith(_KEPT)]
                for path in [*kept, *self._layout.history.chunks(run)]:
                    with suppress(CorruptHistory):
                        found |= {row["id"]: row for row in self._layout.history.rows_of(path)}
        return found

    def _standing(
        self, events: list[tuple[str, Mapping[str, Any]]], acknowledged: Mapping[str, Row]
    ) -> set[str]:
        """Return the versions whose removal a crash cut short before an alias was pointed to them.

        An alias is pointed only to what was neither pruned nor deleted, so that its version stays: a removal
        that was told and not done must not be finished under it.
        """
        named: dict[str, str] = {}  # id to the newest time when an alias was pointed to it
        removed: dict[str, str] = {}
        for _, event in events:
            if event["event"] == "alias" and event["id"] is not None:
                named[event["id"]] = event["time"]
            elif event["event"] == "delete" or (event["event"] == "prune" and event["what"] == "weights"):
                removed |= dict.fromkeys(event["versions"], event["time"])
        found = set()
        for identity in sorted(named.keys() & removed.keys()):
            row = acknowledged.get(identity)
            if row is None:  # without its row only the clock tells which was first
                stands = named[identity] > removed[identity]
            else:
                stands = all(each["what"] != "weights" for each in row["pruned"])
            with suppress(MVCError):
                row = row_of(identity, self._layout.versions.read(identity))
                if stands and self._unfinished(row) is None:
                    found.add(identity)
        return found

    def _events(self) -> list[tuple[str, Mapping[str, Any]]]:
        found = []
        for identity, event in self._layout.events.all(self._problems, patient=False):
            if is_event(event):
                found.append((identity, event))
            else:
                self._problems.append(
                    f"events/{identity} is of no kind that this release knows; it was left out"
                )
        return sorted(found, key=lambda each: (each[1]["time"], each[0]))

    def _rows(
        self,
        acknowledged: Mapping[str, Row],
        events: list[tuple[str, Mapping[str, Any]]],
        only: str | None,
        standing: set[str],
    ) -> tuple[list[Row], list[tuple[str, str]]]:
        recorded = self._recorded(acknowledged, events, standing)
        # Nothing is trained from a version that was not acknowledged.
        known = acknowledged.keys() | {each["id"] for row in recorded for each in row["parents"]}
        rows, left_out = [], []
        for row in recorded:
            if only is not None and row["run"] != only:
                continue
            why = None if row["id"] in known else self._unfinished(row)
            if why is None:
                rows.append(row)
            else:
                left_out.append((row["id"], why))
                self._layout.history.reserve(row["run"])
        return rows, left_out

    def _recorded(
        self,
        acknowledged: Mapping[str, Row],
        events: list[tuple[str, Mapping[str, Any]]],
        standing: set[str],
    ) -> list[Row]:
        """Return what records and events tell of all versions that were not deleted."""
        deleted = _deleted(events) - standing
        ends = {event["run"]: event["time"] for _, event in events if event["event"] == "delete"}
        later = by_version(events)
        found = []
        whole = sum(1 for _ in self._layout.versions.ids()) if self._progress is not None else 0
        for done, (identity, record) in enumerate(
            self._layout.versions.all(self._problems, patient=False), 1
        ):
            if self._progress is not None:
                self._progress(done, max(done, whole))
            if identity in deleted:
                continue
            try:
                row = row_of(identity, record)
                check_name(row["run"], "run")
                for event_id, event in later.get(identity, ()):
                    undone = event["event"] == "prune" and event["what"] == "weights" and identity in standing
                    if not undone:
                        apply_event(row, event_id, event)  # `is_event` has seen that its fields are a row's
                if identity in acknowledged or not self._is_orphan(row, record, ends):
                    found.append(row)
            except MVCError as error:
                self._problems.append(f"versions/{identity}: {error}")
        return found

    def _is_orphan(self, row: Row, record: Mapping[str, Any], ends: Mapping[str, str]) -> bool:
        """Tell whether a crash left a record in a run that was deleted since, which did not know of it."""
        run = record["run"].get("id")
        return row["created"] < ends.get(row["run"], "") and not (
            isinstance(run, str) and self._layout.runs.has(run)
        )

    def _unfinished(self, row: Row) -> str | None:
        """Tell why a record that no history names is not adopted: a crash may have left it."""
        gone = {each["what"] for each in row["pruned"]}
        if "weights" in gone:
            return None
        try:
            read_state(self._layout, self._layout.manifests.read(row["weights"]["digest"]))
            if row["weights"]["additions"] is not None:
                read_tree(self._layout, row["weights"]["additions"])
            if row["state"] is not None and "state" not in gone:
                read_state(self._layout, self._layout.manifests.read(row["state"]["digest"]))
                read_tree(self._layout, row["state"]["tree"])
        except (MVCError, OSError) as error:
            return str(error)
        return None

    def _keep_old(self, run: str, known: set[str]) -> None:
        """Keep beside the new history what cannot be read of the old one, or what no record stands behind."""
        for path in self._layout.history.chunks(run):
            try:
                lost = [
                    row["id"][:12] for row in self._layout.history.rows_of(path) if row["id"] not in known
                ]
                why = f"{path} names versions without a record that can be believed: {', '.join(lost[:8])}"
            except CorruptHistory as error:
                lost, why = ["?"], str(error)
            if lost:
                self._problems.append(f"{why}; it was kept as {path.name}{_KEPT}")
                self._keep(path)

    def _keep(self, path: Path) -> None:
        files.keep_beside(path, path.with_name(f"{path.name}{_KEPT}"), self._layout.staging)

    def rebuild_aliases(self, events: list[tuple[str, Mapping[str, Any]]] | None = None) -> int:
        """Make the aliases again, and return how many there are. Hold the store's lock.

        Args:
            events: All events, where they were read already.
        """
        path = self._layout.aliases_path
        table = AliasTable(path, self._layout.staging)
        before: dict[str, str] = {}
        try:
            table.log()
            before = table.current()
        except CorruptHistory as error:
            self._problems.append(f"{error}; it was kept as {path.name}{_KEPT}")
            self._keep(path)
        told = self._events() if events is None else events
        table.replace([(identity, event) for identity, event in told if event["event"] == "alias"])
        after = table.current()
        for name, identity in before.items():
            if after.get(name) != identity:
                where = f"points to {after[name][:12]}" if name in after else "is removed"
                self._problems.append(
                    f"the alias {name} {where}, as its last event says, and points no longer to "
                    f"{identity[:12]}; `mvc alias-log {name}` tells who moved it"
                )
        return len(after)


def _deleted(events: Iterable[tuple[str, Mapping[str, Any]]]) -> set[str]:
    return {each for _, event in events if event["event"] == "delete" for each in event["versions"]}


def _distinct(rows: list[Row], left_out: list[tuple[str, str]]) -> list[Row]:
    """Keep one row a number, the last one that comes."""
    kept: dict[int, Row] = {}
    for row in rows:
        if row["number"] in kept:
            left_out.append((kept[row["number"]]["id"], f"another version is {row['run']}/{row['number']}"))
        kept[row["number"]] = row
    return [kept[number] for number in sorted(kept)]
