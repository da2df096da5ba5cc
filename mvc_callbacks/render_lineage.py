"""The lineage as a drawing: a lane for each run, a dot for each version, curves where one began elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from mvc_callbacks.render import clean, clip, number, width_of
from mvc_callbacks.render_html import element
from mvc_callbacks.render_tables import Log, marks
from mvc_callbacks.versions import Version

__all__ = ["lineage_svg"]

_LANE = 34  # pixels between two lanes
_DOT = 5
_WIDEST = 900
_WIDEST_STEP = 26.0
_MOST_DOTS = 400  # of more versions only those are drawn that lines join, or that have something to tell
_LETTER = 7.2  # pixels of a letter, about
_MOST_LETTERS = 28
_COLOURS = ("#3b82c4", "#d9762b", "#3a9a5b", "#b5518e", "#7a6fd0", "#a08a2e", "#4aa3a0", "#c4524f")


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a version is drawn, in pixels, and the number of its lane."""

    x: float
    y: float
    lane: int


def lineage_svg(log: Log) -> Element:
    """Draw versions and what they came from.

    Time goes to the right, a lane is a run. A ring is an alias, a star the best by the monitored metric,
    a hollow dot a version whose weights were pruned. Every dot tells its version when it is pointed at.
    Of more than 400 versions only those have a dot that begin or end a run, that another run began from, or
    that are the best or have an alias.

    Args:
        log: The versions, in any order, with their aliases and the best of them.

    Returns:
        An ``svg`` element; its texts and lines have the colour of the text around it.
    """
    versions = sorted(log.versions, key=lambda each: (each.sequence, each.created))
    lanes = {run: place for place, run in enumerate(dict.fromkeys(each.run for each in versions))}
    names = [clip(clean(run, 64), _MOST_LETTERS) for run in lanes]
    left = 14 + _LETTER * max(map(width_of, names), default=0) + 14
    step = min(_WIDEST_STEP, (_WIDEST - left) / max(len(versions), 1))
    places = {
        each.id: _Place(left + step * place, 26 + _LANE * lanes[each.run], lanes[each.run])
        for place, each in enumerate(versions)
    }
    ends = [
        places[each.id].x + _LETTER * width_of(_named(log, each)) for each in versions if _named(log, each)
    ]
    width = max([left + step * len(versions), *ends, 60]) + 14
    height = 26 + _LANE * max(len(lanes), 1)
    drawn = versions if len(versions) <= _MOST_DOTS else _knots(versions, log)
    return element(
        "svg",
        [_label(name, place) for place, name in enumerate(names)],
        [] if drawn is versions else _lines(versions, places),
        [each for version in drawn for each in _edges(version, places, within_lanes=drawn is versions)],
        [each for version in drawn for each in _dot(version, places[version.id], log, step)],
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width:.0f} {height}",
        width=f"{width:.0f}",
        height=f"{height}",
        role="img",
        font_family="system-ui, sans-serif",
        font_size="12",
    )


def _label(name: str, lane: int) -> Element:
    return element("text", name, x="8", y=f"{26 + _LANE * lane + 4}", fill=_colour(lane))


def _colour(lane: int) -> str:
    return _COLOURS[lane % len(_COLOURS)]


def _knots(versions: Sequence[Version], log: Log) -> list[Version]:
    """Return the versions that something is to be said of."""
    first = {each.run: each.id for each in reversed(versions)}
    last = {each.run: each.id for each in versions}
    by_id = {each.id: each for each in versions}
    wanted = {*first.values(), *last.values(), *log.aliases, *log.best}
    for each in versions:
        elsewhere = [one.id for one in each.parents if one.id in by_id and by_id[one.id].run != each.run]
        wanted |= {each.id, *elsewhere} if elsewhere else set()
    return [each for each in versions if each.id in wanted]


def _lines(versions: Sequence[Version], places: Mapping[str, _Place]) -> Sequence[Element]:
    """Draw each run as one line."""
    ends: dict[str, list[_Place]] = {}
    for each in versions:
        ends.setdefault(each.run, []).append(places[each.id])
    return [
        _stroke(f"M {mine[0].x:.1f} {mine[0].y} L {mine[-1].x:.1f} {mine[-1].y}", mine[0].lane)
        for mine in ends.values()
    ]


def _stroke(path: str, lane: int, dashed: bool = False) -> Element:
    return element(
        "path",
        d=path,
        fill="none",
        stroke=_colour(lane),
        stroke_width="2",
        stroke_opacity="0.55",
        stroke_dasharray="4 3" if dashed else None,
    )


def _edges(version: Version, places: Mapping[str, _Place], *, within_lanes: bool = True) -> Sequence[Element]:
    end = places[version.id]
    found = []
    for parent in version.parents:
        start = places.get(parent.id)
        if start is None or (start.lane == end.lane and not within_lanes):
            continue
        bend = max(10.0, (end.x - start.x) / 2)
        path = (
            f"M {start.x:.1f} {start.y} L {end.x:.1f} {end.y}"
            if start.lane == end.lane
            else f"M {start.x:.1f} {start.y} C {start.x + bend:.1f} {start.y} {end.x - bend:.1f} {end.y} "
            f"{end.x:.1f} {end.y}"
        )
        found.append(_stroke(path, end.lane, parent.how not in ("run", "resume", "restore")))
    return found


def _dot(version: Version, place: _Place, log: Log, step: float) -> Sequence[Element]:
    radius = min(float(_DOT), max(1.5, step * 0.4))
    colour = _colour(place.lane)
    drawn = []
    named = _named(log, version)
    if log.aliases.get(version.id):
        ring = radius + 4
        drawn.append(_circle(place, ring, fill="none", stroke="currentColor", stroke_width="1.5"))
    if log.best.get(version.id):
        drawn.append(_star(place, radius + 3, colour))
    else:
        hollow = not version.has_weights
        fill = "var(--mvc-paper, #fff)" if hollow else colour
        drawn.append(_circle(place, radius, fill=fill, stroke=colour, stroke_width="1.5"))
    if named:
        drawn.append(
            element("text", named, x=f"{place.x - radius:.1f}", y=f"{place.y - 11}", fill="currentColor")
        )
    name = f"{clean(version.run, 64)}/{version.number}"
    return [element("g", element("title", _told(version, log)), drawn, data_version=name)]


def _circle(place: _Place, radius: float, **attributes: str) -> Element:
    return element("circle", cx=f"{place.x:.1f}", cy=f"{place.y}", r=f"{radius:.1f}", **attributes)


def _star(place: _Place, radius: float, colour: str) -> Element:
    # Ten corners of a regular star, the inner ones at 0.45 of the radius, from the top.
    corners = (
        (0.0, -1.0), (0.264, -0.364), (0.951, -0.309), (0.428, 0.139), (0.588, 0.809),
        (0.0, 0.45), (-0.588, 0.809), (-0.428, 0.139), (-0.951, -0.309), (-0.264, -0.364),
    )  # fmt: skip
    points = " ".join(f"{place.x + x * radius:.1f},{place.y + y * radius:.1f}" for x, y in corners)
    return element("polygon", points=points, fill=colour, stroke=colour)


def _named(log: Log, version: Version) -> str:
    return clip(", ".join(clean(each, 64) for each in log.aliases.get(version.id, ())), _MOST_LETTERS)


def _told(version: Version, log: Log) -> str:
    """Tell a version in the words that appear when it is pointed at."""
    place = [f"epoch {version.epoch}"] if version.epoch is not None else []
    place += [f"step {version.step}"] if version.step is not None else []
    metrics = [f"{clean(name, 40)} {number(value)}" for name, value in list(version.metrics.items())[:6]]
    best = sorted(log.best.get(version.id, ()))
    parts = [
        f"{clean(version.run, 64)}/{version.number} ({version.short_id})",
        ", ".join(place),
        ", ".join(metrics),
        f"the best by {clean(', '.join(best), 80)}" if best else "",
        _named(log, version),
        ", ".join(marks(version)),
    ]
    return " · ".join(each for each in parts if each)
