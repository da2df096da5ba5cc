"""Promises of canonical JSON: one way to write, and distrust when reading."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvc_callbacks.canonical import decode, digest_of, encode
from mvc_callbacks.errors import CorruptRecord

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(
            st.text(st.characters(exclude_categories=["Cs"])).filter(lambda key: key != "$float"), inner
        )
    ),
)


@given(values)
def test_what_is_written_is_read_again(value: object) -> None:
    assert decode(encode(value), what="test") == value
    assert encode(decode(encode(value), what="test")) == encode(value)


def test_keys_are_sorted_and_everything_is_ascii_without_spaces() -> None:
    assert encode({"b": 1, "a": ["é", 1.5, None]}) == b'{"a":["\\u00e9",1.5,null],"b":1}'


def test_numbers_that_are_not_finite_are_tagged_and_come_back() -> None:
    data = encode({"a": math.nan, "b": [math.inf, -math.inf]})
    assert data == b'{"a":{"$float":"nan"},"b":[{"$float":"inf"},{"$float":"-inf"}]}'
    told = decode(data, what="test")
    assert math.isnan(told["a"])
    assert told["b"] == [math.inf, -math.inf]


def test_a_metric_may_be_called_like_the_tag_of_floats() -> None:
    assert decode(encode({"$float": 0.5}), what="test") == {"$float": 0.5}


def test_the_digest_is_sha256_in_hex() -> None:
    assert digest_of(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b'{"a":1,"a":2}',
        b"NaN",
        b"[Infinity]",
        b"[-Infinity]",
        b"1e999",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"9" * 5_000,
        b"\xef\xbb\xbf{}",
        b'"\xff"',
        b'"\\ud800"',
        b'{"\\uDC00":1}',
        b'["ok","\\ud83d"]',
        b"{} {}",
    ],
    ids=lambda data: repr(data[:12]),
)
def test_bad_input_05_07_08_09_10_what_no_writer_of_ours_writes_is_refused_by_name(data: bytes) -> None:
    with pytest.raises(CorruptRecord, match="the source"):
        decode(data, what="the source")


def test_a_surrogate_pair_is_a_character() -> None:
    assert decode(b'"\\ud83d\\ude00"', what="test") == "\U0001f600"


def test_more_bytes_than_accepted_are_refused_before_they_are_parsed() -> None:
    with pytest.raises(CorruptRecord, match="11 bytes"):
        decode(b'"123456789"', what="test", limit=10)
