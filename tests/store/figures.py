"""Writes what a run of torture, or of fuzzing, has tried into docs/reliability.md, between its marks."""

from __future__ import annotations

import json
import platform
import sys
from collections import Counter
from datetime import datetime, timezone
from pathlib import Path

LAST = {
    "figures": "acknowledged versions lost, or other bits than were saved",
    "fuzz": "inputs that ended otherwise than accepted or refused, or took more than a second",
}


def write(document: Path, mark: str, told: Path, share: str, seconds: float) -> None:
    """Replace figures of a document.

    Args:
        document: The document; it has both marks.
        mark: ``figures`` or ``fuzz``.
        told: What the tests told, one JSON line each.
        share: What was done, in words.
        seconds: How long it took.
    """
    begin, end = f"<!-- {mark}: begin -->", f"<!-- {mark}: end -->"
    figures: Counter[str] = Counter()
    for line in told.read_text("utf-8").splitlines():
        name, count = json.loads(line)
        figures[name] += count
    text = document.read_text("utf-8")
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    lines = [
        f"Run ended {datetime.now(timezone.utc):%Y-%m-%d}: {share}, "
        f"{seconds / 60:.0f} minutes, Python {platform.python_version()}, {platform.system()}.",
        "",
        "| tried | number |",
        "|---|---:|",
        *(f"| {name} | {count:_} |" for name, count in sorted(figures.items())),
        f"| **{LAST[mark]}** | **0** |",
    ]
    document.write_text(before + begin + "\n" + "\n".join(lines) + "\n" + end + after, "utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), sys.argv[4], float(sys.argv[5]))
