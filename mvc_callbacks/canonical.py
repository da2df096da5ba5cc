"""Canonical JSON: the one way in which records are written and believed."""

from __future__ import annotations

import json
import math
from typing import Any

from mvc_callbacks.errors import CorruptRecord

__all__ = ["decode", "digest_of", "encode"]

LIMIT = 256 * 1024 * 1024
_LONGEST_INTEGER = 40
_FLOAT = "$float"


def digest_of(data: bytes | memoryview) -> str:
    """Return the SHA-256 of bytes, in 64 hex digits."""
    import hashlib  # OpenSSL: a log, which trusts its history, is over before it would be loaded

    return hashlib.sha256(data).hexdigest()


def encode(value: Any) -> bytes:
    """Tell a value as canonical JSON: sorted keys, ASCII, no spaces, no NaN.

    Args:
        value: Dicts with string keys, lists, strings, integers, floats, booleans and None. Floats that are
            not finite are written as ``{"$float": "nan" | "inf" | "-inf"}``.

    Returns:
        The bytes.

    Raises:
        TypeError: If something else is in it.
    """
    try:
        return _dumps(value)
    except ValueError:  # allow_nan=False found one; the walk is paid for by the rare value that needs it
        return _dumps(_tag_floats(value))


def _dumps(value: Any) -> bytes:
    return json.dumps(
        value, sort_keys=True, ensure_ascii=True, separators=(",", ":"), allow_nan=False
    ).encode("ascii")


def _tag_floats(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return {_FLOAT: "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"}
    if isinstance(value, dict):
        return {key: _tag_floats(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_tag_floats(each) for each in value]
    return value


def decode(data: bytes, *, what: str, limit: int = LIMIT) -> Any:
    """Read JSON that may have been written by anybody.

    Args:
        data: The bytes.
        what: Names the source in the error.
        limit: Largest number of bytes accepted.

    Returns:
        The value, with tagged floats put back.

    Raises:
        CorruptRecord: On duplicate keys, NaN, numbers out of range, deep nesting, a byte order mark, text
            that is not UTF-8, lone surrogates, or more than ``limit`` bytes.
    """
    if len(data) > limit:
        raise CorruptRecord(f"{what}: {len(data)} bytes, more than the {limit} that are accepted")
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_object,
            parse_constant=_refuse_constant,
            parse_int=_integer,
            parse_float=_float,
        )
        if b"\\ud" in data or b"\\uD" in data:
            _refuse_surrogates(value)
    except (ValueError, RecursionError) as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise CorruptRecord(f"{what}: not the JSON that mvc_callbacks writes ({reason})") from error
    return value


def _object(pairs: list[tuple[str, Any]]) -> Any:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key occurs twice in one object")
    # Anything else under this key is what it seems to be: a metric may be called so.
    if len(pairs) == 1 and pairs[0][0] == _FLOAT and pairs[0][1] in ("nan", "inf", "-inf"):
        return float(pairs[0][1])
    return value


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"the number {text}")


def _integer(text: str) -> int:
    if len(text) > _LONGEST_INTEGER:
        raise ValueError(f"an integer of {len(text)} digits")
    return int(text)


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:20]}")
    return value


def _refuse_surrogates(value: Any) -> None:
    if isinstance(value, str):
        value.encode("utf-8")  # raises UnicodeEncodeError, a ValueError
    elif isinstance(value, dict):
        for key, each in value.items():
            key.encode("utf-8")
            _refuse_surrogates(each)
    elif isinstance(value, list):
        for each in value:
            _refuse_surrogates(each)
