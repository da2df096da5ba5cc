"""The report's table of versions, with what it is filtered by."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import quote
from xml.etree.ElementTree import Element

from mvc_callbacks.render import Cell, clean, moment, size
from mvc_callbacks.render_html import Content, cell, element
from mvc_callbacks.render_tables import Log, metric_cell, notes_of, whole
from mvc_callbacks.versions import Version

__all__ = ["address", "named", "versions_table"]

_FIRST_METRICS = 4  # columns that are shown before anybody chooses others


@dataclass(frozen=True, slots=True)
class _Column:
    """A column of the table of versions.

    Attributes:
        key: What its cells are sorted by: a field of what the script is told, or ``metric``.
        head: Its head.
        right: Whether it is aligned to the right.
        hidden: Whether it is not shown before somebody asks for it.
        metric: The metric's name, or an empty string.
    """

    key: str
    head: str
    right: bool = False
    hidden: bool = False
    metric: str = ""


def _columns(metrics: Sequence[str]) -> list[_Column]:
    return [
        _Column("name", "Version"),
        _Column("id", "ID", hidden=True),
        _Column("epoch", "Epoch", right=True),
        _Column("step", "Step", right=True),
        *(
            _Column("metric", clean(name, 32), right=True, hidden=place >= _FIRST_METRICS, metric=name)
            for place, name in enumerate(metrics)
        ),
        _Column("bytes", "Weights", right=True),
        _Column("stored", "Stored", right=True),
        _Column("created", "Made", right=True),
        _Column("notes", "Notes"),
    ]


def versions_table(log: Log, metrics: Sequence[str]) -> Iterator[Element]:
    """Make the table, and what stands around it.

    Args:
        log: The versions, newest first: the oldest has the number 0 in the page.
        metrics: Metrics with a column each; the first few are shown, the others when they are asked for.
    """
    if not log.versions:
        yield element("p", "There is no version yet.")
        return
    columns = _columns(metrics)
    yield _controls(columns)
    heads = [element("th", element("span", "Choose", class_="unseen"), scope="col", class_="choose")]
    heads += [
        element(
            "th",
            element("button", each.head, type="button", title=each.metric or None),
            scope="col",
            class_="right" if each.right else None,
            data_key=each.key,
            data_metric=each.metric or None,
            hidden=each.hidden,
            aria_sort="descending" if each.key == "created" else None,
        )
        for each in columns
    ]
    places = {each.id: len(log.versions) - 1 - place for place, each in enumerate(log.versions)}
    table = element(
        "table",
        element("caption", "Versions, newest first", class_="unseen"),
        element("thead", element("tr", heads)),
        element("tbody", [_row(each, places[each.id], log, columns) for each in log.versions], id="rows"),
    )
    yield element(
        "div", table, class_="scroll tall", tabindex="0", role="region", aria_label="Table of versions"
    )
    yield element(
        "p",
        "★ is the best of the store by the metric that its run watched. Stored is what saving a version "
        "added to the store.",
        class_="dim",
    )


def _controls(columns: Sequence[_Column]) -> Element:
    boxes = [
        element(
            "label",
            element("input", type="checkbox", data_column=place, checked=not each.hidden),
            each.head,
        )
        for place, each in enumerate(columns)
        if each.key != "name"
    ]
    help_text = (
        "Words are looked for in names, ids, aliases, notes, marks and hyperparameters. Conditions are on "
        "metrics, hyperparameters and fields: val_loss<0.5 lr>=1e-3 run=baseline epoch!=0. All must hold; "
        "a - before one turns it round."
    )
    return element(
        "div",
        element(
            "label",
            element("span", "Filter"),
            element(
                "input",
                type="search",
                id="filter",
                placeholder="words, or val_loss<0.5",
                autocomplete="off",
                spellcheck="false",
                aria_describedby="filter-help",
            ),
        ),
        element(
            "label",
            element("span", "Run"),
            element("select", element("option", "all runs", value=""), id="run"),
        ),
        element(
            "details", element("summary", "Columns"), element("div", boxes, class_="boxes"), id="columns"
        ),
        element("p", id="shown", role="status", class_="dim"),
        element("p", help_text, id="filter-help", class_="dim help"),
        class_="controls js",
    )


def _row(version: Version, place: int, log: Log, columns: Sequence[_Column]) -> Element:
    name = named(version)
    box = element("input", type="checkbox", aria_label=f"Choose {name} to compare")
    cells: dict[str, Content | Iterable[Content]] = {
        "name": [element("a", name, href=address(version))],
        "id": [element("code", version.short_id)],
        "epoch": whole(version.epoch),
        "step": whole(version.step),
        "bytes": size(version.weights.bytes)
        if version.has_weights
        else [element("s", size(version.weights.bytes))],
        "stored": size(version.weights.stored_bytes),
        "created": moment(version.created)[:16],
        "notes": _badges(version, log),
    }
    return element(
        "tr",
        element("td", box, class_="choose js"),
        [
            element(
                "th" if each.key == "name" else "td",
                _metric(version, each.metric, log) if each.metric else cells[each.key],
                scope="row" if each.key == "name" else None,
                class_="right" if each.right else each.key if each.key in ("name", "notes") else None,
                hidden=each.hidden,
            )
            for each in columns
        ],
        id=f"v{place}",
    )


def _metric(version: Version, name: str, log: Log) -> list[Content]:
    told = metric_cell(version, name, log.best)
    if told.text.startswith("*"):
        return [element("b", element("span", "★ ", title="the best"), told.text[1:], class_="best")]
    return [cell(Cell(told.text, told.look))] if told.look else [told.text]


def _badges(version: Version, log: Log) -> list[Content]:
    aliases = log.aliases.get(version.id, ())
    notes = notes_of(version, log)[bool(aliases) :]
    badges: list[Content] = [element("span", clean(each, 64), class_="badge") for each in aliases]
    for each in notes:
        badges += [element("span", each.text, class_=f"note {each.look}".strip()), " "]
    return badges


def address(version: Version) -> str:
    """Return the address inside the page at which its script shows a version."""
    return f"#show={quote(named(version), safe='')}"


def named(version: Version) -> str:
    """Return a version's name, ``run/3``."""
    return f"{clean(version.run, 64)}/{version.number}"
