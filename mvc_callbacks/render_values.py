"""Hyperparameters and other recorded values as text: plain JSON, and tagged trees that nobody makes again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mvc_callbacks.render import clean

__all__ = ["flatten", "hyperparameters", "told"]

_SECTIONS = ("module", "given", "datamodule")
_DEEPEST = 16  # what nests more deeply is somebody's joke, or an attack
_BRACKETS = {"$tuple": "()", "$set": "{}", "$frozenset": "{}"}
_LONGEST_TAG = 120  # of text under a tag: a path or a class, not the base64 of an array


def told(value: Any, limit: int = 200) -> str:
    """Tell a hyperparameter or fact, plain JSON or a tagged tree, on one line."""
    return clean(_told(value), limit)


def _told(value: Any, depth: int = 0) -> str:
    if isinstance(value, str):
        return value
    if depth > _DEEPEST and isinstance(value, (Mapping, list, tuple)):
        return "…"
    deeper = depth + 1
    if isinstance(value, Mapping):
        if len(value) == 1:
            ((tag, inner),) = value.items()
            if isinstance(tag, str) and tag.startswith("$"):
                return _told_tag(tag, inner, deeper)
        return "{" + ", ".join(f"{key}: {_told(each, deeper)}" for key, each in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_told(each, deeper) for each in value) + "]"
    try:
        return json.dumps(value)
    except (TypeError, ValueError):
        return repr(value)


def _told_tag(tag: str, inner: Any, depth: int) -> str:
    """Tell a tagged value (see `tree`); what is not known here is told as it stands."""
    if tag == "$masked":
        return "(masked)"
    if isinstance(inner, str):
        return inner if len(inner) <= _LONGEST_TAG or tag in ("$path", "$purepath") else f"({tag[1:]})"
    if isinstance(inner, list):
        if tag in _BRACKETS:
            return _BRACKETS[tag][0] + ", ".join(_told(each, depth) for each in inner) + _BRACKETS[tag][1]
        if tag == "$untold" and inner:
            return f"(not told: {_told(inner[0], depth)})"
        if tag == "$enum" and len(inner) == 3:
            return f"{_told(inner[0], depth).rpartition('.')[2]}.{_told(inner[1], depth)}"
        if tag in ("$datetime", "$time", "$object") and len(inner) == 2:
            return _told(inner[tag == "$object"], depth)
        pairs = _pairs({tag: inner})
        if pairs is not None:
            return "{" + ", ".join(f"{key}: {_told(each, depth)}" for key, each in pairs) + "}"
    return f"{tag[1:]} {_told(inner, depth)}"


def flatten(value: Any, prefix: str = "", depth: int = 0) -> dict[str, Any]:
    """Lay a nested mapping out as ``{"optimizer.lr": 0.1}``; tagged values stay whole.

    Args:
        value: Plain JSON or a tagged tree, where an ordered dict is ``{"$dict": [[key, value], ...]}``.
        prefix: The path so far.
        depth: How deep that is; what nests very deeply stays whole.

    Returns:
        Path to leaf, in the order of the mapping.
    """
    pairs = _pairs(value) if depth <= _DEEPEST else None
    if pairs is None or (not pairs and prefix):
        return {prefix or "value": value}
    flat: dict[str, Any] = {}
    for key, each in pairs:
        flat.update(flatten(each, f"{prefix}.{key}" if prefix else key, depth + 1))
    return flat


def _pairs(value: Any) -> list[tuple[str, Any]] | None:
    """Return the named values of a plain or a tagged mapping, or None for what is one value."""
    if not isinstance(value, Mapping):
        return None
    if len(value) == 1:
        ((tag, inner),) = value.items()
        if tag == "$omegaconf":
            return _pairs(inner)
        if (
            tag in ("$defaultdict", "$dataclass", "$namespace", "$object")
            and isinstance(inner, list)
            and len(inner) == 2
        ):
            inner = inner[1]
            if tag == "$object":
                return _pairs(inner)
            tag = "$dict"
        if tag in ("$dict", "$ordereddict", "$counter") and _is_pairs(inner):
            return [(_told(key), each) for key, each in inner]
    return (
        None if any(str(key).startswith("$") for key in value) else [(str(key), value[key]) for key in value]
    )


def _is_pairs(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in value)


def hyperparameters(tree: Any) -> dict[str, Any]:
    """Lay out the hyperparameters of a record.

    Args:
        tree: What the record has: the trees of the module, of the datamodule and of what the user gave.

    Returns:
        Dotted path to tagged value: the module's, then what the user gave, which wins. A datamodule's that
        has the name of another value is called ``datamodule.<name>``.
    """
    if not isinstance(tree, Mapping) or not any(isinstance(tree.get(each), Mapping) for each in _SECTIONS):
        return flatten(tree) if tree else {}
    laid: dict[str, Any] = {}
    for section in ("module", "given"):
        laid.update(flatten(tree.get(section) or {}))
    for name, value in flatten(tree.get("datamodule") or {}).items():
        laid[f"datamodule.{name}" if laid.get(name, value) != value else name] = value
    others = {name: each for name, each in tree.items() if name not in _SECTIONS}
    return {**laid, **flatten(others)}
