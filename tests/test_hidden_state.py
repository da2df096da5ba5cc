"""What is noticed of the attributes that no version holds."""

from __future__ import annotations

from typing import Any

import pytest

from mvc_callbacks import reachable
from mvc_callbacks.hidden_state import Watch, differences
from mvc_callbacks.reachable import UNSEEN, walk


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
    watch = Watch(frozenset({"calls", "_own"}))
    watch.begin({"the thing": thing})
    thing.calls, thing._own = 1, 1
    assert watch.changes({"the thing": thing}) == []
    assert watch.changes({"the thing": Thing()}) == []


def test_numbers_in_the_middle_of_a_long_list_are_seen() -> None:
    thing = Thing()
    thing.names = [1.0] * 9000  # type: ignore[list-item]
    watch = Watch()
    watch.begin({"the thing": thing})
    assert watch.changes({"the thing": thing}) == []
    thing.names[4500] = 2.0  # type: ignore[call-overload]
    assert watch.changes({"the thing": thing}) == ["the thing changes names, which no version holds"]


def test_an_attribute_of_a_function_is_seen() -> None:
    def count() -> None: ...

    count.calls = 0  # type: ignore[attr-defined]
    watch = Watch()
    watch.begin({"count": count})
    count.calls = 1  # type: ignore[attr-defined]
    assert watch.changes({"count": count}) == ["count changes calls, which no version holds"]


class Visited(dict[Any, Any]):
    """Counts what is asked of it."""

    asked = 0

    def items(self) -> Any:
        for each in super().items():
            Visited.asked += 1
            yield each


def test_what_is_too_much_is_told_and_what_is_near_is_seen_all_the_same() -> None:
    thing = Thing()
    thing.much = {a: {b: {c: [c] for c in range(40)} for b in range(40)} for a in range(40)}  # type: ignore[attr-defined]
    thing.last = [0]  # type: ignore[attr-defined]
    found = list(walk(thing))
    assert found[-1] == (UNSEEN, None)
    assert "last.0" in dict(found)
    assert len(found) < 3 * reachable._MOST_OBJECTS
    watch = Watch()
    watch.meet({"the thing": thing})
    told = watch.describe({"the thing": thing})
    (reason,) = differences(told, {"the thing": thing})
    assert reason.startswith("the thing leads to more objects than are looked at")
    del thing.much  # type: ignore[attr-defined]
    watch.begin({"the thing": thing})
    assert differences(watch.describe({"the thing": thing}), {"the thing": thing}) == []


def test_of_a_million_items_no_more_is_looked_at_than_of_some() -> None:
    thing = Thing()
    thing.samples = Visited((index, (index, "name")) for index in range(1_000_000))  # type: ignore[attr-defined]
    assert len(list(walk(thing))) < 1000
    assert Visited.asked <= reachable._MOST
