"""Metrics: what of a framework's values is one number each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

__all__ = ["scalars_of"]


def scalars_of(metrics: Mapping[str, Any] | None) -> dict[str, float]:
    """Return those metrics that are one number each.

    Args:
        metrics: Name to a number, or to a tensor or array of any framework. What has more values than one, or
            is no real number, is left out.
    """
    found = ((str(name), _number(value)) for name, value in (metrics or {}).items())
    return {name: number for name, number in found if number is not None}


def _number(value: Any) -> float | None:
    if isinstance(value, str | bytes):
        return None
    try:
        if math.prod(getattr(value, "shape", ())) != 1:
            return None
        while tuple(getattr(value, "shape", ())):  # numpy no longer makes a number of an array of one
            value = value[0]
        return float(value)
    except (TypeError, ValueError, RuntimeError):  # complex, nested, on the meta device
        return None
