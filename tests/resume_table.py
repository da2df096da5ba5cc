"""The table of docs/resume.md: every framework's scenarios write their rows into a part of it."""

from __future__ import annotations

from pathlib import Path

__all__ = ["COLUMNS", "HEAD", "update"]

HEAD = """# Resuming

What a training ends with when it is interrupted and resumed in a new process, compared with the same
training left alone. `nox -s resume` writes these tables: each row was trained straight; interrupted, and
resumed in a new process with another seed (under DDP with the same one, as the order of the data is made of
it); and once more with the framework's stock `ModelCheckpoint`, where that can be done. *Promised* is what
the run's record and the log say before training goes on; *ended* is how the weights then were, bit for bit.
`approximate` promises nothing, so the bits may be the same by chance.
"""
COLUMNS = (
    "scenario",
    "loader",
    "precision",
    "optimizer",
    "accumulate",
    "interrupted",
    "ranks",
    "promised",
    "ended",
    "stock",
)


def update(target: Path, part: str, order: list[str], rows: dict[str, str]) -> None:
    """Write rows into a part of the table, beside what stands there already.

    Args:
        target: The document; it is begun if it is not there.
        part: The heading of the part, such as ``Lightning``.
        order: The names of all scenarios of that part; rows of others go.
        rows: Name to row.
    """
    text = target.read_text("utf-8") if target.exists() else HEAD
    _, *sections = text.split("\n## ")
    parts = {heading: body for heading, _, body in (each.partition("\n") for each in sections)}
    known = {_name(line): line for line in parts.get(part, "").splitlines() if line.startswith("| ")}
    known.update(rows)
    head = [f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS)]
    parts[part] = "\n".join(["", *head, *(known[name] for name in order if name in known)])
    sections = [f"\n## {heading}\n{parts[heading].rstrip()}\n" for heading in sorted(parts, reverse=True)]
    target.write_text(HEAD + "".join(sections), "utf-8")


def _name(row: str) -> str:
    return row.split("|")[1].strip()
