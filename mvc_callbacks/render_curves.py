"""Curves of metrics as drawings: a line for each run, joined to the version that it began from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from mvc_callbacks.render import clean, number
from mvc_callbacks.render_html import element
from mvc_callbacks.versions import Version

__all__ = ["COLOURS", "curve_svg", "over"]

COLOURS = 8
"""How many colours the lines take turns with; a style sheet has them as ``.c0`` to ``.c7``."""
_WIDTH, _HEIGHT = 420, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 12, 14, 30
_DECADES = 2.5  # of values that are all positive: more are easier to read on a logarithmic scale
_MOST_DOTS = 400


@dataclass(frozen=True, slots=True)
class _Scale:
    """From values to pixels."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        # Halves: the distance of two doubles may be none.
        low, high, at = (math.log10(each) if self.log else each / 2 for each in (self.low, self.high, value))
        return self.start + (self.end - self.start) * ((at - low) / (high - low) if high > low else 0.5)


def over(versions: Sequence[Version]) -> str:
    """Name what curves are drawn over: ``step`` or ``epoch`` if all versions tell it, else ``number``."""
    for name in ("step", "epoch"):
        if versions and all(getattr(each, name) is not None for each in versions):
            return name
    return "number"


def curve_svg(
    name: str,
    versions: Sequence[Version],
    *,
    axis: str,
    runs: Mapping[str, int],
    known: Mapping[str, Version],
    best: Mapping[str, frozenset[str]],
) -> Element | None:
    """Draw a metric.

    Args:
        name: The metric.
        versions: In the order of their numbers.
        axis: As `over` names it.
        runs: Label to the place of the run's colour.
        known: Id to version, to join a run to what it began from.
        best: Id to the metrics of which it is the best.

    Returns:
        An ``svg`` with ``data-`` attributes for a script; None where no version has a number.
    """
    place: Callable[[Version], float] = lambda each: float(getattr(each, axis) or 0)  # noqa: E731
    shown = [each for each in versions if _is_finite(each.metrics.get(name))]
    if not shown:
        return None
    values = [each.metrics[name] for each in shown]
    log = min(values) > 0 and math.log10(max(values)) - math.log10(min(values)) > _DECADES
    across = _Scale(min(map(place, shown)), max(map(place, shown)), _LEFT, _WIDTH - _RIGHT)
    up = _Scale(*_roomy(min(values), max(values), log), _HEIGHT - _BOTTOM, _TOP, log)
    point: Callable[[Version], tuple[float, float]] = lambda each: (  # noqa: E731
        across(place(each)),
        up(each.metrics[name]),
    )
    lines: list[Element] = []
    for run, mine in _by_run(shown).items():
        path = [point(each) for each in mine]
        lines += _origin(mine[0], name, known, point, path[0], runs[run])
        lines.append(
            element(
                "polyline",
                points=" ".join(f"{x:.1f},{y:.1f}" for x, y in path),
                class_=f"line c{runs[run] % COLOURS}{' dashed' if runs[run] >= COLOURS else ''}",
                data_run=runs[run],
            )
        )
        if len(shown) <= _MOST_DOTS or len(path) == 1:
            lines += [_dot(x, y, "dot", runs[run], r="2.2") for x, y in path]
    lines += [
        _dot(*point(each), "ring", runs[each.run], r="5.5") for each in shown if name in best.get(each.id, ())
    ]
    return element(
        "svg",
        list(_axes(across, up, axis)),
        lines,
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        role="img",
        aria_label=_told(name, shown, axis),
        data_metric=name,
        data_axis=axis,
        data_x=f"{across.low:.17g} {across.high:.17g} {_LEFT} {_WIDTH - _RIGHT}",
        data_y=f"{up.low:.17g} {up.high:.17g} {_HEIGHT - _BOTTOM} {_TOP}",
        data_log=log or None,
    )


def _is_finite(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _roomy(low: float, high: float, log: bool) -> tuple[float, float]:
    if log:
        factor = 10 ** (0.05 * (math.log10(high) - math.log10(low)))
        wide = low / factor, high * factor
    else:
        room = (high - low) * 0.06 or abs(high) * 0.05 or 1.0
        wide = low - room, high + room
    return wide if all(map(math.isfinite, wide)) and (not log or wide[0] > 0) else (low, high)


def _by_run(versions: Sequence[Version]) -> dict[str, list[Version]]:
    found: dict[str, list[Version]] = {}
    for each in versions:
        found.setdefault(each.run, []).append(each)
    return found


def _origin(
    first: Version,
    name: str,
    known: Mapping[str, Version],
    point: Callable[[Version], tuple[float, float]],
    end: tuple[float, float],
    run: int,
) -> Iterator[Element]:
    """Join a run's first point to the version of another run that it began from."""
    parent = known.get(first.parent.id) if first.parent else None
    if parent is not None and parent.run != first.run and _is_finite(parent.metrics.get(name)):
        x, y = point(parent)
        if x < end[0]:  # training that began anew from old weights does not go backwards
            path = f"M{x:.1f} {y:.1f}L{end[0]:.1f} {end[1]:.1f}"
            yield element("path", d=path, class_=f"line from c{run % COLOURS}", data_run=run)


def _dot(x: float, y: float, kind: str, run: int, *, r: str) -> Element:
    return element(
        "circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r=r, class_=f"{kind} c{run % COLOURS}", data_run=run
    )


def _axes(across: _Scale, up: _Scale, axis: str) -> Iterator[Element]:
    left, right, bottom = f"{_LEFT}", f"{_WIDTH - _RIGHT}", _HEIGHT - _BOTTOM
    for value in _decades(up) if up.log else _ticks(up.low, up.high, 5):
        y = f"{up(value):.1f}"
        yield element("line", x1=left, x2=right, y1=y, y2=y, class_="grid")
        text = f"{value:.4g}"
        yield element("text", text, x=f"{_LEFT - 6}", y=y, dy="0.32em", text_anchor="end", class_="tick")
    for value in _ticks(across.low, across.high, 6):
        if value == int(value):
            text = f"{value:.0f}" if value < 1e6 else f"{value:.3g}"
            x = f"{across(value):.1f}"
            yield element("text", text, x=x, y=f"{bottom + 15}", text_anchor="middle", class_="tick")
    yield element("line", x1=left, x2=right, y1=f"{bottom}", y2=f"{bottom}", class_="axis")
    yield element("text", f"{axis}", x=right, y=f"{bottom + 27}", text_anchor="end", class_="tick")


def _ticks(low: float, high: float, most: int) -> list[float]:
    """Return round values between two: multiples of 1, 2 or 5 times a power of ten."""
    if not high > low:
        return [low]
    rough = high / most - low / most
    power = 10 ** math.floor(math.log10(rough)) if rough > 0 else 0
    if not power or not math.isfinite(power):
        return [low]
    step = next(each * power for each in (1, 2, 5, 10) if each * power >= rough)
    first = math.ceil(low / step)
    return [at * step for at in range(first, first + most + 2) if at * step <= high]


def _decades(up: _Scale) -> list[float]:
    powers = range(math.ceil(math.log10(up.low)), math.floor(math.log10(up.high)) + 1)
    each = max(1, len(powers) // 5)
    return [10.0**power for power in powers[::each]]


def _told(name: str, shown: Sequence[Version], axis: str) -> str:
    """Tell a curve in words, for those who do not see it."""
    values = [each.metrics[name] for each in shown]
    runs = len(_by_run(shown))
    return (
        f"{clean(name, 60)} over {axis}: {len(shown)} versions of {runs} {'run' if runs == 1 else 'runs'}, "
        f"from {number(min(values))} to {number(max(values))}"
    )
