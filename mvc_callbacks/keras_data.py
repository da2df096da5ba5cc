"""The data of a Keras fit: what its arguments are, never iterated."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mvc_callbacks import fingerprint
from mvc_callbacks.fingerprint import Plan
from mvc_callbacks.keras_pipelines import chain, file_names, functions_of, generates, is_pipeline, tensors_of
from mvc_callbacks.sources import Finder

__all__ = ["evaluation_plans", "fit_plans"]

_log = logging.getLogger(__name__)


def fit_plans(declared: Any, arguments: Mapping[str, Any] | None) -> dict[str, Plan]:
    """Plan the fingerprints of what a fit trains and validates on.

    Args:
        declared: The callback's ``data=``, or None.
        arguments: Of ``fit``; None where they could not be found.

    Returns:
        ``train`` and ``val``, or the names that the user gave; empty where even planning failed, which
        is logged.
    """
    if declared is not None:
        given = dict(declared) if isinstance(declared, Mapping) else {"train": declared}
        return _planned(lambda: {name: fingerprint.plan(each, declared=True) for name, each in given.items()})
    if arguments is None:
        return {
            "train": _not_found("this callback was not called by Keras' own fit; name the data with data=")
        }
    return _planned(lambda: dict(_found(arguments)))


def evaluation_plans(arguments: Mapping[str, Any] | None) -> dict[str, Plan]:
    """Plan the fingerprint of what ``evaluate`` measures on."""
    if arguments is None:
        return {}
    return _planned(lambda: {"test": _plan(arguments, "x", "y", "sample_weight", call="evaluate")})


def _found(arguments: Mapping[str, Any]) -> Iterator[tuple[str, Plan]]:
    yield "train", _plan(arguments, "x", "y", "sample_weight", call="fit")
    validation = arguments.get("validation_data")
    if validation is None:
        return
    if isinstance(validation, (tuple, list)):
        parts = dict(zip(("x", "y", "sample_weight"), validation, strict=False))
        yield "val", _plan(parts, *parts, call="fit's validation_data")
    else:
        yield "val", _plan({"x": validation}, "x", call="fit's validation_data")


def _plan(arguments: Mapping[str, Any], *names: str, call: str) -> Plan:
    """Plan what some arguments are, together; Keras' arrays, datasets, loaders and generators alike."""
    given = {name: arguments[name] for name in names if arguments.get(name) is not None}
    if not given:
        return _not_found(f"{call} was called without data")
    if is_pipeline(given.get("x")):
        plan = _plan_tf_data(given["x"])
    else:
        values = {name: _as_array(each) for name, each in given.items()}
        # A loader or dataset by itself has the same digest as anywhere else.
        plan = fingerprint.plan(values["x"] if set(values) == {"x"} else values)
    plan.finder.how.insert(0, f"argument {' and '.join(given)} of {call}")
    return plan


def _as_array(value: Any) -> Any:
    """Return a tensor of TensorFlow or JAX as an array, and what is nested in containers likewise."""
    if isinstance(value, dict):
        return {key: _as_array(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)) and any(map(_is_tensor, value)):
        return [_as_array(each) for each in value]
    if _is_tensor(value):
        import numpy as np

        return np.asarray(value)
    return value


def _is_tensor(value: Any) -> bool:
    home = type(value).__module__.partition(".")[0]
    return home in ("tensorflow", "jax", "jaxlib") and hasattr(value, "shape") and hasattr(value, "dtype")


def _not_found(why: str) -> Plan:
    finder = Finder(str(Path.cwd()))
    finder.problems.append(why)
    return Plan(finder, False)


def _planned(plan: Callable[[], dict[str, Plan]]) -> dict[str, Plan]:
    try:
        return plan()
    except Exception:
        # Not finding the data never stops training, and is never written as if it had been found.
        _log.warning("the data could not be looked at, and has no fingerprint", exc_info=True)
        return {}


def _plan_tf_data(dataset: Any) -> Plan:
    finder = Finder(str(Path.cwd()))
    arrays: list[Any] = []
    files: dict[str, None] = {}
    generated = False
    for each in chain(dataset):
        if any(map(generates, functions_of(each))):
            generated = True
            continue
        for tensor in tensors_of(each):
            names = file_names(tensor)
            if names is None:
                arrays.append(tensor)
            else:
                files.update(dict.fromkeys(names))
    if files:
        finder.say("files named in the tf.data pipeline")
        finder.add_files(sorted(files))
    if generated:
        finder.unknown("tf.data.Dataset.from_generator tells nothing of its data without being used up")
    for number, tensor in enumerate(each for each in arrays if each.shape.rank or not generated):
        finder.say("tensors of the tf.data pipeline, by content")
        finder.add_array((f"tensors.{number}",), tensor.numpy())
    if finder.count() == (0, 0, 0, 0):
        finder.unknown("no files or tensors were found in the tf.data pipeline; name the data with data=")
    return Plan(finder, False)
