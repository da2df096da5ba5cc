"""Rendering: values in, plain text out; the pieces that every view is made of."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from typing import Any, Literal, NamedTuple

__all__ = [
    "PLAIN",
    "Cell",
    "Look",
    "Paint",
    "age",
    "clean",
    "clip",
    "clip_painted",
    "columns",
    "count",
    "finite",
    "moment",
    "number",
    "short",
    "size",
    "sizes",
    "width_of",
    "wrapped",
]

Look = Literal["", "bold", "dim", "good", "bad", "id", "name"]
"""How text is told apart; what that is, the view decides."""
_CODES = {"bold": "1", "dim": "2", "good": "32", "bad": "31", "id": "33", "name": "36"}
_PAINT = re.compile(r"(\x1b\[[0-9]*m)")
_END = "\x1b[0m"
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def clean(text: object, limit: int | None = None) -> str:
    """Make text of a store safe for a terminal: one line, and nothing that moves, colours or hides.

    Args:
        text: Any text; labels, metric names and file names may come from a store that a stranger wrote.
        limit: Most characters; what is cut is marked by ``…``.

    Returns:
        The text with control characters, line breaks, bidirectional marks and lone surrogates as escapes.
    """
    one = str(text)
    if limit is not None and len(one) > limit:
        one = one[: limit - 1] + "…"
    if one.isprintable():
        return one
    return "".join(each if each.isprintable() else _escaped(each) for each in one)


def _escaped(character: str) -> str:
    named = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(character)
    code = ord(character)
    return named or (
        f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"
    )


def short(identity: str) -> str:
    """Return the first 12 digits of an id or digest."""
    return clean(identity[:12])


def number(value: object) -> str:
    """Tell a metric's value in about five significant digits."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return clean(value, 24)
    if isinstance(value, int):
        return str(value) if abs(value) < 10**12 else f"{float(value):.4e}"
    if not math.isfinite(value):
        return str(value)
    magnitude = abs(value)
    if value == 0:
        return "0.0000"
    if magnitude < 1e-3 or magnitude >= 1e7:
        return f"{value:.3e}"
    places = 4 if magnitude < 10 else 3 if magnitude < 100 else 2 if magnitude < 1000 else 1
    return f"{value:.{places}f}"


def size(count_of_bytes: int) -> str:
    """Tell a number of bytes in units of a thousand."""
    value, unit = _scaled(count_of_bytes, count_of_bytes)
    return f"{value} {unit}"


def sizes(part: int, whole: int) -> str:
    """Tell a part and a whole, each in the unit that suits it, such as ``6.1 kB/44.8 MB``."""
    return f"{size(part)} / {size(whole)}"


def _scaled(value: int, of: int) -> tuple[str, str]:
    power = 0
    while of >= 999.5 * 1000**power and power < len(_UNITS) - 1:
        power += 1
    scaled = value / 1000**power
    return (f"{scaled:.0f}" if power == 0 or scaled >= 99.95 else f"{scaled:.1f}"), _UNITS[power]


def count(amount: int, one: str, many: str | None = None) -> str:
    """Tell an amount with its noun, ``1 version`` or ``1,797 files``."""
    return f"{amount:,} {one if amount == 1 else many or one + 's'}"


def finite(value: Any) -> Any:
    """Return JSON values with NaN and Inf, for which JSON has no numbers, as the texts nan, inf and -inf."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {str(key): finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(each) for each in value]
    return value


def moment(time: str) -> str:
    """Tell a UTC ISO-8601 time as ``2025-11-24 03:35:12 UTC``."""
    parsed = _parsed(time)
    return clean(time, 40) if parsed is None else f"{parsed:%Y-%m-%d %H:%M:%S} UTC"


def age(time: str, now: datetime) -> str:
    """Tell how long ago a UTC ISO-8601 time was; a date when that is more than 30 days, or in the future."""
    parsed = _parsed(time)
    if parsed is None:
        return clean(time, 16)
    seconds = (now - parsed).total_seconds()
    if seconds < -60 or seconds >= 30 * 86400:
        return f"{parsed:%Y-%m-%d}"
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit} ago"
    return f"{max(seconds, 0):.0f} s ago"


def _parsed(time: str) -> datetime | None:
    try:
        # fromisoformat of Python 3.10 knows no Z.
        parsed = datetime.fromisoformat(time.replace("Z", "+00:00"))
    except (ValueError, AttributeError):
        return None
    return parsed.astimezone(timezone.utc) if parsed.tzinfo else parsed.replace(tzinfo=timezone.utc)


class Paint(NamedTuple):
    """How text is coloured.

    Attributes:
        colour: Whether escape sequences are written at all.
    """

    colour: bool = False

    def __call__(self, text: str, look: Look) -> str:
        """Return the text in a look."""
        return f"\x1b[{_CODES[look]}m{text}\x1b[0m" if self.colour and look and text else text


PLAIN = Paint()


class Cell(NamedTuple):
    """One cell of a table.

    Attributes:
        text: Clean text.
        look: How it is coloured.
    """

    text: str
    look: Look = ""


def width_of(text: str) -> int:
    """Return the columns that text takes on a terminal."""
    if text.isascii():
        return len(text)
    import unicodedata  # only where there is something to look up

    return sum(
        0 if unicodedata.combining(each) else 2 if unicodedata.east_asian_width(each) in "WF" else 1
        for each in text
    )


def clip(text: str, width: int) -> str:
    """Cut clean text to a number of columns; what is cut is marked by ``…``."""
    if width_of(text) <= width:
        return text
    while text and width_of(text) > width - 1:
        text = text[:-1]
    return f"{text}…" if width > 0 else ""


def clip_painted(line: str, width: int) -> str:
    """Cut a painted line to a number of columns; its colours take none, and end with it."""
    if width_of(_PAINT.sub("", line)) <= width:
        return line
    kept, room, end = "", width - 1, ""
    for part in _PAINT.split(line):
        if _PAINT.fullmatch(part):
            kept, end = kept + part, "" if part == _END else _END
            continue
        text = part
        while text and width_of(text) > room:
            text = text[:-1]
        kept, room = kept + text, room - width_of(text)
        if text != part:
            break
    return f"{kept}…{end}" if width > 0 else ""


def columns(
    heads: Sequence[str], rows: Iterable[Sequence[Cell]], *, right: Iterable[str] = (), paint: Paint = PLAIN
) -> list[str]:
    """Align cells under their heads, two spaces apart.

    Args:
        heads: One for each column; a column without any text is left out.
        rows: As many cells each.
        right: Heads of columns aligned to the right.
        paint: How it is coloured.

    Returns:
        One line for the heads and one for each row, without trailing spaces.
    """
    table = [[Cell(head, "dim") for head in heads], *(list(row) for row in rows)]
    kept = [at for at in range(len(heads)) if len(table) == 1 or any(row[at].text for row in table[1:])]
    widths = {at: max(width_of(row[at].text) for row in table) for at in kept}
    to_right = {at for at in kept if heads[at] in set(right)}
    lines = []
    for row in table:
        parts = []
        for at in kept:
            space = " " * (widths[at] - width_of(row[at].text))
            text = paint(row[at].text, row[at].look)
            parts.append(space + text if at in to_right else text + ("" if at == kept[-1] else space))
        lines.append("  ".join(parts).rstrip())
    return lines


def wrapped(words: Iterable[str], *, width: int, indent: str) -> list[str]:
    """Lay words out in lines that begin with an indent, separated by commas."""
    lines: list[str] = []
    line = ""
    for word in words:
        longer = f"{line}, {word}" if line else word
        if line and len(indent) + width_of(longer) > width:
            lines.append(f"{indent}{line},")
            line = word
        else:
            line = longer
    return [*lines, *([indent + line] if line else [])]
