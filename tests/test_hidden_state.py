"""What is noticed of the attributes that no version holds."""

from __future__ import annotations

import array
import collections
import functools
import itertools
import json
from collections.abc import Callable, Iterator
from functools import partial
from types import ModuleType
from typing import Any, ClassVar

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


class Slotted:
    __slots__ = ("count", "unset")

    def __init__(self) -> None:
        self.count = 0


class Shared:
    """A class that holds things for all."""

    seen: ClassVar = [0]

    @staticmethod
    def static() -> int:
        return Shared.seen[0]

    @classmethod
    def of_class(cls) -> int:
        return 1

    @property
    def prop(self) -> int:
        return helper.total


class Variable:
    """What a TensorFlow variable shows of itself."""

    __module__ = "tensorflow.python.ops"

    def __init__(self, values: Any) -> None:
        self.values = values

    def assign(self, values: Any) -> None:
        self.values = values

    def numpy(self) -> Any:
        return self.values


COUNTED = {"calls": 0}
helper = ModuleType("helper")
helper.total = 0  # type: ignore[attr-defined]


def nested() -> Any:
    def inner() -> int:
        return COUNTED["calls"]

    return inner


@functools.wraps(nested)
def wrapping() -> Any:
    return None


def numbers() -> Iterator[int]:
    yield 1
    yield 2


CHANGES: dict[str, tuple[Callable[[], Any], Callable[[Any], Any], str]] = {
    "a slot": (Slotted, lambda it: setattr(it, "count", 1), "it.count"),
    "a set": (lambda: {1, 2}, lambda it: it.add(3), "it"),
    "a deque": (lambda: collections.deque([1]), lambda it: it.append(2), "it"),
    "an array of Python": (lambda: array.array("d", [1, 2]), lambda it: it.reverse(), "it"),
    "a generator": (numbers, next, "it"),
    "a generator that ends": (numbers, list, "it"),
    "an iterator": (lambda: iter([1, 2]), next, "it"),
    "a counter": (itertools.count, next, "it"),
    "an iterator without a length": (lambda: itertools.chain([1]), list, ""),
    "a bound method's object": (lambda: Thing().__init__, lambda it: it(), ""),
    "what a bound method is of": (
        lambda: Slotted().__init__,
        lambda it: setattr(it.__self__, "count", 5),
        "it.self.count",
    ),
    "an argument": (lambda: partial(print, [1]), lambda it: it.args[0].append(2), "it.arguments.0"),
    "a global": (lambda: nested, lambda it: COUNTED.update(calls=COUNTED["calls"] + 1), "it.COUNTED.calls"),
    "a global that what is wrapped names": (
        lambda: wrapping,
        lambda it: COUNTED.update(calls=-1),
        "it.wrapped.COUNTED.calls",
    ),
    "a global of a module": (
        Shared,
        lambda it: setattr(helper, "total", helper.total + 1),
        "it.Shared.prop.helper.total",
    ),
    "what a class holds": (Shared, lambda it: it.seen.append(1), "it.Shared.seen"),
    "a class itself": (lambda: Shared, lambda it: it.seen.append(1), "it.seen"),
    "numbers of a long dict": (lambda: dict.fromkeys(range(200), 0), lambda it: it.update({100: 1}), "it"),
    "a long deque": (
        lambda: collections.deque([0] * 200),
        lambda it: it.rotate(1) or it.__setitem__(100, 7),
        "it",
    ),
    "a class of Python": (lambda: dict, lambda it: None, ""),
    "a module": (lambda: json, lambda it: None, ""),
    "a method of a framework": (lambda: Watch().begin, lambda it: it({}), ""),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_is_told_of_whatever_an_object_leads_to(what: str) -> None:
    make, change, path = CHANGES[what]
    thing = Thing()
    thing.it = make()  # type: ignore[attr-defined]
    watch = Watch()
    watch.begin({"the thing": thing})
    assert watch.changes({"the thing": thing}) == []
    change(thing.it)  # type: ignore[attr-defined]
    told = watch.changes({"the thing": thing})
    assert told == ([f"the thing changes {path}, which no version holds"] if path else [])


def test_a_change_is_told_of_arrays_of_any_library() -> None:
    np, torch = pytest.importorskip("numpy"), pytest.importorskip("torch")
    thing = Thing()
    thing.objects = np.array([{"a": 1}, None], dtype=object)  # type: ignore[attr-defined]
    thing.tensor = torch.arange(3)  # type: ignore[attr-defined]
    thing.variable = Variable(np.arange(3))  # type: ignore[attr-defined]
    thing.module = torch.nn.BatchNorm1d(2)  # type: ignore[attr-defined]
    thing.module.register_buffer("seen", torch.zeros(2), persistent=False)  # type: ignore[attr-defined]
    watch = Watch()
    watch.begin({"the thing": thing})
    assert watch.changes({"the thing": thing}) == []
    thing.objects[0]["a"] = 2  # type: ignore[attr-defined]
    thing.tensor += 1  # type: ignore[attr-defined]
    thing.variable.assign(np.arange(1, 4))  # type: ignore[attr-defined]
    thing.module.running_mean += 1  # type: ignore[attr-defined]  # which every version holds
    thing.module.seen += 1  # type: ignore[attr-defined]
    told = "the thing changes objects, tensor, variable, module.seen, which no version holds"
    assert watch.changes({"the thing": thing}) == [told]


def test_a_closure_that_is_not_filled_yet_is_passed_over() -> None:
    def outer() -> Any:
        def early() -> Any:
            return later

        found = dict(walk(early))
        later = 1
        return found, dict(walk(early)), later

    before, after, _ = outer()
    assert "later" not in before and after["later"] == 1


def test_the_class_that_an_attribute_comes_from_is_told() -> None:
    assert reachable.owner_of(Variable, "assign") is Variable
    assert reachable.owner_of(type("Derived", (Slotted,), {}), "count") is Slotted
    assert reachable.owner_of(Slotted, "nowhere") is object


class Settings(Thing):
    """Settings, and things that change, as another process finds them."""

    def __init__(self, np: Any, torch: Any) -> None:
        super().__init__()
        self.rate, self.folder, self.text = 0.1, "/data", "x" * 100
        self.array, self.tensor = np.arange(4.0), torch.arange(4.0)
        self.deque, self.items = collections.deque([1.0] * 80), [1]
        self.thing: Any = numbers()
        self.function: Any = nested


def test_another_process_is_told_what_was_not_brought_back() -> None:
    np, torch = pytest.importorskip("numpy"), pytest.importorskip("torch")

    def changed(it: Settings) -> Settings:
        it.calls, it.array[0], it.tensor[0] = 3, 9, 9
        it.deque.append(2.0)
        it.items.append(2)
        return it

    first = Settings(np, torch)
    watch = Watch()
    watch.meet({"it": first})
    watch.meet({"it": first})  # it is known already
    changed(first)
    told = json.loads(json.dumps(watch.describe({"it": first, "gone": Thing()})))
    assert sorted(told["it"]["changed"]) == [
        "array",
        "calls",
        "deque",
        "deque.80",
        "items",
        "items.1",
        "tensor",
    ]
    assert differences(told, {"it": changed(Settings(np, torch)), "new": Thing()}) == []
    lost = "it changes calls, array, tensor, deque, items, which no version holds"
    assert differences(told, {"it": Settings(np, torch)}) == [lost]

    other = changed(Settings(np, torch))
    other.rate, other.folder, other.text, other.function = 0.2, "/other", "y" * 100, numbers
    assert differences(told, {"it": other}) == [
        "it is another one (rate was 0.1 and is 0.2)",
        "the code of it was changed",
    ]
    next(first.thing)  # what nobody can compare is never taken for brought back
    told = watch.describe({"it": first})
    assert told["it"]["changed"]["thing"] is None
    assert "thing" in differences(told, {"it": first})[0]


def test_an_object_that_leads_to_too_much_is_told_with_what_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reachable, "_MOST_OBJECTS", 10)
    thing = Thing()
    thing.names = [["much"] for _ in range(40)]  # type: ignore[misc]
    watch = Watch()
    watch.begin({"it": thing})
    thing.calls = 5
    assert watch.changes({"it": thing}) == [
        "it leads to more objects than are looked at, so that changes of the others are not seen",
        "it changes calls, which no version holds",
    ]


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
