"""Row checks: what a row of the history must be before it is believed."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

__all__ = ["Row", "check_row", "is_fingerprint"]

_MODES = ("min", "max")
Row = dict[str, Any]
_TYPES: Mapping[str, tuple[type, ...]] = {
    "id": (str,),
    "run": (str,),
    "number": (int,),
    "sequence": (int,),
    "created": (str,),
    "framework": (str,),
    "epoch": (int, type(None)),
    "step": (int, type(None)),
    "metrics": (dict,),
    "monitor": (list, type(None)),
    "parents": (list,),
    "weights": (dict,),
    "state": (dict, type(None)),
    "data": (dict,),
    "evaluations": (list,),
    "pruned": (list,),
    "flags": (list,),
}

_TEXT_OR_NONE = (str, type(None))
_FINGERPRINT: Mapping[str, tuple[type, ...]] = {
    "digest": _TEXT_OR_NONE,
    "coverage": (str,),
    "files": (int,),
    "bytes": (int,),
    "how": (str,),
    "scheme": (str,),
    "listing": _TEXT_OR_NONE,
    "problems": (list,),
}
_UNTOLD = {"files": 0, "bytes": 0, "how": "", "scheme": "", "problems": []}
_NESTED: Mapping[str, Mapping[str, tuple[type, ...]]] = {
    "parents": {"id": (str,), "how": (str,), "shared": _TEXT_OR_NONE, "elsewhere": (bool, type(None))},
    "weights": {"digest": (str,), "tensors": (int,), "bytes": (int,), "stored_bytes": (int,)}
    | {"of": (str,), "nonfinite": (bool,), "additions": _TEXT_OR_NONE},
    "state": {"tree": (str,), "digest": (str,), "tensors": (int,), "bytes": (int,), "untold": (list,)},
    "evaluations": {"id": (str,), "time": (str,), "kind_of": (str,), "metrics": (dict,), "data": (dict,)},
    "pruned": {"what": (str,), "time": (str,), "policy": (str,)},
    "data": _FINGERPRINT,
}
_LISTED = ("parents", "weights", "state", "evaluations", "pruned")
_SHAPES = 1024


def check_row(row: Row) -> None:
    """Refuse a row whose fields are of other types than those that are written.

    Raises:
        ValueError: Naming the first one.
    """
    _refuse(_fault_of_row(tuple(row), tuple(map(type, row.values()))))
    notes = row.get("notes", [])  # rows have them only since there are some
    if not isinstance(notes, list) or not all(
        isinstance(each, dict)
        and set(each) == {"id", "time", "text", "who"}
        and all(isinstance(value, str) for value in each.values())
        for each in notes
    ):
        raise ValueError("its 'notes' are of a wrong type")
    if row["number"] < 1:
        raise ValueError("its number is less than 1")
    monitor = row["monitor"]
    if monitor is not None and not (
        len(monitor) == 2 and isinstance(monitor[0], str) and monitor[1] in _MODES
    ):
        raise ValueError("its monitor is no metric with 'min' or 'max'")
    for name in _LISTED:
        told = row[name]
        for each in told if isinstance(told, list) else [] if told is None else [told]:
            _check_fields(each, name)
    for data in (row["data"], *(each["data"] for each in row["evaluations"])):
        for each in data.values():
            _check_fields({**_UNTOLD, **each} if isinstance(each, dict) else each, "data")
    if not all(isinstance(each, str) for each in row["flags"]):
        raise ValueError("its 'flags' are no text")


def is_fingerprint(told: Any) -> bool:
    """Tell whether a value has the fields of a fingerprint."""
    try:
        _check_fields({**_UNTOLD, **told} if isinstance(told, dict) else told, "data")
    except ValueError:
        return False
    return True


def _check_fields(told: Any, name: str) -> None:
    if not isinstance(told, dict):
        raise ValueError(f"its {name!r} is not told as an object")
    _refuse(_fault_of_field(name, tuple(told), tuple(map(type, told.values()))))


def _refuse(fault: str | None) -> None:
    if fault is not None:
        raise ValueError(fault)


# Rows are of few shapes, and there may be 100 000 rows: each shape is looked at once.
@functools.lru_cache(_SHAPES)
def _fault_of_row(names: tuple[str, ...], types: tuple[type, ...]) -> str | None:
    found = dict(zip(names, types, strict=True))
    for name, kinds in _TYPES.items():
        if name not in found or not _is_of(found[name], kinds):
            return f"its {name!r} is missing or of a wrong type"
    return None


@functools.lru_cache(_SHAPES)
def _fault_of_field(name: str, names: tuple[str, ...], types: tuple[type, ...]) -> str | None:
    found = dict(zip(names, types, strict=True))
    for name_of, kinds in _NESTED[name].items():
        if name_of not in found and type(None) in kinds and name != "weights":
            continue
        if not _is_of(found.get(name_of, type(None)), kinds):
            return f"its {name!r} has a {name_of!r} that is missing or of a wrong type"
    return None


def _is_of(found: type, kinds: tuple[type, ...]) -> bool:
    return issubclass(found, kinds) and (found is not bool or bool in kinds)
