"""Markers: what a tree gives back in the place of a value that is not, or must not be, made again."""

from __future__ import annotations

import argparse
import types
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Marker", "Masked", "Tagged", "Untold", "find_markers", "without_markers"]


class Marker:
    """Base of every marker; nothing that a program wants to use as a value."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Untold(Marker):
    """A value that could not be told.

    Attributes:
        type_name: Module and qualified name of its type.
        text: The beginning of its ``repr``.
    """

    type_name: str
    text: str = ""

    def __repr__(self) -> str:
        return f"<untold {self.type_name}: {self.text}>" if self.text else f"<untold {self.type_name}>"


@dataclass(frozen=True, slots=True)
class Masked(Marker):
    """A value that was not recorded because its name tells that it is a secret."""

    def __repr__(self) -> str:
        return "<masked>"


@dataclass(frozen=True, slots=True)
class Tagged(Marker):
    """A value whose code would have to be imported: it is told, but never made again.

    Attributes:
        kind: ``enum``, ``dataclass``, ``class``, ``function``, ``partial``, ``torch`` or ``numpy``.
        name: Module and qualified name of what it is an instance of, or of the thing itself.
        value: What is known of it: an enum's value, a dataclass's fields, ... or None.
    """

    kind: str
    name: str
    value: Any = None

    def __repr__(self) -> str:
        return (
            f"<{self.kind} {self.name}>"
            if self.value is None
            else f"<{self.kind} {self.name}: {self.value!r}>"
        )

    def __hash__(self) -> int:
        return hash((self.kind, self.name))  # a value may be a dict; an enum may be the key of one


def find_markers(value: Any, path: str = "") -> Iterator[tuple[str, Marker]]:
    """Find the markers in a decoded tree.

    Yields:
        Dotted path and marker; what is inside of a marker is not looked at.
    """
    if isinstance(value, Marker):
        yield path, value
    elif isinstance(value, Mapping):
        for key, each in value.items():
            if isinstance(key, Marker):
                yield path, key
            yield from find_markers(each, f"{path}.{key}" if path else str(key))
    elif isinstance(value, (argparse.Namespace, types.SimpleNamespace)):
        yield from find_markers(vars(value), path)
    elif isinstance(value, (Sequence, set, frozenset)) and not isinstance(
        value, (str, bytes, bytearray, range)
    ):
        for index, each in enumerate(value):
            yield from find_markers(each, f"{path}.{index}" if path else str(index))


def without_markers(value: Any) -> Any:
    """Take the markers out of a decoded tree: mappings and sets lose them, elsewhere None stands for them.

    Args:
        value: Changed in place where it can be.
    """
    if isinstance(value, Marker):
        return None
    if next(find_markers(value), None) is None:
        return value
    if isinstance(value, MutableMapping):
        for key in list(value):
            if isinstance(key, Marker) or isinstance(value[key], Marker):
                del value[key]
            else:
                value[key] = without_markers(value[key])
    elif isinstance(value, (argparse.Namespace, types.SimpleNamespace)):
        without_markers(vars(value))
    elif isinstance(value, (set, frozenset)):
        return type(value)(each for each in value if not isinstance(each, Marker))
    elif isinstance(value, Sequence):
        rest = [without_markers(each) for each in value]
        return tuple(rest) if isinstance(value, tuple) else rest
    return value
