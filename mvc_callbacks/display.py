"""What versions and stores look like at a prompt and in a notebook: gathered, then told as text or HTML."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree.ElementTree import Element, tostring

from mvc_callbacks.errors import MissingFramework, MVCError
from mvc_callbacks.progress import progress_bar
from mvc_callbacks.render import Cell, clean, count, size
from mvc_callbacks.render_html import Content, element, markup, rows_table, section, shown
from mvc_callbacks.render_lists import run_lines
from mvc_callbacks.render_tables import Log, best_of, log_lines
from mvc_callbacks.versions import Version
from mvc_callbacks.viewing import aliases_of, page_of, parents_of, run_lines_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

    from mvc_callbacks.plots import Over
    from mvc_callbacks.store_reader import StoreReader

__all__ = [
    "Drawing",
    "figure",
    "frame",
    "lineage",
    "list_html",
    "list_text",
    "store_html",
    "store_text",
    "version_html",
    "version_text",
]

_MOST = 20  # versions that are shown of a list
_WIDE = 120  # columns where nobody says how many there are


class Drawing:
    """A drawing that shows itself in a notebook, and as text at a prompt.

    Args:
        tree: The drawing, an ``svg`` element.
        text: The same in letters.
    """

    def __init__(self, tree: Element, text: str) -> None:
        self._tree = tree
        self.text = text

    @property
    def svg(self) -> str:
        """The drawing as SVG."""
        return tostring(self._tree, encoding="unicode")

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        return markup(shown(self._tree))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the drawing as an SVG file."""
        Path(path).write_text(self.svg, "utf-8")


def list_text(versions: Sequence[Version], store: StoreReader | None) -> str:
    """Tell versions as a table, in their order, the last 20 of them."""
    log, left_out = _log(versions, store)
    if not versions:
        return "no version"
    more = [f"... {count(left_out, 'version')} before these"] if left_out else []
    heads, *lines = log_lines(log, now=_now(), width=_WIDE)
    return "\n".join([heads, *more, *lines])


def list_html(versions: Sequence[Version], store: StoreReader | None) -> str:
    """Tell versions as an HTML table, in their order, the last 20 of them."""
    from mvc_callbacks.render_html_versions import log_html

    log, left_out = _log(versions, store)
    if not versions:
        return markup(shown(Cell("no version", "dim")))
    more = [element("div", Cell(f"… {count(left_out, 'version')} before these", "dim"))] if left_out else []
    return markup(shown(more, log_html(log)))


def version_text(store: StoreReader, version: Version) -> str:
    """Tell everything of a version, as ``mvc show`` does."""
    from mvc_callbacks.render_version import version_lines

    return "\n".join(version_lines(page_of(store, version), now=_now(), width=_WIDE))


def version_html(store: StoreReader, version: Version) -> str:
    """Tell everything of a version as HTML."""
    from mvc_callbacks.render_html_versions import version_html as html

    return markup(shown(html(page_of(store, version))))


def store_text(store: StoreReader) -> str:
    """Tell a store's runs and aliases as text."""
    lines = [f"{type(store).__name__}({str(store.path)!r})"]
    if not store.exists():
        return f"{lines[0]}: there is no store yet"
    runs = run_lines_of(store)
    lines[0] += f": {_summary(store)}"
    lines += ["", *run_lines(runs[-_MOST:], now=_now())] if runs else []
    return "\n".join([*lines, *_alias_lines(store)])


def store_html(store: StoreReader) -> str:
    """Tell a store's runs and aliases as HTML."""
    from mvc_callbacks.render_html_versions import runs_html

    title = element("div", Cell(f"{type(store).__name__}  {clean(store.path)}", "bold"))
    if not store.exists():
        return markup(shown(title, Cell("there is no store yet: the first save makes it", "dim")))
    runs = run_lines_of(store)
    more = f" (the newest {_MOST})" if len(runs) > _MOST else ""
    parts = [section(f"runs{more}", runs_html(runs[-_MOST:]))] if runs else []
    named = _named(store)
    if named:
        rows: list[list[Content | Sequence[Content]]] = [
            [element("span", name, class_="mvc-badge"), Cell(told, "name")] for name, told in named.items()
        ]
        parts.append(section("aliases", rows_table(rows)))
    return markup(shown(title, element("div", Cell(_summary(store), "dim")), parts))


def _summary(store: StoreReader) -> str:
    runs = store.runs()
    stored = sum(each.stored_bytes for each in runs)
    versions = count(sum(each.versions for each in runs), "version")
    return f"{versions} of {count(len(runs), 'run')}, {size(stored)} stored when they were saved"


def _named(store: StoreReader) -> dict[str, str]:
    found = {}
    for name, identity in store.aliases().items():
        try:
            version = store.get(identity)
            found[clean(name, 64)] = f"{clean(version.run, 64)}/{version.number}"
        except MVCError:  # `mvc verify` tells it
            found[clean(name, 64)] = f"{clean(identity[:12])} (not here)"
    return found


def _alias_lines(store: StoreReader) -> list[str]:
    named = _named(store)
    return ["", *(f"{name} -> {told}" for name, told in named.items())] if named else []


def figure(
    versions: Sequence[Version],
    store: StoreReader | None,
    metrics: Sequence[str],
    *,
    over: Over | None,
    axes: Axes | None,
) -> Figure:
    """Plot metrics of versions.

    Raises:
        MissingFramework: If matplotlib is not installed.
        Misconfigured: If there is nothing to plot.
    """
    try:
        from mvc_callbacks.plots import metrics_figure
    except ImportError as error:
        raise MissingFramework('plots need matplotlib: pip install "mvc-callbacks[notebook]"') from error
    return metrics_figure(
        versions, metrics, over=over, aliases=_aliases(store), best=best_of(versions), axes=axes
    )


def lineage(versions: Sequence[Version], store: StoreReader | None) -> Drawing:
    """Draw which version came from which."""
    from mvc_callbacks.render_lineage import lineage_svg

    newest_first = sorted(versions, key=lambda each: (each.sequence, each.created), reverse=True)
    log = _log_of(newest_first, store, graph=True)
    text = "\n".join(log_lines(log, now=_now(), width=_WIDE)) if versions else "no version"
    return Drawing(lineage_svg(log), text)


def frame(versions: Sequence[Version], *, hyperparameters: bool) -> DataFrame:
    """Return a table with one row for each version; see ``VersionList.to_pandas``.

    Raises:
        MissingFramework: If pandas is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise MissingFramework('to_pandas needs pandas: pip install "mvc-callbacks[notebook]"') from error
    rows = []
    with progress_bar("reading records", None) as progress:
        for place, each in enumerate(versions, 1):
            rows.append(_row(each, hyperparameters))
            if progress is not None:
                progress(place, len(versions))
    index = pandas.Index([f"{each.run}/{each.number}" for each in versions], name="version")
    names = dict.fromkeys(name for row in rows for name in row)
    told = pandas.DataFrame({name: [row.get(name) for row in rows] for name in names}, index=index)
    if len(told):
        told["created"] = pandas.to_datetime(told["created"], utc=True, format="ISO8601")
        whole = dict.fromkeys(("epoch", "step"), "Int64")
        told = told.astype(whole)
    return told


def _row(version: Version, hyperparameters: bool) -> dict[str, Any]:
    from mvc_callbacks.render_values import hyperparameters as laid_out
    from mvc_callbacks.render_values import told

    row: dict[str, Any] = {
        "id": version.id,
        "run": version.run,
        "number": version.number,
        "created": version.created,
        "epoch": version.epoch,
        "step": version.step,
        **{f"metrics.{name}": value for name, value in version.metrics.items()},
    }
    if hyperparameters:
        recorded = laid_out(version.details.record.get("hyperparameters"))
        plain = (str, int, float, type(None))
        for name, value in recorded.items():
            row[f"hyperparameters.{name}"] = value if isinstance(value, plain) else told(value)
    row |= {
        "framework": version.framework,
        "parent": version.parent.id if version.parent else None,
        "bytes": version.weights.bytes,
        "stored_bytes": version.weights.stored_bytes,
        "has_weights": version.has_weights,
        "flags": ", ".join(version.flags),
    }
    return row


def _log(versions: Sequence[Version], store: StoreReader | None) -> tuple[Log, int]:
    last = versions[-_MOST:]
    return _log_of(last, store, every=versions, graph=False), len(versions) - len(last)


def _log_of(
    versions: Sequence[Version],
    store: StoreReader | None,
    *,
    graph: bool,
    every: Sequence[Version] | None = None,
) -> Log:
    every = versions if every is None else every
    known = {each.id: each for each in every}
    parents = known
    if store is not None:
        parents = {**known, **parents_of(store, versions, known)}
    return Log(versions, parents, _aliases(store), best_of(every), graph=graph)


def _aliases(store: StoreReader | None) -> Mapping[str, Sequence[str]]:
    try:
        return {} if store is None else aliases_of(store)
    except (MVCError, OSError):  # the store went, or is damaged: what is known is shown all the same
        return {}


def _now() -> datetime:
    return datetime.now(timezone.utc)
