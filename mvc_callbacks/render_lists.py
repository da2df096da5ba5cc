"""Tables of runs, aliases and their moves as plain text."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from mvc_callbacks.render import (
    PLAIN,
    Cell,
    Paint,
    age,
    clean,
    clip,
    clip_painted,
    columns,
    moment,
    number,
    short,
    size,
    width_of,
)
from mvc_callbacks.versions import AliasMove, Version

__all__ = ["RunLine", "alias_lines", "move_lines", "run_cells", "run_lines"]

_LONGEST_HEAD = 24
_MOST_LABELS = 4
_LEAST_TEXT = 16  # of the last column, for which others go on a narrow terminal


@dataclass(frozen=True, slots=True)
class RunLine:
    """One line of the table of runs.

    Attributes:
        label: The run's label.
        further: Labels of the runs that went on from it one after the other, each from the newest version of
            the one before; they are counted in.
        framework: What trained it.
        created: When it began, UTC ISO-8601.
        versions: Number of versions.
        stored_bytes: Bytes that its versions added to the store.
        resumes: What it was resumed from, or None.
        best: Its best version as ``run/3``, or None.
        monitor: The metric that the best is best of.
        value: That metric's value.
    """

    label: str
    framework: str
    created: str
    versions: int
    stored_bytes: int
    resumes: str | None = None
    best: str | None = None
    monitor: str = ""
    value: float | None = None
    further: tuple[str, ...] = ()


def run_lines(
    runs: Sequence[RunLine], *, now: datetime, paint: Paint = PLAIN, width: int | None = None
) -> list[str]:
    """Tell runs, one a line for each chain of resumed ones.

    Args:
        runs: In the order of the lines.
        now: The time that ages are counted to.
        paint: How it is coloured.
        width: Columns of the terminal; None for no limit.
    """
    heads, rows, right = run_cells(runs, now=now)
    return _fitted(heads, rows, ("FRAMEWORK", "STORED", "BEGAN", "VERSIONS"), width, paint, right)


def _fitted(
    heads: list[str],
    rows: list[list[Cell]],
    dispensable: Sequence[str],
    width: int | None,
    paint: Paint,
    right: Collection[str] = (),
) -> list[str]:
    """Lay a table out; on a narrow terminal columns go, in an order, and then lines are cut."""
    if width is None:
        return columns(heads, rows, right=right, paint=paint)
    for head in dispensable:
        short_rows = [[*row[:-1], Cell(clip(row[-1].text, _LEAST_TEXT))] for row in rows]
        if max(map(width_of, columns(heads, short_rows))) <= width:
            break
        at = heads.index(head)
        heads = heads[:at] + heads[at + 1 :]
        rows = [row[:at] + row[at + 1 :] for row in rows]
    return [clip_painted(line, width) for line in columns(heads, rows, right=right, paint=paint)]


def run_cells(
    runs: Sequence[RunLine], *, now: datetime | None = None
) -> tuple[list[str], list[list[Cell]], set[str]]:
    """Lay runs out in cells.

    Args:
        runs: One for each row.
        now: The time that ages are counted to; None tells moments.

    Returns:
        The heads, the rows, and the heads of columns aligned to the right.
    """
    rows = [
        [
            Cell(_chain(each), "name"),
            Cell(str(each.versions)),
            Cell("" if each.best is None else clean(each.best, 80)),
            Cell("" if each.best is None else f"{clean(each.monitor, _LONGEST_HEAD)} {number(each.value)}"),
            Cell(size(each.stored_bytes)),
            Cell(clean(each.framework, 24), "dim"),
            Cell(moment(each.created)[:16] if now is None else age(each.created, now), "dim"),
            Cell("" if each.resumes is None else f"<- {clean(each.resumes, 80)}"),
        ]
        for each in runs
    ]
    heads = ["RUN", "VERSIONS", "BEST", "BY", "STORED", "FRAMEWORK", "BEGAN", "RESUMES"]
    return heads, rows, {"VERSIONS", "STORED", "BEGAN"}


def _chain(line: RunLine) -> str:
    labels = [clean(each, 64) for each in (line.label, *line.further)]
    if len(labels) > _MOST_LABELS:
        labels = [labels[0], f"({len(labels) - 2} more)", labels[-1]]
    return " > ".join(labels)


def alias_lines(
    aliases: Mapping[str, str],
    *,
    versions: Mapping[str, Version],
    moves: Mapping[str, AliasMove],
    now: datetime,
    paint: Paint = PLAIN,
    width: int | None = None,
) -> list[str]:
    """Tell aliases, one a line.

    Args:
        aliases: Name to id.
        versions: Id to version, as far as the store has them.
        moves: Name to the alias's last move.
        now: The time that ages are counted to.
        paint: How it is coloured.
        width: Columns of the terminal; None for no limit.
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
    heads = ["ALIAS", "ID", "VERSION", "MOVED", "WHO", "HOW", "WHY"]
    return _fitted(heads, rows, ("WHO", "HOW", "MOVED", "ID"), width, paint, {"MOVED"})


def move_lines(
    moves: Sequence[AliasMove],
    *,
    versions: Mapping[str, Version],
    paint: Paint = PLAIN,
    width: int | None = None,
) -> list[str]:
    """Tell the moves of aliases, one a line.

    Args:
        moves: In the order of the lines.
        versions: Id to version, as far as the store has them.
        paint: How it is coloured.
        width: Columns of the terminal; None for no limit.
    """

    def place(identity: str | None) -> Cell:
        if identity is None:
            return Cell("-", "dim")
        known = versions.get(identity)
        name = f"{clean(known.run, 64)}/{known.number}" if known else f"{short(identity)} (not here)"
        return Cell(name, "name" if known else "bad")

    rows = [
        [
            Cell(moment(each.time), "dim"),
            Cell(clean(each.name, 64), "bold"),
            Cell(clean(each.how, 16)),
            place(each.previous),
            place(each.id),
            Cell(clean(each.who, 64), "dim"),
            Cell(clean(each.why, 200)),
        ]
        for each in moves
    ]
    heads = ["WHEN", "ALIAS", "HOW", "FROM", "TO", "WHO", "WHY"]
    return _fitted(heads, rows, ("WHO", "WHEN"), width, paint)
