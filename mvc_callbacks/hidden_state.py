"""Hidden state: whatever changes in objects that take part in training, and that no version holds."""

from __future__ import annotations

import array
import collections
import itertools
import operator
import sys
import zlib
from collections.abc import Iterator, Mapping
from types import CodeType, FunctionType, GeneratorType
from typing import Any

from mvc_callbacks.reachable import UNSEEN, walk

__all__ = ["Watch", "differences", "tokens_of"]

_LONGEST = 1 << 20  # bytes of an array that are looked at
_LONGEST_TEXT = 60
_SHORT = 64
_MOST_NUMBERS = 1 << 14  # spread over its whole length
_MOST_VALUES = 500
_SHOWN = 5


class Watch:
    """Notices what in some objects has changed since they were seen first.

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

    def meet(self, watched: Mapping[str, Any]) -> None:
        """Remember how those objects are that were not seen before, or are others than those of that name."""
        for name, each in watched.items():
            if self._seen.get(name, {}).get("") != id(each):
                self._seen[name] = tokens_of(each)

    def describe(self, watched: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """Tell how the objects are, for `differences` in another process.

        Returns:
            What, in words, to its settings, its code, and what has changed since it was seen first; all as
            plain JSON values.
        """
        told = {}
        for name, each in watched.items():
            found, before = dict(walk(each)), self._seen.get(name, {})
            now = _tokens(found, id(each))
            changed = before.get("") == now[""]
            told[name] = {
                **_settings(found),
                "unseen": UNSEEN in found,
                "changed": {
                    path: _portable(found[path])
                    for path, token in now.items()
                    if changed and path in found and path and before.get(path) != token
                },
            }
        return told

    def changes(self, watched: Mapping[str, Any]) -> list[str]:
        """Return one sentence for each object that is not as it was; another object begins without a past."""
        told = []
        for name, each in watched.items():
            now, before = tokens_of(each), self._seen.get(name, {})
            if before.get("") != now[""]:
                self._seen[name] = now
                continue
            names = [
                key for key in now if key.partition(".")[0] not in self._skip and before.get(key) != now[key]
            ]
            if UNSEEN in now:
                told.append(_too_much(name))
            if names:
                told.append(f"{name} changes {_shown(names)}, which no version holds")
        return told


def differences(then: Mapping[str, Mapping[str, Any]], watched: Mapping[str, Any]) -> list[str]:
    """Compare objects with those of another process, as `Watch.describe` told of them.

    Args:
        then: What was told.
        watched: What, in words, to the object of now, after everything was loaded that was saved.

    Returns:
        One sentence for each object that is not as it was, and each thing that was not brought back.
    """
    reasons = []
    for name in then.keys() & watched.keys():
        before, found = then[name], dict(walk(watched[name]))
        now = _settings(found)
        if before.get("unseen") or UNSEEN in found:
            reasons.append(_too_much(name))
        lost = [
            path
            for path, token in before["changed"].items()
            if token is None or path not in found or _portable(found[path]) != token
        ]
        if lost:
            reasons.append(f"{name} changes {_shown(lost)}, which no version holds")
        others = [
            f"{path} was {before['values'][path]} and is {now['values'][path]}"
            for path in before["values"].keys() & now["values"].keys() - before["changed"].keys()
            if before["values"][path] != now["values"][path]
        ]
        if others:
            reasons.append(f"{name} is another one ({', '.join(sorted(others)[:_SHOWN])})")
        if before["code"] != now["code"]:
            reasons.append(f"the code of {name} was changed")
    return sorted(reasons)


def _shown(paths: list[str]) -> str:
    """Name the outermost ones: what is in a list that changes goes without saying."""
    outer = [path for path in paths if not any(path.startswith(f"{each}.") for each in paths)]
    return ", ".join(outer[:_SHOWN])


def _too_much(name: str) -> str:
    return f"{name} leads to more objects than are looked at, so that changes of the others are not seen"


def _settings(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the short plain values among what was found, and a digest of its functions."""
    values: dict[str, str] = {}
    code = 0
    for path, each in found.items():
        if isinstance(each, FunctionType):
            code = zlib.crc32(f"{path} {_of_code(each.__code__)}".encode(), code)
        elif isinstance(each, bool | int | float | str) and len(values) < _MOST_VALUES:
            text = repr(each)
            # A path may differ between machines, and what lies there has a fingerprint.
            if len(text) <= _LONGEST_TEXT and "/" not in text and "\\" not in text:
                values[path] = text
    return {"values": values, "code": code}


def _of_code(code: CodeType) -> str:
    constants = [_of_code(each) if isinstance(each, CodeType) else repr(each) for each in code.co_consts]
    return f"{code.co_code.hex()} {code.co_names} {constants}"


def _portable(value: Any) -> Any:
    """Return what a value in another process can be compared with; None for what it cannot."""
    if isinstance(value, bool | int | float | complex | str | bytes | None):
        return repr(value)
    torch, numpy = sys.modules.get("torch"), sys.modules.get("numpy")
    if torch is not None and isinstance(value, torch.Tensor):
        head = value.detach().flatten()[: _LONGEST // max(value.element_size(), 1)].cpu().contiguous()
        return f"tensor {tuple(value.shape)} {zlib.crc32(head.view(torch.uint8).numpy().tobytes())}"
    if numpy is not None and isinstance(value, numpy.ndarray):
        return str(_of_array(value))
    if isinstance(value, list | tuple | dict | collections.deque):
        return f"{type(value).__name__} of {len(value)} {_of_numbers(value) or ''}".rstrip()
    return None


def tokens_of(value: Any) -> dict[str, Any]:
    """Return what a later call can be compared with, in the same process only.

    Args:
        value: The object.

    Returns:
        Path of everything that the object leads to, to token; the object itself has the name "". What nobody
        could compare is left out.
    """
    return _tokens(dict(walk(value)), id(value))


def _tokens(found: Mapping[str, Any], itself: int) -> dict[str, Any]:
    told: dict[str, Any] = {"": itself}
    for path, each in found.items():
        token = _token(each) if path else None
        if token is not None:
            told[path] = token
    if UNSEEN in found:
        told[UNSEEN] = UNSEEN
    return told


def _token(value: Any) -> Any:
    if isinstance(value, bool | int | float | complex | str | bytes | None):
        return repr(value)
    torch, numpy = sys.modules.get("torch"), sys.modules.get("numpy")
    if torch is not None and isinstance(value, torch.Tensor):
        return ("tensor", value.data_ptr(), value._version)
    if numpy is not None and isinstance(value, numpy.ndarray):
        return _of_array(value)
    if type(value).__module__.startswith("tensorflow.") and callable(getattr(value, "assign", None)):
        return _of_array(value.numpy())
    if isinstance(value, FunctionType):
        return id(value.__code__)
    if isinstance(value, list | tuple | dict | collections.deque):
        return (type(value).__name__, len(value), _of_numbers(value))
    if isinstance(value, array.array):
        return ("array", len(value), zlib.crc32(memoryview(value)[: _LONGEST // value.itemsize]))
    if isinstance(value, set | frozenset):
        return (type(value).__name__, len(value), hash(frozenset(map(repr, itertools.islice(value, 64)))))
    if isinstance(value, GeneratorType):
        return value.gi_frame.f_lasti if value.gi_frame is not None else "over"
    if isinstance(value, Iterator) and type(value).__module__ in ("builtins", "itertools"):
        return (type(value).__name__, operator.length_hint(value, -1), repr(value))
    return None


def _of_numbers(value: Any) -> int | None:
    """Digest the numbers of a long container, of which only the ends are walked: weights of samples, say."""
    if len(value) <= _SHORT:
        return None
    if isinstance(value, dict):
        value = value.values()
    step = len(value) // _MOST_NUMBERS + 1
    chosen = value[::step] if isinstance(value, list | tuple) else itertools.islice(value, 0, None, step)
    numbers = [each for each in chosen if type(each) in (int, float, bool)]
    return hash(tuple(numbers)) if numbers else None


def _of_array(value: Any) -> Any:
    if value.dtype.hasobject:
        return ("array", str(value.shape), repr(value.flat[:64].tolist()))
    # A copy of its head: what is shuffled in place stays the same object.
    head = value.flat[: _LONGEST // max(value.itemsize, 1)]
    return ("array", str(value.shape), zlib.crc32(head.tobytes()))
