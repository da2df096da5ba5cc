"""Tables of versions, runs and aliases as plain text."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from mvc_callbacks.render import PLAIN, Cell, Paint, age, clean, columns, number, short, size, width_of
from mvc_callbacks.versions import AliasMove, Version

__all__ = ["Log", "RunLine", "alias_lines", "best_of", "changed_data", "log_lines", "marks", "run_lines"]

_MOST_METRICS = 5
_LONGEST_HEAD = 24


@dataclass(frozen=True, slots=True)
class Log:
    """What a log shows.

    Attributes:
        versions: In the order of the lines.
        parents: Id to version of first parents, as far as the store has them.
        aliases: Id to the aliases that point to it.
        best: Id to the metrics of which it is the best.
        metrics: Metrics to show; empty for the monitored ones and what else fits.
    """

    versions: Sequence[Version]
    parents: Mapping[str, Version] = field(default_factory=dict)
    aliases: Mapping[str, Sequence[str]] = field(default_factory=dict)
    best: Mapping[str, frozenset[str]] = field(default_factory=dict)
    metrics: Sequence[str] = ()


def best_of(versions: Iterable[Version]) -> dict[str, frozenset[str]]:
    """Tell which versions are the best by the metrics that were monitored.

    As for the ref ``best``, NaN never wins, versions without weights are left out, the earliest wins a tie.

    Args:
        versions: In any order.

    Returns:
        Id to the names of the metrics.
    """
    kept = sorted(
        (each for each in versions if each.has_weights), key=lambda each: (each.sequence, each.created)
    )
    best: dict[str, set[str]] = {}
    for monitor in dict.fromkeys(each.monitor for each in kept if each.monitor):
        sign = 1 if monitor.mode == "min" else -1
        scored = [each for each in kept if _is_number(each.metrics.get(monitor.name))]
        if scored:
            winner = min(scored, key=lambda each: sign * each.metrics[monitor.name])
            best.setdefault(winner.id, set()).add(monitor.name)
    return {identity: frozenset(names) for identity, names in best.items()}


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not math.isnan(value)


def changed_data(version: Version, parent: Version | None) -> tuple[str, ...]:
    """Name the sources of data whose known digest differs from the parent's."""
    if parent is None:
        return ()
    return tuple(
        name
        for name, mine in version.data.items()
        if (theirs := parent.data.get(name)) is not None
        and mine.digest is not None
        and theirs.digest is not None
        and (mine.scheme, mine.digest) != (theirs.scheme, theirs.digest)
    )


def marks(version: Version) -> tuple[str, ...]:
    """Tell what should be noticed of a version: its flags, and what was pruned."""
    flags = list(version.flags)
    if version.weights.nonfinite and "nonfinite" not in flags:
        flags.append("nonfinite")
    gone = {each.what for each in version.pruned}
    if gone:
        flags.append("weights pruned" if "weights" in gone else "state pruned")
    return tuple(clean(flag, 40) for flag in flags)


def log_lines(log: Log, *, now: datetime, paint: Paint = PLAIN, width: int | None = None) -> list[str]:
    """Tell versions, one a line.

    Args:
        log: What is shown.
        now: The time that ages are counted to.
        paint: How it is coloured.
        width: Columns of the terminal; metrics that were not asked for must fit. None for no limit.

    Returns:
        The lines, the first one with the heads.
    """
    left = [*zip(*(_left(each) for each in log.versions), strict=True)]
    right = [*zip(*(_right(each, now) for each in log.versions), strict=True)]
    taken = sum(2 + max(width_of(cell.text) for cell in column) for column in [*left, *right])
    wanted, others = (list(log.metrics), []) if log.metrics else _metrics(log.versions)
    shown: list[tuple[str, list[Cell]]] = []
    for place, name in enumerate([*wanted, *others]):
        cells = [_metric(each, name, log.best) for each in log.versions]
        head = clean(name, _LONGEST_HEAD)
        taken += 2 + max(width_of(head), *(width_of(cell.text) for cell in cells))
        if place >= len(wanted) and (place >= _MOST_METRICS or (width is not None and taken > width)):
            break
        shown.append((head, cells))
    notes = [Cell(_notes(each, log, paint)) for each in log.versions]
    rows = zip(*left, *(cells for _, cells in shown), *right, notes, strict=True)
    heads = [
        "ID",
        "VERSION",
        "EPOCH",
        "STEP",
        *(head for head, _ in shown),
        "WEIGHTS",
        "STORED",
        "AGE",
        "NOTES",
    ]
    return columns(heads, rows, right={*heads[2:-1]}, paint=paint)


def _left(version: Version) -> list[Cell]:
    name = f"{clean(version.run, 64)}/{version.number}"
    return [
        Cell(version.short_id, "id"),
        Cell(name, "name"),
        Cell(_whole(version.epoch)),
        Cell(_whole(version.step)),
    ]


def _right(version: Version, now: datetime) -> list[Cell]:
    weights = version.weights
    return [
        Cell(size(weights.bytes), "" if version.has_weights else "dim"),
        Cell(size(weights.stored_bytes)),
        Cell(age(version.created, now), "dim"),
    ]


def _whole(value: int | None) -> str:
    return "" if value is None else str(value)


def _metric(version: Version, name: str, best: Mapping[str, frozenset[str]]) -> Cell:
    if name not in version.metrics:
        return Cell("")
    value = version.metrics[name]
    if name in best.get(version.id, ()):
        return Cell(f"*{number(value)}", "good")
    return Cell(number(value), "" if _is_number(value) and math.isfinite(value) else "bad")


def _metrics(versions: Sequence[Version]) -> tuple[list[str], list[str]]:
    """Choose the metrics to show: those monitored, then what most versions have."""
    monitored = list(dict.fromkeys(each.monitor.name for each in versions if each.monitor))
    often = Counter(name for each in versions for name in each.metrics)
    # Lightning logs "loss" beside "loss_step" and "loss_epoch": the same thing three times.
    others = [
        name
        for name in sorted(often, key=lambda each: (-often[each], not each.startswith(("val", "test")), each))
        if name not in monitored
        and not any(name.endswith(end) and name[: -len(end)] in often for end in ("_step", "_epoch"))
    ]
    return [name for name in monitored if name in often], others


def _notes(version: Version, log: Log, paint: Paint) -> str:
    notes = []
    names = log.aliases.get(version.id, ())
    if names:
        notes.append(paint(f"[{', '.join(clean(name, 64) for name in names)}]", "bold"))
    elsewhere = [
        _origin(parent.id, log) for parent in version.parents if _is_elsewhere(version, parent.id, log)
    ]
    if elsewhere:
        notes.append(f"<- {', '.join(elsewhere)}")
    parent = version.parent
    changed = changed_data(version, log.parents.get(parent.id)) if parent else ()
    if changed:
        notes.append(paint(f"data changed: {', '.join(clean(name, 40) for name in changed)}", "bad"))
    notes.extend(paint(mark, "dim" if mark.endswith("pruned") else "bad") for mark in marks(version))
    return "  ".join(notes)


def _is_elsewhere(version: Version, parent: str, log: Log) -> bool:
    """Tell whether a parent is not the version that a reader expects: one of the run's own."""
    known = log.parents.get(parent)
    if known is not None:
        return known.run != version.run
    # Not in the store any more. A run's own versions only go together with the run.
    return not any(each.id == parent and each.how == "run" for each in version.parents)


def _origin(parent: str, log: Log) -> str:
    known = log.parents.get(parent)
    return f"{short(parent)} (not here)" if known is None else f"{clean(known.run, 64)}/{known.number}"


@dataclass(frozen=True, slots=True)
class RunLine:
    """One line of the table of runs.

    Attributes:
        label: The run's label.
        framework: What trained it.
        created: When it began, UTC ISO-8601.
        versions: Number of versions.
        stored_bytes: Bytes that its versions added to the store.
        resumes: What it was resumed from, or None.
        best: Its best version's number, or None.
        monitor: The metric that the best is best of.
        value: That metric's value.
    """

    label: str
    framework: str
    created: str
    versions: int
    stored_bytes: int
    resumes: str | None = None
    best: int | None = None
    monitor: str = ""
    value: float | None = None


def run_lines(runs: Sequence[RunLine], *, now: datetime, paint: Paint = PLAIN) -> list[str]:
    """Tell runs, one a line."""
    rows = [
        [
            Cell(clean(each.label, 64), "name"),
            Cell(str(each.versions)),
            Cell("" if each.best is None else f"{clean(each.label, 64)}/{each.best}"),
            Cell("" if each.best is None else f"{clean(each.monitor, _LONGEST_HEAD)} {number(each.value)}"),
            Cell(size(each.stored_bytes)),
            Cell(clean(each.framework, 24), "dim"),
            Cell(age(each.created, now), "dim"),
            Cell("" if each.resumes is None else f"<- {clean(each.resumes, 80)}"),
        ]
        for each in runs
    ]
    heads = ["RUN", "VERSIONS", "BEST", "BY", "STORED", "FRAMEWORK", "BEGAN", "RESUMES"]
    return columns(heads, rows, right={"VERSIONS", "STORED", "BEGAN"}, paint=paint)


def alias_lines(
    aliases: Mapping[str, str],
    *,
    versions: Mapping[str, Version],
    moves: Mapping[str, AliasMove],
    now: datetime,
    paint: Paint = PLAIN,
) -> list[str]:
    """Tell aliases, one a line.

    Args:
        aliases: Name to id.
        versions: Id to version, as far as the store has them.
        moves: Name to the alias's last move.
        now: The time that ages are counted to.
        paint: How it is coloured.
    """
    rows = []
    for name, identity in aliases.items():
        version, move = versions.get(identity), moves.get(name)
        where = (
            Cell("(not here)", "bad")
            if version is None
            else Cell(f"{clean(version.run, 64)}/{version.number}", "name")
        )
        rows.append(
            [
                Cell(clean(name, 64), "bold"),
                Cell(short(identity), "id"),
                where,
                Cell(age(move.time, now) if move else "", "dim"),
                Cell(clean(move.who, 64) if move else "", "dim"),
                Cell(clean(move.how, 16) if move and move.how != "promote" else ""),
                Cell(clean(move.why, 200) if move else ""),
            ]
        )
    return columns(
        ["ALIAS", "ID", "VERSION", "MOVED", "WHO", "HOW", "WHY"], rows, right={"MOVED"}, paint=paint
    )
