"""Versions as HTML: the table of several, and everything of one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from xml.etree.ElementTree import Element

from mvc_callbacks.render import Cell, clean, moment, short, size
from mvc_callbacks.render_html import Content, element, facts, rows_table, section, table
from mvc_callbacks.render_lists import RunLine, run_cells
from mvc_callbacks.render_tables import Log, marks, metric_cell, metrics_of, notes_of, whole
from mvc_callbacks.render_values import flatten
from mvc_callbacks.render_version import (
    HOW,
    Page,
    data_lines,
    evaluation_lines,
    exact,
    known_facts,
    state_lines,
    weights_lines,
)

__all__ = ["log_html", "runs_html", "version_html"]

_MOST_METRICS = 6
_LONGEST_FACT = 400
_LONGEST_NAME = 24


def log_html(log: Log) -> Element:
    """Tell versions, one a row, in the log's order."""
    wanted, others = (list(log.metrics), []) if log.metrics else metrics_of(log.versions)
    metrics = [*wanted, *others[: max(0, _MOST_METRICS - len(wanted))]]
    names = [clean(name, _LONGEST_NAME) for name in metrics]
    heads = ["VERSION", "ID", "EPOCH", "STEP", *names, "WEIGHTS", "STORED", "SAVED", "NOTES"]
    rows: list[list[Content | Sequence[Content]]] = [
        [
            Cell(f"{clean(each.run, 64)}/{each.number}", "name"),
            Cell(each.short_id, "id"),
            whole(each.epoch),
            whole(each.step),
            *(metric_cell(each, name, log.best) for name in metrics),
            Cell(size(each.weights.bytes), "" if each.has_weights else "dim"),
            size(each.weights.stored_bytes),
            Cell(moment(each.created)[:16], "dim"),
            _badges(log.aliases.get(each.id, ()), notes_of(each, log)),
        ]
        for each in log.versions
    ]
    return table(heads, rows, right={"EPOCH", "STEP", *names, "WEIGHTS", "STORED", "SAVED"})


def _badges(aliases: Sequence[str], notes: Sequence[Cell]) -> list[Content]:
    """Lay notes out with the aliases, which come first among them, as badges."""
    badges: list[Content] = [element("span", clean(name, 64), class_="mvc-badge") for name in aliases]
    return [*badges, *notes[bool(aliases) :]]


def runs_html(runs: Sequence[RunLine]) -> Element:
    """Tell runs, one a row for each chain of resumed ones."""
    heads, rows, right = run_cells(runs)
    return table(heads, rows, right=right)


def version_html(page: Page) -> Element:
    """Tell everything of a version; the longest parts are folded."""
    version = page.version
    code: Mapping[str, Any] = {} if page.trouble else version.code
    environment: Mapping[str, Any] = {} if page.trouble else version.environment
    packages = environment.get("packages")
    packages = packages if isinstance(packages, dict) else {}
    others = {name: each for name, each in environment.items() if name != "packages" or not packages}
    given = known_facts(page.hyperparameters, _LONGEST_FACT)
    run, more = known_facts(flatten(page.run), _LONGEST_FACT), known_facts(flatten(page.more), _LONGEST_FACT)
    notes = [element("div", each.text, " ", Cell(_by(each.time, each.who), "dim")) for each in version.notes]
    return element(
        "div",
        _title(page),
        rows_table(_head(page)),
        _part("notes", notes),
        _part("metrics", [_metrics(page)] if version.metrics else []),
        _part("evaluations", _lines(evaluation_lines(version))),
        _part(f"hyperparameters ({len(given)})", [facts(given)] if given else []),
        _part("data", _lines(data_lines(page))),
        _part("weights", _lines(weights_lines(version))),
        _part("training state", _lines(state_lines(version))),
        _part("code", _facts(flatten(code)), open_=False),
        _part("run", [facts(run)] if run else [], open_=False),
        _part("more", [facts(more)] if more else [], open_=False),
        _part("environment", _facts(flatten(others)), open_=False),
        _part(f"packages ({len(packages)})", _facts(packages), open_=False),
        [Cell(f"the rest cannot be read: {clean(page.trouble, 400)}", "bad")] if page.trouble else [],
    )


def _title(page: Page) -> Element:
    version = page.version
    badges = [element("span", clean(name, 64), class_="mvc-badge") for name in page.aliases]
    return element(
        "div",
        *(Cell(f"{clean(version.run, 64)}/{version.number}", "name"), " "),
        *(Cell(version.short_id, "id"), " ", badges, [Cell(each, "bad") for each in marks(version)]),
        class_="mvc-title",
    )


def _head(page: Page) -> Iterable[Sequence[Content | Sequence[Content]]]:
    version = page.version
    yield Cell("id", "dim"), Cell(version.id, "id")
    yield Cell("trained with", "dim"), clean(version.framework, 40)
    yield Cell("created", "dim"), moment(version.created)
    place = [f"epoch {version.epoch}"] if version.epoch is not None else []
    place += [f"step {version.step}"] if version.step is not None else []
    if place:
        yield Cell("after", "dim"), ", ".join(place)
    for parent in version.parents:
        known = page.parents.get(parent.id)
        where = "(not in this store)" if known is None else f"{clean(known.run, 64)}/{known.number}"
        how = HOW.get(parent.how, clean(parent.how, 40))
        shared = f", {clean(parent.shared, 40)} tensors shared" if parent.shared else ""
        yield (
            Cell("parent", "dim"),
            [Cell(where, "name" if known else "bad"), Cell(short(parent.id), "id"), f"({how}{shared})"],
        )
    for gone in version.pruned:
        yield (
            Cell("pruned", "dim"),
            f"{clean(gone.what, 20)}, {moment(gone.time)}, by {clean(gone.policy, 120)}",
        )


def _metrics(page: Page) -> Element:
    version, watched = page.version, page.version.monitor
    first = [watched.name] if watched is not None and watched.name in version.metrics else []
    rows: list[list[Content]] = []
    for name in dict.fromkeys([*first, *sorted(version.metrics)]):
        note = f"monitored, {clean(watched.mode, 8)}" if watched is not None and name == watched.name else ""
        best = Cell("the best", "good") if name in page.best else Cell("")
        rows.append([Cell(clean(name, 80), "dim"), exact(version.metrics[name]), Cell(note, "dim"), best])
    return rows_table(rows)


def _by(time: str, who: str) -> str:
    return ", ".join(each for each in (moment(time), clean(who, 64)) if each)


def _part(name: str, inside: Sequence[Content], *, open_: bool = True) -> list[Content]:
    return [section(name, inside, open_=open_)] if inside else []


def _facts(told_of: Mapping[str, Any]) -> list[Content]:
    known = known_facts(told_of, _LONGEST_FACT)
    return [facts(known)] if known else []


def _lines(lines: Iterable[str]) -> list[Content]:
    """Lay plain lines out as they are on a terminal, where two spaces mean that one belongs to that above."""
    return [
        element("div", line.strip(), style="margin-left: 2em" if line.startswith("  ") else None)
        for line in lines
    ]
