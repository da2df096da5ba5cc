"""The guarantee of a resumed run: said in words that a person can act on."""

from __future__ import annotations

import pytest

from mvc_callbacks.resume_guarantee import Guarantee, changed


def test_a_guarantee_is_exact_until_there_is_a_reason() -> None:
    assert Guarantee().exact and str(Guarantee()) == "exact"
    assert Guarantee().to_dict() == {"guarantee": "exact", "reasons": []}
    told = Guarantee.of(["the seed changed", "no loader", "the seed changed"])
    assert not told.exact
    assert str(told) == "approximate: the seed changed; no loader"
    assert told.to_dict() == {"guarantee": "approximate", "reasons": ["the seed changed", "no loader"]}


@pytest.mark.parametrize(
    ("then", "now", "told"),
    [
        ({"the seed": 1}, {"the seed": 1}, []),
        ({"the seed": 1}, {}, ["the seed was 1 and is nothing"]),
        ({}, {"the seed": 2}, ["the seed was nothing and is 2"]),
        (
            {"the loader": {"workers": 2, "batch": 8}},
            {"the loader": {"workers": 0, "batch": 8}},
            ["the loader changed (workers was 2 and is 0)"],
        ),
        (
            {"it": {str(number): 0 for number in range(8)}},
            {"it": {str(number): 1 for number in range(8)}},
            [f"it changed ({', '.join(f'{number} was 0 and is 1' for number in range(6))}, …)"],
        ),
        # What a record tells in a tag is one value, and no object with a name in it.
        (
            {"the rate": {"$float": "nan"}},
            {"the rate": {"$float": "inf"}},
            ["the rate was {'$float': 'nan'} and is {'$float': 'inf'}"],
        ),
        ({"the name": "a" * 80}, {"the name": "b"}, [f"the name was {'a' * 59}… and is b"]),
    ],
)
def test_what_differs_is_told_by_name_and_in_short(then: dict, now: dict, told: list[str]) -> None:  # type: ignore[type-arg]
    assert changed(then, now) == told


def test_values_are_told_as_the_caller_tells_them() -> None:
    assert changed({"a": 1}, {"a": 2}, tell=lambda value: f"<{value}>") == ["a was <1> and is <2>"]
