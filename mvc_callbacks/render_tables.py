"""The table of versions, with its graph, as plain text."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from mvc_callbacks.errors import MVCError
from mvc_callbacks.graph import branches, strands
from mvc_callbacks.render import (
    PLAIN,
    Cell,
    Paint,
    age,
    clean,
    clip,
    clip_painted,
    columns,
    number,
    short,
    size,
    width_of,
)
from mvc_callbacks.versions import Parent, Version

__all__ = [
    "Log",
    "best_of",
    "changed_code",
    "changed_data",
    "log_lines",
    "marks",
    "metric_cell",
    "metrics_of",
    "notes_of",
    "whole",
]

_DISPENSABLE = ("WEIGHTS", "EPOCH", "STORED", "AGE", "STEP")  # on a narrow terminal, in this order
_LEAST_NOTES = 16
_WIDEST_GRAPH = 24
_MOST_METRICS = 5
_LONGEST_HEAD = 24


class Log(NamedTuple):
    """What a log shows.

    Attributes:
        versions: In the order of the lines.
        parents: Id to version of first parents, as far as the store has them.
        aliases: Id to the aliases that point to it.
        best: Id to the metrics of which it is the best.
        metrics: Metrics to show; empty for the monitored ones and what else fits.
        graph: Whether the lineage is drawn; None where there is more to it than straight lines.
        remarks: Id to what else should be said of it.
    """

    versions: Sequence[Version]
    parents: Mapping[str, Version] = {}
    aliases: Mapping[str, Sequence[str]] = {}
    best: Mapping[str, frozenset[str]] = {}
    metrics: Sequence[str] = ()
    graph: bool | None = None
    remarks: Mapping[str, str] = {}


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


def changed_code(version: Version, parent: Version | None) -> bool:
    """Tell whether a version of another run than its parent's was made by other code, as far as known."""
    if parent is None or parent.run == version.run:
        return False
    try:
        mine, theirs = version.code, parent.code
    except (MVCError, OSError):  # `mvc verify` tells it
        return False
    known = [name for name in ("commit", "patch", "source") if mine.get(name) or theirs.get(name)]
    return bool(mine and theirs) and any(mine.get(name) != theirs.get(name) for name in known)


def marks(version: Version) -> tuple[str, ...]:
    """Tell what should be noticed of a version: its flags, and what was pruned."""
    flags = list(version.flags)
    if version.weights.nonfinite and "nonfinite" not in flags:
        flags.append("nonfinite")
    gone = {each.what for each in version.pruned}
    if gone:
        flags.append("weights pruned" if "weights" in gone else "state pruned")
    return tuple(clean(flag, 40) for flag in flags)


_Column = tuple[str, list[Cell]]


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
    drawn = _graph(log)
    notes = [notes_of(each, log) for each in log.versions]
    room = None if width is None else width - (2 + max(map(width_of, drawn.own), default=0) if drawn else 0)
    table = _fitted(log, now, room, min(_LEAST_NOTES, max(map(_length, notes), default=0)))
    if room is not None:
        room = max(room - _taken(table), 0)
    table.append(("NOTES", [Cell(_laid(each, paint, room)) for each in notes]))
    heads = [head for head, _ in table]
    rows = zip(*(cells for _, cells in table), strict=True)
    lines = columns(heads, rows, right={*heads[2:-1]}, paint=paint)
    lines = lines if drawn is None else _beside(lines, drawn, paint)
    return lines if width is None else [clip_painted(each, width) for each in lines]


def _fitted(log: Log, now: datetime, room: int | None, for_notes: int) -> list[_Column]:
    """Choose the columns that fit beside the notes: metrics that were not asked for go first."""
    wanted, others = (list(log.metrics), []) if log.metrics else metrics_of(log.versions)
    others = others[: max(_MOST_METRICS - len(wanted), 0)]
    dropped: list[str] = []
    while True:
        metrics = [
            (clean(name, _LONGEST_HEAD), [metric_cell(each, name, log.best) for each in log.versions])
            for name in [*wanted, *others]
        ]
        left, right = _left(log.versions), _right(log.versions, now)
        table = [
            *(column for column in left if column[0] not in dropped),
            *metrics,
            *(column for column in right if column[0] not in dropped),
        ]
        kept = [each for each in _DISPENSABLE if each not in dropped]
        if room is None or _taken(table) + for_notes <= room or not (others or kept):
            return table
        others, dropped = (others[:-1], dropped) if others else ([], [*dropped, kept[0]])


def _taken(table: Sequence[_Column]) -> int:
    return sum(2 + _widest(head, cells) for head, cells in table if any(cell.text for cell in cells))


def _length(notes: Sequence[Cell]) -> int:
    return sum(2 + width_of(each.text) for each in notes)


def _widest(head: str, cells: Sequence[Cell]) -> int:
    return max(width_of(head), *(width_of(cell.text) for cell in cells))


class _Drawn(NamedTuple):
    own: Sequence[str]
    before: Sequence[Sequence[str]]


def _graph(log: Log) -> _Drawn | None:
    ids = [each.id for each in log.versions]
    parents = _shown_parents(log)
    if log.graph is False or (log.graph is None and not branches(ids, parents)):
        return None
    found = strands(ids, parents)
    return _Drawn(
        [clip(each.own, _WIDEST_GRAPH) for each in found],
        [[clip(line, _WIDEST_GRAPH) for line in each.before] for each in found],
    )


def _shown_parents(log: Log) -> dict[str, list[str]]:
    """Return id to the nearest ancestors that are shown: a filter may have left out what is between."""
    shown = {each.id: each for each in log.versions}
    found: dict[str, list[str]] = {}
    for version in log.versions:
        mine: dict[str, None] = {}
        seen: set[str] = set()
        looking = [parent.id for parent in version.parents]
        while looking:
            identity = looking.pop(0)
            if identity in shown:
                mine[identity] = None
            elif identity not in seen and identity in log.parents:
                looking.extend(parent.id for parent in log.parents[identity].parents)
            seen.add(identity)
        found[version.id] = list(mine)
    return found


def _beside(lines: Sequence[str], drawn: _Drawn, paint: Paint) -> list[str]:
    wide = max(map(width_of, drawn.own))
    told = [" " * (wide + 2) + lines[0]]
    for line, own, before in zip(lines[1:], drawn.own, drawn.before, strict=True):
        told += [paint(each, "dim") for each in before]
        told.append(paint(own, "name") + " " * (wide - width_of(own) + 2) + line)
    return told


def _left(versions: Sequence[Version]) -> list[_Column]:
    return [
        ("ID", [Cell(each.short_id, "id") for each in versions]),
        ("VERSION", [Cell(f"{clean(each.run, 64)}/{each.number}", "name") for each in versions]),
        ("EPOCH", [Cell(whole(each.epoch)) for each in versions]),
        ("STEP", [Cell(whole(each.step)) for each in versions]),
    ]


def _right(versions: Sequence[Version], now: datetime) -> list[_Column]:
    return [
        ("WEIGHTS", [Cell(size(each.weights.bytes), "" if each.has_weights else "dim") for each in versions]),
        ("STORED", [Cell(size(each.weights.stored_bytes)) for each in versions]),
        ("AGE", [Cell(age(each.created, now), "dim") for each in versions]),
    ]


def whole(value: int | None) -> str:
    """Tell an epoch or a step; nothing where there is none."""
    return "" if value is None else str(value)


def metric_cell(version: Version, name: str, best: Mapping[str, frozenset[str]]) -> Cell:
    """Tell a version's metric, with a star where it is the best by it."""
    if name not in version.metrics:
        return Cell("")
    value = version.metrics[name]
    if name in best.get(version.id, ()):
        return Cell(f"*{number(value)}", "good")
    return Cell(number(value), "" if _is_number(value) and math.isfinite(value) else "bad")


def metrics_of(versions: Sequence[Version]) -> tuple[list[str], list[str]]:
    """Choose the metrics to show: those monitored, then the others, first what most versions have."""
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


def notes_of(version: Version, log: Log) -> list[Cell]:
    """Tell what is to be noticed of a version: aliases, where it came from, what changed, marks, notes."""
    notes = []
    names = log.aliases.get(version.id, ())
    if names:
        notes.append(Cell(f"[{', '.join(clean(name, 64) for name in names)}]", "bold"))
    elsewhere = [_origin(parent, log) for parent in version.parents if _is_elsewhere(version, parent.id, log)]
    if elsewhere:
        notes.append(Cell(f"<- {', '.join(elsewhere)}"))
    parent = version.parent
    changed = changed_data(version, log.parents.get(parent.id)) if parent else ()
    if changed:
        notes.append(Cell(f"data changed: {', '.join(clean(name, 40) for name in changed)}", "bad"))
    if parent and changed_code(version, log.parents.get(parent.id)):
        notes.append(Cell("code changed", "bad"))
    notes.extend(Cell(mark, "dim" if mark.endswith("pruned") else "bad") for mark in marks(version))
    if version.id in log.remarks:
        notes.append(Cell(clean(log.remarks[version.id], 200)))
    notes.extend(Cell(f'"{clean(note.text, 120)}"', "name") for note in version.notes[-2:])
    return notes


def _laid(notes: Sequence[Cell], paint: Paint, room: int | None) -> str:
    """Lay notes out on one line; what does not fit is cut."""
    told = []
    for note in notes:
        text = note.text if room is None else clip(note.text, room)
        if room is not None:
            if room < min(4, width_of(note.text)):
                break
            room -= width_of(text) + 2
        told.append(paint(text, note.look))
    return "  ".join(told)


def _is_elsewhere(version: Version, parent: str, log: Log) -> bool:
    """Tell whether a parent is not the version that a reader expects: one of the run's own."""
    known = log.parents.get(parent)
    if known is not None:
        return known.run != version.run
    # Not in the store any more. A run's own versions only go together with the run.
    return not any(each.id == parent and each.how == "run" for each in version.parents)


def _origin(parent: Parent, log: Log) -> str:
    known = log.parents.get(parent.id)
    if known is None:
        return f"{short(parent.id)} ({'of another store' if parent.elsewhere else 'not here'})"
    return f"{clean(known.run, 64)}/{known.number}"
