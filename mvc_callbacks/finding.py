"""Finding the version that a ref names."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path

from mvc_callbacks.aliases import AliasTable
from mvc_callbacks.errors import AmbiguousRef, CorruptHistory, MissingObject, MVCWarning, UnknownRef
from mvc_callbacks.history import Row
from mvc_callbacks.layout import Layout
from mvc_callbacks.refs import Ref, parse_ref
from mvc_callbacks.rows import differs, row_of
from mvc_callbacks.summaries import Summary, order_of
from mvc_callbacks.totals import Total

__all__ = ["Finder", "order_of"]

_SHOWN = 8
_TRIES = 8  # as often somebody may prune the best while it is looked for


class Finder:
    """Looks refs up in a history.

    Args:
        layout: The store.
        aliases: Its aliases.
    """

    def __init__(self, layout: Layout, aliases: AliasTable) -> None:
        self._layout = layout
        self._aliases = aliases

    def find(self, text: str) -> Row:
        """Return the row that a ref names.

        Raises:
            BadName: If it is no ref.
            UnknownRef: If it names nothing; the message lists what there is.
            AmbiguousRef: If it names several.
            CorruptHistory: If its row is not what its record says.
            CorruptRecord: If its record cannot be believed.
            MissingObject: If its record is gone.
        """
        ref = parse_ref(text)
        row = self._checked(self._base(ref, text))
        for step in range(ref.up):
            if not row["parents"]:
                raise UnknownRef(
                    f"{text!r}: {row['run']}/{row['number']} has no parent; it goes up {step} at most"
                )
            row = self._checked(self.by_id(row["parents"][0]["id"], text))
        return row

    def _checked(self, row: Row) -> Row:
        """Believe a row only if it says what the record says, which its id vouches for."""
        identity = row["id"]
        if differs(row, row_of(identity, self._layout.versions.read(identity))):
            raise CorruptHistory(
                f"the history's row of {row['run']}/{row['number']} in {self._layout.path} was changed: it "
                "is not "
                f"what the record {identity[:12]} says; run `mvc rebuild` to make the history again from the "
                "records"
            )
        return row

    def _base(self, ref: Ref, text: str) -> Row:
        if ref.kind == "id":
            return self.by_prefix(ref.name or "", text)
        if ref.kind == "latest":
            return self._latest()
        if ref.kind == "best":
            return self._best(ref, text)
        name = ref.name or ""
        if ref.number is not None:
            run = self._run(name, text)
            row = self._layout.history.row(run, ref.number) if ref.number else None
            if row is None:
                last = self._layout.history.last(run)
                raise UnknownRef(f"the run {run} has no version {ref.number}; {_up_to(last)}")
            return row
        for alias, identity in self._aliases.current().items():
            if alias.lower() == name.lower():
                return self.by_id(identity, text)
        last = self._layout.history.last(self._run(name, text))
        if last is None:
            raise UnknownRef(f"the run {name} has no version yet")
        return last

    def _run(self, name: str, text: str) -> str:
        runs = self._layout.history.runs()
        for run in runs:
            if run.lower() == name.lower():
                return run
        names = [*sorted(self._aliases.current()), *reversed(runs)]
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        known = f"there are: {', '.join(names[:_SHOWN])}{more}" if names else "the store has no version yet"
        if not self._aliases.exists():
            known += "; aliases.json is missing: run `mvc rebuild`"
        raise UnknownRef(f"{text!r} names no version in {self._layout.path}; {known}")

    def by_prefix(self, prefix: str, text: str) -> Row:
        """Return the row of the only acknowledged version whose id begins so."""
        rows = [
            row
            for each in self._layout.versions.with_prefix(prefix)
            if (row := self._acknowledged(each)) is not None
        ]
        if not rows:
            raise UnknownRef(f"{text!r} is the id of no version in {self._layout.path}; `mvc log` lists them")
        if len(rows) > 1:
            raise AmbiguousRef(f"{text!r} may mean {_list(rows)}: give more digits")
        return rows[0]

    def by_id(self, identity: str, text: str | None = None) -> Row:
        """Return the row of a full id."""
        row = self._acknowledged(identity)
        if row is None:
            why = f"{text!r} leads to" if text else "there is no"
            raise UnknownRef(
                f"{why} version {identity[:12]} in {self._layout.path}: it was deleted, or is damaged; "
                "run `mvc verify`"
            )
        return row

    def _acknowledged(self, identity: str) -> Row | None:
        """Return the row of a record, if the history has it."""
        try:
            record = self._layout.versions.read(identity)
            row = self._layout.history.row(record["run"]["label"], record["number"])
        except (MissingObject, KeyError, TypeError, ValueError):  # also records that cannot be believed
            row = next((row for row in self.all_rows() if row["id"] == identity), None)
        return row if row is not None and row["id"] == identity else None

    def all_rows(self, run: str | None = None) -> Iterable[Row]:
        """Go through the rows of a run, or of all, in no order."""
        for each in [run] if run is not None else self._layout.history.runs():
            yield from self._layout.history.rows(each)

    def _latest(self) -> Row:
        shared = self._layout.shared()
        if shared.run is not None and shared.run in self._layout.history.runs():
            row = self._layout.history.last(shared.run)
            if row is not None and row["sequence"] == shared.sequence:
                return row
        rows = [
            row for run in self._layout.history.runs() if (row := self._layout.history.last(run)) is not None
        ]
        if not rows:
            raise UnknownRef(f"the store {self._layout.path} has no version yet")
        return max(rows, key=order_of)

    def newest(self, count: int, run: str | None = None, total: Total | None = None) -> list[Row]:
        """Return the newest rows of a run or of all, newest first; only their databases are read.

        Args:
            count: How many.
            run: The run.
            total: What they come to, where that is known already.
        """
        found: list[Row] = []
        order = order_of if run is None else _number_of
        total = self._layout.totals.of(run) if total is None else total
        for path, newest in total.databases:
            full = len(found) >= count
            if full and (count == 0 or run is not None or order_of(found[-1]) > newest):
                break
            rows = self._layout.history.rows_of(Path(path), newest=count)
            found = sorted([*found, *rows], key=order, reverse=True)[:count]
        return found

    def by_weights(self, digest: str) -> Row | None:
        """Return the newest row with a weights digest, or None; only databases that name it are parsed."""
        found: Row | None = None
        for path, newest in self._layout.totals.of().databases:
            if found is not None and order_of(found) > newest:
                break
            if self._layout.history.names(Path(path), digest):
                rows = self._layout.history.rows_of(Path(path))
                same = [row for row in rows if row["weights"]["digest"] == digest]
                found = max(same if found is None else [*same, found], key=order_of, default=None)
        return found

    def _best(self, ref: Ref, text: str) -> Row:
        run = self._run(ref.name, text) if ref.name is not None else None
        for _ in range(_TRIES):
            total = self._layout.totals.of(run).summary
            metric, mode = self._criterion(ref, total, text)
            winner = total.best(metric, mode)
            if winner is None:
                raise UnknownRef(
                    f"{text!r}: no version with weights has the metric {metric!r}{_metrics(total)}"
                )
            _warn_of_other_data(total, metric, text)
            row = self.by_id(winner.order[2], text)
            # Somebody may have pruned it since.
            if not any(each["what"] == "weights" for each in row["pruned"]):
                return row
        raise CorruptHistory(
            f"the version {row['id'][:12]} in {self._layout.path} stands twice in the history, once with its "
            "weights and once without; run `mvc rebuild`"
        )

    def _criterion(self, ref: Ref, total: Summary, text: str) -> tuple[str, str]:
        watched = dict(total.watched())
        if ref.metric is not None:
            if ref.metric not in total.metrics:
                raise UnknownRef(
                    f"{text!r}: no version with weights has the metric {ref.metric!r}{_metrics(total)}"
                )
            modes = {mode for name, mode in watched if name == ref.metric}
            if ref.mode is not None or len(modes) == 1:
                return ref.metric, ref.mode or next(iter(modes))
            raise AmbiguousRef(
                f"{text!r} does not say whether less is better: {ref.metric!r} with ':min' or ':max'"
            )
        if not watched:
            raise UnknownRef(
                f"{text!r}: no version with weights watched a metric; say which: 'best:METRIC:min'"
                f"{_metrics(total)}"
            )
        if len(watched) > 1:
            choices = ", ".join(
                f"'best:{name}:{mode}'"
                for name, mode in sorted(watched, key=lambda each: watched[each], reverse=True)
            )
            raise AmbiguousRef(
                f"{text!r}: versions watched different metrics; say which, the newest first: {choices}"
            )
        name, mode = next(iter(watched))
        return name, mode


def _number_of(row: Row) -> int:
    number: int = row["number"]
    return number


def _warn_of_other_data(total: Summary, metric: str, text: str) -> None:
    """Warn where versions are compared that were not measured on the same data."""
    seen: dict[str, set[str]] = {}
    for name, digest in total.metrics.get(metric, ()):
        seen.setdefault(name, set()).add(digest)
    if any(len(digests) > 1 for digests in seen.values()):
        warnings.warn(
            f"{text!r} compares versions that were validated on different data: their metrics may not be "
            "comparable; `mvc log` and `mvc show` tell the fingerprints, and 'RUN/best' compares within one "
            "run",
            MVCWarning,
            stacklevel=6,
        )


def _metrics(total: Summary) -> str:
    names = sorted(total.metrics)
    return f"; known metrics: {', '.join(names[:_SHOWN])}" if names else ""


def _list(rows: list[Row]) -> str:
    return ", ".join(f"{row['id'][:12]} ({row['run']}/{row['number']})" for row in rows[:_SHOWN])


def _up_to(last: Row | None) -> str:
    return "it has none yet" if last is None else f"its newest is {last['run']}/{last['number']}"
