"""Retention: which versions a rule of pruning chooses."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

from mvc_callbacks.errors import Misconfigured
from mvc_callbacks.history import Row

__all__ = ["choose"]


def choose(
    rows: Sequence[Row],
    *,
    keep_last: int | None,
    keep_best: int | None,
    keep_every: int | None,
    older_than: str | None,
    named: Collection[str] | None = None,
) -> list[Row]:
    """Return the versions that no rule keeps.

    Args:
        rows: Versions, oldest first, of one run or several; the rules count in each run for itself.
        keep_last: Keep the newest so many of each run.
        keep_best: Keep the best so many of each run, by what the run watched.
        keep_every: Keep versions whose number is a multiple.
        older_than: Choose only what was made before this time (UTC ISO-8601).
        named: Keep these: ids of versions that an alias has pointed to.

    Returns:
        The chosen ones.

    Raises:
        Misconfigured: If there is no rule, or one is negative.
    """
    rules: Mapping[str, int | None] = {
        "keep_last": keep_last,
        "keep_best": keep_best,
        "keep_every": keep_every,
    }
    if all(rule is None for rule in rules.values()) and older_than is None and named is None:
        raise Misconfigured(
            "say what to prune: refs, or a rule such as keep_last=5, keep_best=3, keep_every=10, "
            "keep_alias='production', older_than='30d' (--keep-last 5)"
        )
    for name, rule in rules.items():
        if rule is not None and rule < (1 if name == "keep_every" else 0):
            raise Misconfigured(f"{name}={rule} keeps no sensible number of versions")
    by_run: dict[str, list[Row]] = {}
    for row in rows:
        by_run.setdefault(row["run"], []).append(row)
    kept: set[str] = set(named or ())
    for each in by_run.values():
        kept |= {row["id"] for row in (each[-keep_last:] if keep_last else [])}
        kept |= {row["id"] for row in _best(each, keep_best or 0)}
        kept |= {row["id"] for row in each if keep_every is not None and row["number"] % keep_every == 0}
    return [
        row for row in rows if row["id"] not in kept and (older_than is None or row["created"] < older_than)
    ]


def _best(rows: list[Row], count: int) -> list[Row]:
    watched = [
        row
        for row in rows
        if row["monitor"] and isinstance(row["metrics"].get(row["monitor"][0]), (int, float))
    ]
    if not watched:
        return rows if count else []  # nothing says which is best: lose nothing
    name, mode = watched[-1]["monitor"]
    scored = [
        row for row in watched if row["monitor"] == [name, mode] and not math.isnan(row["metrics"][name])
    ]
    sign = 1 if mode == "min" else -1
    return sorted(scored, key=lambda row: (sign * row["metrics"][name], row["number"]))[:count]
