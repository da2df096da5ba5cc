"""Pipelines of tf.data: chains of datasets, at whose ends lie tensors: arrays, or the names of files."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mvc_callbacks.keras_private import random_operations

__all__ = [
    "chain",
    "doubts",
    "file_names",
    "functions_of",
    "generates",
    "is_pipeline",
    "structure",
    "tensors_of",
]

_MOST_NAMES = 1_000_000
_MOST_DATASETS = 10_000


def is_pipeline(value: Any) -> bool:
    """Tell whether something is a ``tf.data.Dataset``; TensorFlow is not imported for that."""
    tensorflow = sys.modules.get("tensorflow")
    return tensorflow is not None and isinstance(value, tensorflow.data.Dataset)


def chain(dataset: Any) -> Iterator[Any]:
    """Go through a pipeline's datasets, those inside of readers and of zip and interleave included."""
    seen: set[int] = set()
    left = [dataset]
    tensorflow = sys.modules["tensorflow"]
    while left and len(seen) < _MOST_DATASETS:
        each = left.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        left += each._inputs()
        left += [value for value in vars(each).values() if isinstance(value, tensorflow.data.Dataset)]


def tensors_of(dataset: Any) -> Iterator[Any]:
    """Go through the tensors that a dataset by itself holds: arrays, and names of files."""
    import tensorflow

    held = [value for name, value in vars(dataset).items() if name in ("_tensors", "_filenames")]
    for function in functions_of(dataset):
        captured = getattr(getattr(function, "function", None), "captured_inputs", ())
        # A function may capture any number of tensors that are no data, such as a table of labels.
        held += [each for each in captured if each.dtype == tensorflow.string]
    for value in tensorflow.nest.flatten(held):
        if isinstance(value, tensorflow.Tensor) and hasattr(value, "numpy"):
            yield value


def functions_of(dataset: Any) -> list[Any]:
    """Return the functions that a dataset by itself maps its elements with."""
    functions = getattr(dataset, "_functions", None)
    return list(functions()) if callable(functions) else []


def generates(function: Any) -> bool:
    """Tell whether a function takes its elements from a Python generator."""
    concrete = getattr(function, "function", None)
    told = getattr(concrete, "function_def", None)
    return told is not None and any(node.op == "GeneratorDataset" for node in told.node_def)


def file_names(tensor: Any) -> list[str] | None:
    """Return the names of files that a tensor of text holds; None where it is data by itself."""
    import tensorflow

    if tensor.dtype != tensorflow.string:
        return None
    values = tensor.numpy()
    flat = values.reshape(-1)[:_MOST_NAMES].tolist() if hasattr(values, "reshape") else [values]
    names = [each.decode("utf-8", "surrogateescape") for each in flat]
    return [each for each in names if _names_file(each)] if any(map(_names_file, names[:8])) else None


def _names_file(text: str) -> bool:
    if "://" in text[:10]:
        return True
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # too long, or with NUL: no name at all
        return False


# Whether a pipeline gives the same elements again


def structure(dataset: Any) -> list[str]:
    """Tell what a pipeline is made of, to be compared with what it was: kinds of datasets, seeds, sizes."""
    return [_link(each) for each in chain(dataset)]


def _link(dataset: Any) -> str:
    inside = vars(dataset)
    told = {
        name: _number(inside[name]) for name in ("_seed", "_seed2", "_batch_size", "_count") if name in inside
    }
    return f"{type(dataset).__name__} {told}"


def doubts(dataset: Any) -> list[str]:
    """Return why a pipeline may give its elements in another order, or other ones, when it is made again."""
    reasons = []
    if dataset.options().deterministic is False:
        reasons.append("the tf.data pipeline was allowed to change the order (deterministic=False)")
    for each in chain(dataset):
        kind = type(each).__name__
        inside = vars(each)
        if "Shuffle" in kind:
            reasons += _doubts_of_order(inside)
        elif "Random" in kind:
            reasons.append(f"the tf.data pipeline draws random numbers ({kind})")
        if _text(inside.get("_deterministic")) == "false":
            reasons.append("the tf.data pipeline was allowed to change the order (deterministic=False)")
        for function in functions_of(each):
            if generates(function):
                reasons.append("the tf.data pipeline takes its elements from a generator, which begins anew")
            elif drawn := sorted(random_operations(function, pipeline=True)):
                reasons.append(f"the tf.data pipeline draws random numbers ({', '.join(drawn[:3])})")
    return reasons


def _doubts_of_order(inside: Any) -> list[str]:
    if inside.get("_reshuffle_each_iteration") is not False:
        return [
            "tf.data's shuffle() makes another order for each epoch, which cannot be put back: give "
            "reshuffle_each_iteration=False and a seed"
        ]
    if not any(_number(inside.get(name)) for name in ("_seed", "_seed2")):
        return ["tf.data's shuffle() has no seed"]
    return []


def _number(value: Any) -> Any:
    try:
        return int(value)
    except (TypeError, ValueError):  # no number, or one of a graph
        return None


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
