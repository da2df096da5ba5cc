"""The guarantee of a resumed run: whether it ends with the bits of one never interrupted, or why not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Guarantee", "changed"]

_LONGEST = 60
_MOST = 6


@dataclass(frozen=True, slots=True)
class Guarantee:
    """What a resumed run promises.

    Attributes:
        reasons: Why the run may end with other bits; empty where it ends with the same.
    """

    reasons: tuple[str, ...] = ()

    @classmethod
    def of(cls, reasons: Iterable[str]) -> Guarantee:
        """Make a guarantee; each reason counts once, in order."""
        return cls(tuple(dict.fromkeys(reasons)))

    @property
    def exact(self) -> bool:
        """Whether nothing is known that could make a difference."""
        return not self.reasons

    def __str__(self) -> str:
        """Tell it: ``exact``, or ``approximate: <reasons>``."""
        return "exact" if self.exact else f"approximate: {'; '.join(self.reasons)}"

    def to_dict(self) -> dict[str, Any]:
        """Tell the guarantee as plain JSON values."""
        return {"guarantee": "exact" if self.exact else "approximate", "reasons": list(self.reasons)}


def changed(
    then: Mapping[str, Any], now: Mapping[str, Any], *, tell: Callable[[Any], str] = str
) -> list[str]:
    """Compare the conditions of a run with those of the one that it goes on from.

    Args:
        then: What, in words, to how it was; plain values, nested in dicts and lists.
        now: The same for how it is.
        tell: Makes text of a value.

    Returns:
        One sentence for each that differs.
    """
    told = []
    for name in [*then, *(name for name in now if name not in then)]:
        before, after = then.get(name), now.get(name)
        if before != after:
            told.append(f"{name} {_difference(before, after, tell)}")
    return told


def _difference(before: Any, after: Any, tell: Callable[[Any], str]) -> str:
    if isinstance(before, Mapping) and isinstance(after, Mapping) and not _is_tagged(before, after):
        names = [
            name for name in {**before, **after} if before.get(name, _LONGEST) != after.get(name, _LONGEST)
        ]
        shown = [f"{name} {_difference(before.get(name), after.get(name), tell)}" for name in names[:_MOST]]
        return f"changed ({', '.join(shown)}{', …' if len(names) > _MOST else ''})"
    return f"was {_shown(before, tell)} and is {_shown(after, tell)}"


def _is_tagged(*values: Mapping[str, Any]) -> bool:
    return any(len(each) == 1 and str(next(iter(each))).startswith("$") for each in values)


def _shown(value: Any, tell: Callable[[Any], str]) -> str:
    if value is None:
        return "nothing"
    text = tell(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
