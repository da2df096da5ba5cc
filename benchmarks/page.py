"""The page: results of topics as one Markdown text, which keeps what was measured before of other topics."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.harness import Row, Table

__all__ = ["Result", "missed", "render", "table_lines"]

_MEASURED = re.compile(r"^Measured on (?P<told>.+) \((?P<topics>[^()]+)\)\.$", re.MULTILINE)
_TOPIC = re.compile(r"^<!-- (?P<topic>\w+) -->\n(?P<text>.*?)(?=^<!-- |\Z)", re.MULTILINE | re.DOTALL)
_MISSED = " | **missed** |"
_NOTE = re.compile(r"^\*(?P<figure>[^*]+)\*: .*\n\n?", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Result:
    """What one topic gave.

    Attributes:
        topic: Its name.
        machine: What it was measured on.
        versions: Distribution to version.
        seconds: How long the topic took.
        tables: What was measured.
    """

    topic: str
    machine: Mapping[str, Any]
    versions: Mapping[str, str]
    seconds: float
    tables: tuple[Table, ...]


def render(
    results: Sequence[Result], order: Sequence[str], notes: Mapping[str, str], before: str = ""
) -> str:
    """Return the page.

    Args:
        results: Of topics measured in full.
        order: Names of all topics, in the order of the page.
        notes: What is to be said of missed bars, as in `benchmarks.notes`.
        before: The page as it was: what it says of other topics stays.
    """
    texts = {found["topic"]: found["text"] for found in _TOPIC.finditer(before)}
    told = {
        topic: found["told"] for found in _MEASURED.finditer(before) for topic in found["topics"].split(", ")
    }
    texts |= {result.topic: _text(result.tables) for result in results}
    told |= {result.topic: _machine(result) for result in results}
    machines: dict[str, list[str]] = {}
    for topic in (topic for topic in order if topic in texts):
        machines.setdefault(told[topic], []).append(topic)
    missing = [topic for topic in order if topic not in texts]
    parts = [
        "# Benchmarks",
        "`nox -s bench` measures all of this and writes this page; `nox -s bench -- fit` one topic. "
        "Every figure of ours stands beside its peer's of the same run: the two take turns, each "
        "repetition in a process of its own after a `sync`, and the median is shown with the range "
        "behind it. Peers run for real, with the versions below. A bar is what was to be reached before "
        "anything was measured.",
        *(f"Measured on {machine} ({', '.join(topics)})." for machine, topics in machines.items()),
        *([f"Not measured yet: {', '.join(missing)}."] if missing else ()),
        *(f"<!-- {topic} -->\n{_noted(texts[topic], notes)}" for topic in order if topic in texts),
    ]
    return "\n\n".join(parts) + "\n"


def _text(tables: Iterable[Table]) -> str:
    lines = []
    for table in tables:
        lines += [f"## {table.title}", "", table.about, "", *table_lines(table), ""]
        for note in table.notes:
            lines += [note, ""]
    return "\n".join(lines)


def _noted(text: str, notes: Mapping[str, str]) -> str:
    """Put notes below the tables whose bars are missed, in place of those that were there."""
    sections = []
    for section in re.split(r"^(?=## )", _NOTE.sub("", text), flags=re.MULTILINE):
        title = section.partition("\n")[0].removeprefix("## ")
        figures = [
            line.split(" | ")[0].removeprefix("| ") for line in section.splitlines() if line.endswith(_MISSED)
        ]
        told = [f"*{each}*: {notes[f'{title}: {each}']}" for each in figures if f"{title}: {each}" in notes]
        sections += ["\n\n".join([section.strip(), *told])] if section.strip() else []
    return "\n\n".join(sections)


def _machine(result: Result) -> str:
    place = result.machine
    facts = [
        f"{place['cores']} cores of {place['cpu']}",
        *(f"{place[each]}" for each in ("memory", "file system", "system")),
        f"Python {place['python']}",
        *(f"{name} {version}" for name, version in result.versions.items()),
        f"on {place['date']}",
    ]
    return ", ".join(facts)


def table_lines(table: Table) -> list[str]:
    """Return a table's rows as Markdown."""
    lines = ["| figure | ours | peer | ratio | bar | |", "|---|---|---|---|---|---|"]
    for row in table.rows:
        peer = f"{_number(row.peer, row.unit)} · {row.peer_name}" if row.peer else row.peer_name
        ratio = f"{row.ratio:.2f}" if row.ratio is not None else ""
        cells = (row.figure, _number(row.ours, row.unit), peer, ratio, _bar(row), _verdict(row))
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def missed(table: Table) -> list[str]:
    """Return the names that notes give the figures whose bar is missed."""
    return [f"{table.title}: {row.figure}" for row in table.rows if row.met is False]


def _bar(row: Row) -> str:
    if row.bar is None:
        return ""
    if row.bar_on == "ratio":
        return f"≤ {row.bar:g}"
    return f"≤ {'+' if row.bar_on == 'difference' else ''}{row.bar:g} {row.unit}"


def _verdict(row: Row) -> str:
    return {None: "", True: "met", False: "**missed**"}[row.met]


def _number(values: Sequence[float], unit: str) -> str:
    if not values:
        return ""
    middle, low, high = statistics.median(values), min(values), max(values)
    if _short(low) == _short(high):
        return f"{_short(middle)} {unit}"
    return f"{_short(middle)} {unit} ({_short(low)}–{_short(high)})"


def _short(value: float) -> str:
    if value == int(value) and abs(value) < 1e9:
        return f"{int(value)}"
    size = abs(value)
    digits = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 0.1 else 3
    return f"{value:.{digits}f}"
