"""Times as people type them: a date, a moment, or how long ago."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

from mvc_callbacks.errors import Misconfigured

__all__ = ["point_in_time"]

_AGO = re.compile(r"(\d{1,6})\s*(s|sec|seconds?|min|minutes?|h|hours?|d|days?|w|weeks?)(?:\s*ago)?")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def point_in_time(given: str | datetime | timedelta, now: datetime) -> str:
    """Return the UTC time that is meant, in the form in which versions tell when they were made.

    Args:
        given: A time, an age, or a text: ``2025-11-24``, ``2025-11-24T08:30``, ``yesterday``, ``today``, or
            an age as ``45min``, ``6h``, ``3d``, ``2w``. Without a zone it is UTC, as is all that is shown.
        now: The time that ages are counted from.

    Raises:
        Misconfigured: If it is none of these.
    """
    if isinstance(given, str):
        return _told(_parse(given, now))
    if isinstance(given, timedelta):
        try:
            return _told(now - given)
        except OverflowError:
            raise Misconfigured(f"{given} is longer ago than there are dates") from None
    return _told(given)


def _parse(text: str, now: datetime) -> datetime:
    low = text.strip().lower()
    ago = _AGO.fullmatch(low)
    try:
        if ago is not None:
            return now - timedelta(seconds=int(ago[1]) * _SECONDS[ago[2][0]])
        if low in ("today", "yesterday"):
            return now.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=low == "yesterday")
        # fromisoformat of Python 3.10 knows no Z.
        return datetime.fromisoformat(re.sub(r"\s*(z|utc)$", "+00:00", low).upper())
    except (ValueError, OverflowError):
        raise Misconfigured(
            f"{text!r:.60} is no time: give a date such as 2025-11-24 or 2025-11-24T08:30 (UTC), or "
            "an age: 45min, 6h, 3d, 2w"
        ) from None


def _told(found: datetime) -> str:
    found = found.replace(tzinfo=timezone.utc) if found.tzinfo is None else found.astimezone(timezone.utc)
    return f"{found:%Y-%m-%dT%H:%M:%S.%f}Z"
