"""Hidden state: plain attributes of objects that take part in training, which no version holds."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Mapping
from types import FunctionType
from typing import Any

__all__ = ["Watch", "tokens_of"]

_LONGEST = 1 << 20  # bytes of an array that are looked at
_MOST = 64  # values of a container
_SHOWN = 5


class Watch:
    """Notices which attributes of some objects have changed since they were seen first.

    Args:
        skip: Names of attributes that a framework changes by itself.
    """

    def __init__(self, skip: frozenset[str] = frozenset()) -> None:
        self._seen: dict[str, dict[str, Any]] = {}
        self._skip = skip

    def begin(self, watched: Mapping[str, Any]) -> None:
        """Remember how the objects are now.

        Args:
            watched: What, in words, to object.
        """
        self._seen = {name: tokens_of(each) for name, each in watched.items()}

    def changes(self, watched: Mapping[str, Any]) -> list[str]:
        """Return one sentence for each object that is not as it was; another object begins without a past."""
        told = []
        for name, each in watched.items():
            now, before = tokens_of(each), self._seen.get(name, {})
            if before.get("") != now[""]:
                self._seen[name] = now
                continue
            names = [key for key in now if key not in self._skip and before.get(key) != now[key]]
            if names:
                told.append(f"{name} changes {', '.join(names[:_SHOWN])}, which no version holds")
        return told


def tokens_of(value: Any) -> dict[str, Any]:
    """Return what a later call can be compared with, in the same process only.

    Returns:
        Attribute to token; the object itself has the name "". What nobody could compare is left out.
    """
    found: dict[str, Any] = {"": id(value)}
    for name, each in list(getattr(value, "__dict__", {}).items()):
        if not name.startswith(("_", "trainer")) and name != "training":
            token = _token(each, 0)
            if token is not None:
                found[name] = token
    return found


def _token(value: Any, depth: int) -> Any:
    if isinstance(value, bool | int | float | str | bytes | None):
        return repr(value)
    torch, numpy = sys.modules.get("torch"), sys.modules.get("numpy")
    if torch is not None and isinstance(value, torch.Tensor):
        return ("tensor", value.data_ptr(), value._version)
    if numpy is not None and isinstance(value, numpy.ndarray):
        return _of_array(value)
    if type(value).__module__.startswith("tensorflow.") and callable(getattr(value, "assign", None)):
        return _of_array(value.numpy())
    if isinstance(value, FunctionType):
        return _of_closure(value, depth)
    if depth < 3 and isinstance(value, list | tuple | set | frozenset | dict):
        inside = value.items() if isinstance(value, dict) else value
        head = [_token(each, depth + 1) for _, each in zip(range(_MOST), inside, strict=False)]
        return (type(value).__name__, len(value), repr(head))
    return None


def _of_array(value: Any) -> Any:
    if value.dtype.hasobject:
        return ("array", str(value.shape), repr(value.flat[:_MOST].tolist()))
    head = value.flat[
        : _LONGEST // max(value.itemsize, 1)
    ]  # a copy: what is shuffled in place stays the same object
    return ("array", str(value.shape), zlib.crc32(head.tobytes()))


def _of_closure(function: FunctionType, depth: int) -> Any:
    """A function given to a callback may count in what it closes over."""
    if depth >= 3:
        return None
    cells = []
    for cell in function.__closure__ or ():
        try:
            cells.append(_token(cell.cell_contents, depth + 1))
        except ValueError:  # not filled yet
            cells.append(None)
    return (id(function), repr(cells))
