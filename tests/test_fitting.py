"""Fitting recorded values to the parameters that take them."""

from __future__ import annotations

import argparse
import dataclasses
import enum
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, Optional, Protocol, Union

import pytest

from mvc_callbacks.fitting import annotations_of, fit
from mvc_callbacks.markers import Marker, Tagged, find_markers


class Mode(enum.Enum):
    FAST = "fast"
    SLOW = 2


@dataclasses.dataclass
class Block:
    width: int = 2
    mode: Mode = Mode.FAST
    derived: int = dataclasses.field(default=0, init=False)


class Shaped(Protocol):
    shape: int


SLOW = Tagged("enum", "elsewhere.Mode.SLOW", 2)


def _fit(
    value: Any, annotation: Any, *, default: Any = inspect.Parameter.empty, configured: bool = False
) -> Any:
    parameter = inspect.Parameter("x", inspect.Parameter.KEYWORD_ONLY, default=default)
    return fit(value, parameter, annotation, configured=configured)


@pytest.mark.parametrize(
    ("value", "annotation", "fitted"),
    [
        (SLOW, Mode, Mode.SLOW),
        (SLOW, Optional[Mode], Mode.SLOW),  # noqa: UP045 - as users write it
        (SLOW, Union[str, Mode], Mode.SLOW),  # noqa: UP007
        (SLOW, Annotated[Mode, "doc"], Mode.SLOW),
        ([SLOW, SLOW], list[Mode], [Mode.SLOW, Mode.SLOW]),
        ([SLOW], Sequence[Mode], [Mode.SLOW]),
        ((1, SLOW), tuple[int, Mode], (1, Mode.SLOW)),
        ((SLOW, SLOW), tuple[Mode, ...], (Mode.SLOW, Mode.SLOW)),
        ({"a": SLOW}, dict[str, Mode], {"a": Mode.SLOW}),
        ({"a": SLOW}, Mapping[str, Mode], {"a": Mode.SLOW}),
        (
            Tagged("dataclass", "m.Block", {"width": 3, "mode": SLOW, "derived": 9}),
            Block,
            Block(3, Mode.SLOW),
        ),
        (Tagged("dataclass", "m.Block", {"width": 3}), Block | None, Block(3)),
        ("/data", Path, Path("/data")),
        ("/data", PurePosixPath, PurePosixPath("/data")),
        ("/data", "str | Path", "/data"),
        ({"a": 1}, argparse.Namespace, argparse.Namespace(a=1)),
        ([1, 2], tuple, (1, 2)),
        (3, float, 3),
        (3, Any, 3),
        (3, Shaped, 3),
        (None, int | None, None),
        ("a", Literal["a", "b"], "a"),
        ("text", str | Mode, "text"),
        (True, inspect.Parameter.empty, True),
    ],
)
def test_a_value_becomes_what_its_parameter_takes(value: Any, annotation: Any, fitted: Any) -> None:
    found = _fit(value, annotation)
    assert found == fitted and type(found) is type(fitted)


@pytest.mark.parametrize(
    ("value", "annotation", "fitted"),
    [
        ("SLOW", Mode, Mode.SLOW),
        ("fast", Mode, Mode.FAST),
        ("SLOW", Mode | None, Mode.SLOW),
        ({"width": 3, "mode": "SLOW"}, Block, Block(3, Mode.SLOW)),
        ([{"width": 3}], list[Block], [Block(3)]),
        ([0.1, 0.2], tuple[float, float], (0.1, 0.2)),
        ("/data", Path, Path("/data")),
        ("torch.nn.ReLU", str, "torch.nn.ReLU"),
        ({"a": ["b", 1]}, dict, {"a": ["b", 1]}),
        ({"a": "b"}, dict[str, str], {"a": "b"}),
        ("x", Literal["x"], "x"),
    ],
)
def test_a_value_of_a_configuration_becomes_what_its_parameter_takes(
    value: Any, annotation: Any, fitted: Any
) -> None:
    found = _fit(value, annotation, configured=True)
    assert found == fitted and type(found) is type(fitted)


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        ("torch.nn.ReLU", Callable[..., Any]),
        ("torch.nn.ReLU", type),
        ("os.system", type[Any]),
        ("os.system", Callable[..., Any] | None),
        ({"class_path": "os.system"}, Block),
        ({"class_path": "os.system"}, Any),
        ({"a": {"class_path": "os.system"}}, dict),
        ([{"class_path": "os.system"}], list[Any]),
        ([["os.system"]], list[list[Callable[..., Any]]]),
    ],
)
def test_an_object_that_a_configuration_described_is_left_a_marker(value: Any, annotation: Any) -> None:
    assert list(find_markers(_fit(value, annotation, configured=True)))


@pytest.mark.parametrize(
    ("value", "annotation", "default"),
    [
        (SLOW, inspect.Parameter.empty, inspect.Parameter.empty),
        (Tagged("enum", "m.Other.SLOW", 2), Mode, inspect.Parameter.empty),
        (Tagged("enum", "m.Mode.GONE", 9), Mode, Mode.FAST),
        (Tagged("dataclass", "m.Block", {"unknown": 3}), Block, Block()),
        (Tagged("function", "os.system"), Any, print),
        (Tagged("function", "m.<lambda>"), Any, lambda: 0),
    ],
)
def test_what_no_code_of_the_caller_names_stays_a_marker(value: Any, annotation: Any, default: Any) -> None:
    assert isinstance(_fit(value, annotation, default=default), Marker)


@pytest.mark.parametrize("default", [Mode.SLOW, dataclasses.dataclass, len, Path])
def test_the_default_comes_back_where_it_was_recorded(default: Any) -> None:
    from mvc_callbacks import tree

    recorded = tree.decode(tree.encode(default, is_tensor=lambda _: False).json)
    assert _fit(recorded, inspect.Parameter.empty, default=default) is default


def test_annotations_that_cannot_be_resolved_are_none() -> None:
    def one(a: int, b: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    assert annotations_of(one) == {}
    assert annotations_of(Block)["mode"] is Mode
