"""Overviews: the newest versions of a store and what all come to, without reading the others; its runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mvc_callbacks.finding import Finder, order_of
from mvc_callbacks.history import Row
from mvc_callbacks.layout import Layout
from mvc_callbacks.summaries import Order
from mvc_callbacks.versions import RunInfo, Version

__all__ = ["Overview", "newest_runs", "overview", "run_infos"]


class Overview(NamedTuple):
    """What the versions of a run, or of a store, come to.

    Attributes:
        newest: The newest ones, newest first.
        versions: How many there are.
        metrics: Names of their metrics.
        best: Id to the metrics that were watched, of the best by them, as for the ref ``best``.
    """

    newest: Sequence[Version]
    versions: int
    metrics: tuple[str, ...]
    best: Mapping[str, frozenset[str]]


def overview(
    layout: Layout, finder: Finder, run: str | None, newest: int, make: Callable[[Row], Version]
) -> Overview:
    """Tell the newest versions, and what all come to.

    Args:
        layout: The store.
        finder: Finds its rows.
        run: One run of it; None for all.
        newest: How many.
        make: Makes a version of a row.
    """
    total = layout.totals.of(run)
    best: dict[str, set[str]] = {}
    for (name, mode), _ in total.summary.watched():
        winner = total.summary.best(name, mode)
        if winner is not None:
            best.setdefault(winner.order[2], set()).add(name)
    return Overview(
        newest=[make(row) for row in finder.newest(newest, run, total)],
        versions=total.summary.versions,
        metrics=tuple(total.summary.names),
        best={identity: frozenset(names) for identity, names in best.items()},
    )


def newest_runs(layout: Layout, count: int) -> dict[str, str]:
    """Return the runs with the newest versions, newest first: label to the id of its newest one."""
    newest: dict[str, Order] = {}
    for path, order in layout.totals.of().databases:
        run = Path(path).parent.name
        newest[run] = max(newest.get(run, order), order)
    ordered = sorted(newest, key=newest.__getitem__, reverse=True)[:count]
    return {run: newest[run][2] for run in ordered if newest[run][2]}


def run_infos(layout: Layout, record_of: Callable[[Row], Mapping[str, Any]]) -> list[RunInfo]:
    """Tell the runs that have a version, oldest first.

    Args:
        layout: The store.
        record_of: Reads the record of a row's run.
    """
    found = []
    for run in layout.history.runs():
        rows = list(layout.history.rows(run))
        if not rows:
            continue
        told = record_of(rows[0])
        info = RunInfo(
            label=run,
            base=str(told.get("base", run)),
            created=str(told.get("created", rows[0]["created"])),
            versions=len(rows),
            framework=rows[-1]["framework"],
            resumes=told.get("resumes"),
            stored_bytes=sum(row["weights"]["stored_bytes"] for row in rows),
            first=rows[0]["id"],
            last=rows[-1]["id"],
        )
        found.append((order_of(rows[0]), info))
    return [info for _, info in sorted(found, key=lambda each: each[0])]
