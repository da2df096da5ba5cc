"""Tags: how single values of the standard library are told in a tree, and made again."""

from __future__ import annotations

import base64
import collections
import datetime
import decimal
import fractions
import io
import math
import pathlib
import uuid
from collections.abc import Callable
from typing import Any

__all__ = ["RECALL", "TELL", "from_base64", "named_tuple", "to_base64", "to_text"]


def to_base64(data: bytes | bytearray | memoryview) -> str:
    """Tell bytes as text."""
    return base64.b64encode(data).decode("ascii")


def from_base64(text: Any) -> bytes:
    """Read what `to_base64` told; a ValueError if it is anything else."""
    if not isinstance(text, str):
        raise ValueError("base64 must be text")
    return base64.b64decode(text, validate=True)


def to_text(value: str) -> Any:
    """Tell text: plain, or tagged where it has lone surrogates, which strict JSON readers refuse."""
    if value.isascii():
        return value
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return {"$str": to_base64(value.encode("utf-8", "surrogatepass"))}
    return value


def _tell_int(value: int) -> Any:
    if -(2**63) <= value < 2**63:
        return value
    return {"$int": hex(value)}  # not decimal: Python limits and slows those of thousands of digits


def _tell_float(value: float) -> Any:
    if math.isfinite(value):
        return value
    return {"$float": "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"}


def _recall_float(told: Any) -> float:
    if told not in ("nan", "inf", "-inf"):
        raise ValueError("an unknown float")
    return float(told)


def _tell_path(value: pathlib.PurePath) -> Any:
    kind = "path" if isinstance(value, pathlib.Path) else "purepath"
    return {f"${kind}": to_text(str(value))}


def _recall_path(told: Any) -> pathlib.Path:
    return pathlib.Path(_text(told))


def _text(told: Any) -> str:
    if isinstance(told, dict) and told.keys() == {"$str"}:
        return RECALL["$str"](told["$str"])  # type: ignore[no-any-return]
    if not isinstance(told, str):
        raise ValueError("text expected")
    return told


def _recall_bytesio(told: Any) -> io.BytesIO:
    stream = io.BytesIO()
    stream.write(from_base64(told[0]))
    stream.seek(told[1])
    return stream


def _recall_zone(told: Any) -> datetime.timezone:
    return datetime.timezone(datetime.timedelta(*told))


def _zone(value: datetime.timezone) -> list[int]:
    return _delta(value.utcoffset(None))


def _delta(value: datetime.timedelta) -> list[int]:
    return [value.days, value.seconds, value.microseconds]


def _recall_fraction(told: Any) -> fractions.Fraction:
    numerator, _, denominator = told.partition("/")  # Fraction("1e999999999") would compute for ever
    return fractions.Fraction(int(numerator), int(denominator or 1))


def named_tuple(name: str, fields: list[str]) -> Callable[..., Any]:
    """Return a class like the named tuple that was told; equal to it, since tuples compare by their values.

    Raises:
        ValueError: If a name is no identifier; `collections.namedtuple` checks, as it makes code of them.
    """
    if not all(isinstance(each, str) for each in (name, *fields)):
        raise ValueError("a named tuple's names must be text")
    return collections.namedtuple(name, fields)


TELL: dict[type, Callable[[Any], Any]] = {
    type(None): lambda value: value,
    bool: lambda value: value,
    int: _tell_int,
    float: _tell_float,
    str: to_text,
    complex: lambda value: {"$complex": [_tell_float(value.real), _tell_float(value.imag)]},
    bytes: lambda value: {"$bytes": to_base64(value)},
    bytearray: lambda value: {"$bytearray": to_base64(value)},
    io.BytesIO: lambda value: {"$bytesio": [to_base64(value.getbuffer()), value.tell()]},
    range: lambda value: {"$range": [_tell_int(each) for each in (value.start, value.stop, value.step)]},
    type(Ellipsis): lambda _: {"$ellipsis": True},
    pathlib.PosixPath: _tell_path,
    pathlib.WindowsPath: _tell_path,
    pathlib.PurePosixPath: lambda value: {"$purepath": to_text(str(value))},
    pathlib.PureWindowsPath: lambda value: {"$windowspath": to_text(str(value))},
    datetime.datetime: lambda value: {"$datetime": [value.isoformat(), value.fold]},
    datetime.date: lambda value: {"$date": value.isoformat()},
    datetime.time: lambda value: {"$time": [value.isoformat(), value.fold]},
    datetime.timedelta: lambda value: {"$timedelta": _delta(value)},
    datetime.timezone: lambda value: {"$timezone": _zone(value)},
    decimal.Decimal: lambda value: {"$decimal": str(value)},
    fractions.Fraction: lambda value: {"$fraction": str(value)},
    uuid.UUID: lambda value: {"$uuid": str(value)},
}
"""Exact type to how it is told. A datetime's zone is told as its offset."""

RECALL: dict[str, Callable[[Any], Any]] = {
    "$int": lambda told: int(told, 16),
    "$float": _recall_float,
    "$str": lambda told: from_base64(told).decode("utf-8", "surrogatepass"),
    "$complex": lambda told: complex(*(_recall_part(each) for each in told)),
    "$bytes": from_base64,
    "$bytearray": lambda told: bytearray(from_base64(told)),
    "$bytesio": _recall_bytesio,
    "$range": lambda told: range(*(_recall_part(each) for each in told)),
    "$ellipsis": lambda _: ...,
    "$path": _recall_path,
    "$purepath": lambda told: pathlib.PurePosixPath(_text(told)),
    "$windowspath": lambda told: pathlib.PureWindowsPath(_text(told)),
    "$datetime": lambda told: datetime.datetime.fromisoformat(told[0]).replace(fold=told[1]),
    "$date": lambda told: datetime.date.fromisoformat(told),
    "$time": lambda told: datetime.time.fromisoformat(told[0]).replace(fold=told[1]),
    "$timedelta": lambda told: datetime.timedelta(*told),
    "$timezone": _recall_zone,
    "$decimal": decimal.Decimal,
    "$fraction": _recall_fraction,
    "$uuid": uuid.UUID,
}
"""Tag to how the value is made again; whatever they raise on nonsense, the reader turns into one error."""


def _recall_part(told: Any) -> Any:
    if isinstance(told, dict) and len(told) == 1:
        ((tag, inner),) = told.items()
        return RECALL[tag](inner)
    return told
