"""The graph beside a log: which version came from which, drawn in lanes as ``git log --graph`` does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

__all__ = ["Strand", "branches", "strands"]


class Strand(NamedTuple):
    """What stands before one version.

    Attributes:
        before: Lines to draw above it, where lanes meet.
        own: The lanes of its own line.
    """

    before: tuple[str, ...]
    own: str


def branches(ids: Sequence[str], parents: Mapping[str, Sequence[str]]) -> bool:
    """Tell whether there is more to draw than a straight line or several that never meet."""
    seen: set[str] = set()
    shown = set(ids)
    for each in ids:
        mine = [parent for parent in parents.get(each, ()) if parent in shown]
        if len(mine) > 1 or seen.intersection(mine):
            return True
        seen.update(mine)
    return False


def strands(ids: Sequence[str], parents: Mapping[str, Sequence[str]]) -> list[Strand]:
    """Draw lanes.

    Args:
        ids: The versions, a child always before its parents.
        parents: Id to the ids it came from; those that are not in ``ids`` are left out.

    Returns:
        One strand for each id.
    """
    shown = set(ids)
    lanes: list[str | None] = []  # the version that each lane leads down to; None for a lane that ended
    drawn = []
    before: list[str] = []  # drawn with the next version
    for each in ids:
        waiting = [place for place, wanted in enumerate(lanes) if wanted == each]
        for other in reversed(waiting[1:]):
            before.append(_meeting(lanes, waiting[0], other, "╯"))
            lanes[other] = None
        _trim(lanes)
        if waiting:
            own = waiting[0]
        else:
            own = lanes.index(None) if None in lanes else len(lanes)
            lanes[own : own + 1] = [each]
        line = "".join("● " if place == own else "│ " if lane else "  " for place, lane in enumerate(lanes))
        mine = [
            parent for parent in dict.fromkeys(parents.get(each, ())) if parent in shown and parent != each
        ]
        lanes[own] = mine[0] if mine else None
        above = []
        for further in mine[1:]:
            free = next((at for at, lane in enumerate(lanes) if lane is None and at > own), len(lanes))
            lanes[free : free + 1] = [further]
            above.append(_meeting(lanes, own, free, "╮"))
        _trim(lanes)
        drawn.append(Strand(tuple(before), line.rstrip()))
        before = above
    return drawn


def _meeting(lanes: Sequence[str | None], left: int, right: int, corner: str) -> str:
    line = ""
    for place, lane in enumerate(lanes):
        if place == left:
            line += "├─"
        elif place == right:
            line += f"{corner} "
        elif left < place < right:
            line += "┼─" if lane else "──"
        else:
            line += "│ " if lane else "  "
    return line.rstrip()


def _trim(lanes: list[str | None]) -> None:
    while lanes and lanes[-1] is None:
        lanes.pop()
