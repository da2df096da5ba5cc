"""Checks of arguments that the callbacks of all frameworks share."""

from __future__ import annotations

from collections.abc import Sequence

from mvc_callbacks.errors import Misconfigured

__all__ = ["check_choice", "check_keep", "names_of"]


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Refuse a value that is none of the choices."""
    if value not in choices:
        raise Misconfigured(f"{name}={value!r} is not possible: choose {' or '.join(map(repr, choices))}")


def check_keep(keep: object) -> None:
    """Refuse a ``keep_training_state`` that is neither a count nor ``"all"``."""
    count = isinstance(keep, int) and not isinstance(keep, bool) and keep >= 0
    if not count and keep != "all":
        raise Misconfigured(
            f"keep_training_state={keep!r} is not possible: give a number of versions, or 'all'"
        )


def names_of(name: str, given: Sequence[str]) -> tuple[str, ...]:
    """Return several names; a single one may be given as it is, and is no list of its letters."""
    names = (given,) if isinstance(given, str) else tuple(given)
    for each in names:
        if not isinstance(each, str):
            raise Misconfigured(f"{name}={given!r} is not possible: give a list of names")
    return names
