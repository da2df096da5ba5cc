"""The page: results of topics, kept as JSON in a folder, as one Markdown text."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness import Row, Table

__all__ = ["Result", "load", "missed", "render", "table_lines"]

RESULTS = Path(__file__).parent.parent / ".benchmarks"
"""Where each topic's last results lie, so that topics can be measured one by one; git does not see it."""


@dataclass(frozen=True, slots=True)
class Result:
    """What one topic gave.

    Attributes:
        topic: Its name.
        machine: What it was measured on.
        versions: Distribution to version.
        seconds: How long the topic took.
        quick: Whether it only looked whether everything runs; such results are on no page.
        tables: What was measured.
    """

    topic: str
    machine: Mapping[str, Any]
    versions: Mapping[str, str]
    seconds: float
    quick: bool
    tables: tuple[Table, ...]

    def save(self, folder: Path = RESULTS) -> None:
        """Keep it as the topic's last result."""
        folder.mkdir(exist_ok=True)
        told = {
            "topic": self.topic,
            "machine": self.machine,
            "versions": self.versions,
            "seconds": self.seconds,
            "quick": self.quick,
            "tables": [table.to_dict() for table in self.tables],
        }
        (folder / f"{self.topic}.json").write_text(json.dumps(told, indent=1), "utf-8")


def load(folder: Path = RESULTS) -> list[Result]:
    """Return the last result of every topic that was measured in full."""
    results = []
    for path in sorted(folder.glob("*.json")):
        told = json.loads(path.read_text("utf-8"))
        if not told["quick"]:
            tables = tuple(Table.from_dict(table) for table in told.pop("tables"))
            results.append(Result(**told, tables=tables))
    return results


def render(results: Sequence[Result], order: Sequence[str], notes: Mapping[str, str]) -> str:
    """Return the page.

    Args:
        results: Of topics measured in full.
        order: Names of all topics, in the order of the page.
        notes: What is to be said of missed bars, as in `benchmarks.notes`.
    """
    known = {result.topic: result for result in results}
    lines = [
        "# Benchmarks",
        "",
        "`nox -s bench` measures all of this and writes this page; `nox -s bench -- fit` one topic. "
        "Every figure of ours stands beside its peer's of the same run: the two take turns, each "
        "repetition in a process of its own after a `sync`, and the median is shown with the range "
        "behind it. Peers run for real, with the versions below. A bar is what was to be reached before "
        "anything was measured.",
        "",
    ]
    for told, topics in _machines(results).items():
        lines += [f"Measured on {told} ({', '.join(topics)}).", ""]
    missing = [topic for topic in order if topic not in known]
    if missing:
        lines += [f"Not measured yet: {', '.join(missing)}.", ""]
    for topic in order:
        for table in known[topic].tables if topic in known else ():
            lines += [f"## {table.title}", "", table.about, "", *table_lines(table), ""]
            for note in (*table.notes, *_told(table, notes)):
                lines += [note, ""]
    return "\n".join(lines).rstrip() + "\n"


def _machines(results: Sequence[Result]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for result in results:
        place = result.machine
        facts = [
            f"{place['cores']} cores of {place['cpu']}",
            *(f"{place[each]}" for each in ("memory", "file system", "system")),
            f"Python {place['python']}",
            *(f"{name} {version}" for name, version in result.versions.items()),
            f"on {place['date']}",
        ]
        found.setdefault(", ".join(facts), []).append(result.topic)
    return found


def table_lines(table: Table) -> list[str]:
    """Return a table's rows as Markdown."""
    lines = ["| figure | ours | peer | ratio | bar | |", "|---|---|---|---|---|---|"]
    for row in table.rows:
        peer = f"{_number(row.peer, row.unit)} · {row.peer_name}" if row.peer else row.peer_name
        ratio = f"{row.ratio:.2f}" if row.ratio is not None else ""
        cells = (row.figure, _number(row.ours, row.unit), peer, ratio, _bar(row), _verdict(row))
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def missed(table: Table) -> dict[str, str]:
    """Return the figures whose bar is missed, by the names that notes have."""
    return {f"{table.title}: {row.figure}": row.figure for row in table.rows if row.met is False}


def _told(table: Table, notes: Mapping[str, str]) -> list[str]:
    """Return the notes of missed bars; one that is met by now needs none."""
    return [f"*{figure}*: {notes[name]}" for name, figure in missed(table).items() if name in notes]


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
