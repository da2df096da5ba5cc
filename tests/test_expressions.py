"""Promises of conditions and times as people type them."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvc_callbacks.errors import Misconfigured
from mvc_callbacks.expressions import Condition, parse
from mvc_callbacks.times import point_in_time

NOW = datetime(2026, 11, 24, 12, 0, 0, tzinfo=timezone.utc)
KNOWN: dict[str, Any] = {
    "lr": 1e-4,
    "val/loss": 0.25,
    "run": "Baseline",
    "n": 3,
    "flag": True,
    "bad": float("nan"),
    "odd name": 1,
}


def holds(text: str) -> bool:
    return parse(text).holds(lambda name: KNOWN.get(name, Condition.unknown()))


@pytest.mark.parametrize(
    "text",
    [
        "lr<1e-3",
        "lr < 1E-3 and val/loss<.5",
        "n==3 and n=3 and n!=4 and n>=3 and n<=3.0 and -1<n",
        "run ~ 'base' and run=='Baseline' and run != \"other\"",
        "lr>1 or n>2 and run<'C'",
        "not lr>1 and not (lr>1 or n>5)",
        "flag==true and flag!=false",
        "bad==nan and lr!=nan and not bad<1",
        "`odd name`==1",
        "missing<1 or n==3",
        "1<2",
        r"'a\'b'=='a\'b'",
    ],
)
def test_conditions_that_hold(text: str) -> None:
    assert holds(text)


@pytest.mark.parametrize(
    "text",
    [
        "lr>1e-3",
        "missing<1",
        "missing!=1",
        "not missing<1",
        "missing<1 and n==3",
        "run<3",
        "not run<3",
        "(lr>1 or n>2) and run>'C'",
    ],
)
def test_conditions_that_do_not_hold_or_are_not_known(text: str) -> None:
    assert not holds(text)


def test_a_condition_tells_what_it_asks_for() -> None:
    assert parse("a<1 and (b.c==2 or a>0) and x/y<true").names == ("a", "b.c", "x/y")


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            " ",
            "lr",
            "lr<",
            "<3",
            "lr<<3",
            "lr 3",
            "(lr<3",
            "lr<3)",
            "a and b",
            "1<2 or",
            "$x<3",
            "lr<3e",
        ),
        *("__import__('os')<3", "a<b<c", "'open<3", "not", "and<3", "a<1 && b<2", "a[0]<1", "a;b", "\x00<1"),
        "(" * 500 + "a<1" + ")" * 500,
        "not " * 500 + "a<1",
        "a<1 or " * 1000 + "a<1",
    ],
)
def test_what_is_no_condition_is_refused_with_its_place_or_an_example(text: str) -> None:
    with pytest.raises(Misconfigured, match="condition"):
        parse(text)


@given(st.text(alphabet="ab<>=!~()'\"`. 1e-andortn\\", max_size=40))
def test_no_text_does_more_than_being_refused(text: str) -> None:
    try:
        condition = parse(text)
    except Misconfigured:
        return
    assert condition.holds(lambda name: KNOWN.get(name, Condition.unknown())) in (True, False)


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-11-01", "2026-11-01T00:00:00.000000Z"),
        ("2026-11-01T08:30", "2026-11-01T08:30:00.000000Z"),
        ("2026-11-01 08:30:05Z", "2026-11-01T08:30:05.000000Z"),
        ("2026-11-01T08:30+02:00", "2026-11-01T06:30:00.000000Z"),
        ("3d", "2026-11-21T12:00:00.000000Z"),
        ("6 hours ago", "2026-11-24T06:00:00.000000Z"),
        ("45min", "2026-11-24T11:15:00.000000Z"),
        ("2w", "2026-11-10T12:00:00.000000Z"),
        ("today", "2026-11-24T00:00:00.000000Z"),
        ("yesterday", "2026-11-23T00:00:00.000000Z"),
    ],
)
def test_times_are_dates_moments_or_ages(text: str, time: str) -> None:
    assert point_in_time(text, NOW) == time


@pytest.mark.parametrize("text", ["", "soon", "3 fortnights", "2026-13-01", "999999w", "-3d", "3d\n4d"])
def test_what_is_no_time_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(Misconfigured, match="such as 2025-11-24"):
        point_in_time(text, NOW)
