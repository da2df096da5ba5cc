"""What is noticed of the attributes that no version holds."""

from __future__ import annotations

from typing import Any

import pytest

from mvc_callbacks.hidden_state import Watch


class Thing:
    def __init__(self) -> None:
        self.calls = 0
        self.names = ["a"]
        self._own = 0


def change_number(thing: Any) -> None:
    thing.calls += 1


def change_list(thing: Any) -> None:
    thing.names.append("b")


def change_array(thing: Any) -> None:
    thing.order[:2] = thing.order[1::-1].copy()  # in place, as a shuffle does


def change_closure(thing: Any) -> None:
    thing.function()


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (change_number, "calls"),
        (change_list, "names"),
        (change_array, "order"),
        (change_closure, "function.counted.0"),
    ],
)
def test_an_attribute_that_changes_is_told(change: Any, name: str) -> None:
    np = pytest.importorskip("numpy")
    counted = [0]

    def count() -> None:
        counted[0] += 1

    thing = Thing()
    thing.order, thing.function = np.arange(8), count  # type: ignore[attr-defined]
    watch = Watch()
    watch.begin({"the thing": thing})
    assert watch.changes({"the thing": thing}) == []
    change(thing)
    assert watch.changes({"the thing": thing}) == [f"the thing changes {name}, which no version holds"]


def test_what_a_framework_changes_and_what_begins_anew_is_not_told() -> None:
    thing = Thing()
    watch = Watch(frozenset({"calls"}))
    watch.begin({"the thing": thing})
    thing.calls, thing._own = 1, 1
    assert watch.changes({"the thing": thing}) == []
    assert watch.changes({"the thing": Thing()}) == []
