"""Whatever a framework calls a metric is one number, or no metric."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest

from mvc_callbacks.metrics import scalars_of


def test_bad_input_39_plain_numbers_are_metrics_and_nothing_else_is() -> None:
    given = {"a": 1, "b": 0.5, "c": True, "d": Fraction(1, 2), "text": "0.5", "bytes": b"1", "none": None}
    assert scalars_of({**given, "list": [1.0], "complex": 1j, "nested": {"x": 1.0}}) == {
        "a": 1.0,
        "b": 0.5,
        "c": 1.0,
        "d": 0.5,
    }
    assert scalars_of(None) == scalars_of({}) == {}


def test_bad_input_39_tensors_and_arrays_of_one_number_are_metrics() -> None:
    torch = pytest.importorskip("torch")
    numpy = pytest.importorskip("numpy")
    one = {
        "tensor": torch.tensor(0.5),
        "of bfloat16": torch.tensor(0.5, dtype=torch.bfloat16),
        "of one": torch.tensor([[0.5]]),
        "with a gradient": torch.tensor(0.5, requires_grad=True).detach(),
        "float32": numpy.float32(0.5),
        "0-dim": numpy.array(0.5),
        "array of one": numpy.array([0.5]),
    }
    assert scalars_of(one) == dict.fromkeys(one, 0.5)
    several = {
        "many": torch.ones(2),
        "none": torch.ones(0),
        "array": numpy.ones((2, 1)),
        "complex": torch.tensor(1j),
        "meta": torch.tensor(0.5, device="meta"),
        "text": numpy.array("x"),
    }
    assert scalars_of(several) == {}


def test_bad_input_38_numbers_that_are_not_finite_are_metrics() -> None:
    told = scalars_of({"nan": math.nan, "inf": -math.inf})
    assert math.isnan(told["nan"]) and told["inf"] == -math.inf
