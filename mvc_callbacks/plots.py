"""Plots of metrics over versions and runs; needs matplotlib, and touches nothing of pyplot's."""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mvc_callbacks.errors import Misconfigured
from mvc_callbacks.render import clean
from mvc_callbacks.render_tables import metrics_of
from mvc_callbacks.versions import Version

__all__ = ["Over", "Plot", "metrics_figure"]

Over = Literal["step", "epoch", "time", "version"]
_MOST_METRICS = 4
_FEW_RUNS = 4  # whose legend has room among the lines
_MOST_RUNS = 20  # more are drawn in grey: no legend could tell them apart
_OVER: Mapping[str, tuple[str, Callable[[Version], Any]]] = {
    "step": ("step", lambda each: each.step),
    "epoch": ("epoch", lambda each: each.epoch),
    "time": ("saved (UTC)", lambda each: datetime.fromisoformat(each.created.replace("Z", "+00:00"))),
    "version": ("version of the run", lambda each: each.number),
}


class Plot(Figure):
    """A figure that a notebook shows by itself; pyplot's backend would show only its own."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
        return buffer.getvalue()


def metrics_figure(
    versions: Sequence[Version],
    metrics: Sequence[str] = (),
    *,
    over: Over | None = None,
    aliases: Mapping[str, Sequence[str]] | None = None,
    best: Mapping[str, frozenset[str]] | None = None,
    axes: Axes | None = None,
) -> Figure:
    """Plot metrics of versions, a line for each run.

    Args:
        versions: What is plotted.
        metrics: Names, each in axes of its own; else the monitored ones, and what most versions have.
        over: ``step``, ``epoch``, ``time`` or ``version``; else the first of step, epoch and version that all
            have.
        aliases: Id to aliases, written beside their versions.
        best: Id to the metrics that a version is the best of, which get a star.
        axes: Axes of one's own to draw one metric in.

    Returns:
        The figure, which a notebook shows and ``savefig`` writes.

    Raises:
        Misconfigured: If there is nothing to plot; the message says what there is.
    """
    names = _chosen(versions, metrics)
    if axes is not None and len(metrics) > 1:
        raise Misconfigured(f"axes= is for one metric, and {len(metrics)} were asked for")
    label, place = _places(versions, over)
    if axes is None:
        figure = Plot(figsize=(7.5, 0.4 + 2.7 * len(names)), layout="constrained")
        every = list(figure.subplots(len(names), 1, sharex=True, squeeze=False)[:, 0])
    else:
        names, every = names[:1], [axes]
    for name, own in zip(names, every, strict=True):
        _draw(own, versions, name, place, aliases or {}, best or {})
        own.set_ylabel(_plain(name))
    every[-1].set_xlabel(label)
    if axes is None and label != _OVER["time"][0]:
        every[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    runs = dict.fromkeys(each.run for each in versions)
    if 1 < len(runs) <= _MOST_RUNS:
        beside = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)} if len(runs) > _FEW_RUNS else {}
        every[0].legend(fontsize="small", frameon=False, **beside)
    elif len(runs) == 1:
        every[0].set_title(_plain(next(iter(runs))), fontsize="medium", loc="left")
    shown: Figure = every[0].figure
    return shown


def _chosen(versions: Sequence[Version], metrics: Sequence[str]) -> list[str]:
    known = Counter(name for each in versions for name, value in each.metrics.items() if _is_finite(value))
    if not known:
        raise Misconfigured("there is nothing to plot: no version here has a metric that is finite")
    for name in metrics:
        if name not in known:
            there = ", ".join(list(known)[:12])
            raise Misconfigured(f"no version here has the metric {name!r:.80}; there are: {there}")
    if metrics:
        return list(dict.fromkeys(metrics))
    monitored, others = metrics_of(versions)
    # Lightning logs the epoch as a metric, which is no result.
    shown = [name for name in [*monitored, *others] if name in known and name not in ("epoch", "step")]
    return (shown or list(known))[:_MOST_METRICS]


def _places(versions: Sequence[Version], over: str | None) -> tuple[str, Callable[[Version], Any]]:
    if over is not None and over not in _OVER:
        raise Misconfigured(f"over={over!r:.40} is none of {', '.join(_OVER)}")
    if over is None:
        whole = (
            each for each in ("step", "epoch") if all(_OVER[each][1](one) is not None for one in versions)
        )
        over = next(whole, "version")
    return _OVER[over]


def _draw(
    axes: Axes,
    versions: Sequence[Version],
    name: str,
    place: Callable[[Version], Any],
    aliases: Mapping[str, Sequence[str]],
    best: Mapping[str, frozenset[str]],
) -> None:
    by_run: dict[str, list[Version]] = {}
    for each in versions:
        by_run.setdefault(each.run, []).append(each)
    many = len(by_run) > _MOST_RUNS
    for number, (run, mine) in enumerate(by_run.items()):
        colour, label = _colour(number, many), _plain(run)
        known = [each for each in mine if _is_finite(each.metrics.get(name)) and place(each) is not None]
        if not known:
            axes.plot([], [], color=colour, label=label)
            continue
        at, values = [place(each) for each in known], [each.metrics[name] for each in known]
        axes.plot(
            at,
            values,
            marker="o",
            markersize=3.5,
            linewidth=1.4,
            linestyle=_style(number, many),
            color=colour,
            label=_plain(run),
        )
        for x, y, each in zip(at, values, known, strict=True):
            if name in best.get(each.id, ()):
                axes.plot([x], [y], marker="*", markersize=13, color=colour, zorder=3)
            if aliases.get(each.id):
                axes.plot(
                    [x], [y], marker="o", markersize=10, markerfacecolor="none", color="black", zorder=4
                )
                told = ", ".join(_plain(one) for one in aliases[each.id])
                # Towards the middle, or it would lie over the legend.
                right = x - at[0] > (at[-1] - at[0]) * 0.6
                side, offset = ("right", -6) if right else ("left", 6)
                axes.annotate(
                    told, (x, y), xytext=(offset, 6), textcoords="offset points", fontsize="small", ha=side
                )
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.06, y=0.14)


def _colour(number: int, many: bool) -> str:
    return "0.6" if many else f"C{number % 10}"


def _style(number: int, many: bool) -> str:
    return "-" if many or number < 10 else "--"  # colours begin again


def _plain(text: str) -> str:
    """Return text that matplotlib shows as it is: a dollar would begin a formula."""
    return clean(text, 40).replace("$", r"\$")


def _is_finite(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
