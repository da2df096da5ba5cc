"""What a compiled Keras model tells of its training by itself, as values for a record."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from typing import Any

__all__ = ["architecture", "direction", "hyperparameters_of"]

_LONGEST = 256 * 1024  # characters of an architecture
_QUIET = ("module", "registered_name", "build_config", "shared_object_id")


def hyperparameters_of(
    model: Any, params: Mapping[str, Any], arguments: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Tell optimizer, loss, metrics and the numbers of the fit.

    Args:
        model: A compiled model.
        params: What Keras gave the callback: epochs and steps.
        arguments: Of ``fit``, or None.
    """
    told: dict[str, Any] = {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compiled = model.get_compile_config() or {}
    except Exception as error:  # a loss or optimizer of the user's that cannot tell itself
        told["optimizer"] = {"class": type(model.optimizer).__name__}
        told["not_told"] = f"{type(error).__name__}: {error}"[:200]
    else:
        told = {name: _simple(value) for name, value in compiled.items() if value not in (None, False)}
    optimizer = told.get("optimizer")
    if isinstance(optimizer, dict):
        optimizer.pop("name", None)  # adam, then adam_1: counted by the process, and no choice of anybody
    if isinstance(optimizer, dict) and isinstance(optimizer.get("learning_rate"), float):
        optimizer["learning_rate"] = _short(optimizer["learning_rate"])
    told["epochs"] = params.get("epochs")
    if params.get("steps") is not None:
        told["steps_per_epoch"] = params["steps"]
    arguments = arguments or {}
    size = arguments.get("batch_size") or getattr(arguments.get("x"), "batch_size", None)
    if size is None and hasattr(arguments.get("x"), "shape"):
        size = 32  # Keras' own default for arrays
    if isinstance(size, int):
        told["batch_size"] = size
    policy = getattr(getattr(model, "dtype_policy", None), "name", None)
    if policy is not None:
        told["dtype_policy"] = policy
    return told


def _simple(value: Any) -> Any:
    """Make Keras' description of an object short: class and configuration; code in it is only named."""
    if isinstance(value, Mapping):
        if "class_name" in value:
            if value["class_name"] == "__lambda__":
                return "<lambda>"
            config = value.get("config")
            if value["class_name"] == "function":
                return config
            inner = _simple(config) if isinstance(config, Mapping) else {"config": config}
            return {"class": value["class_name"], **inner}
        return {
            str(key): _simple(each) for key, each in value.items() if key not in _QUIET and each is not None
        }
    if isinstance(value, (list, tuple)):
        return [_simple(each) for each in value]
    return value


def _short(value: float) -> float:
    """Return the shortest number that is the same as float32, which learning rates are kept in: 0.001."""
    import numpy as np

    short = np.float32(value)
    return float(str(short)) if float(short) == value else value


def architecture(model: Any) -> dict[str, Any]:
    """Tell what a model is made of, as text for people; nothing is ever built from it."""
    told: dict[str, Any] = {"class": f"{type(model).__module__}.{type(model).__qualname__}"}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            text = model.to_json()
    except Exception as error:  # a subclassed model or layer that cannot tell its configuration
        return {**told, "not_told": f"{type(error).__name__}: {error}"[:300]}
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    if len(text) > _LONGEST:
        return {**told, "json_sha256": digest, "not_told": f"{len(text)} characters of JSON"}
    return {**told, "json_sha256": digest, "json": text}


def direction(monitor_op: Any) -> str | None:
    """Return ``min`` or ``max`` for what ModelCheckpoint compares with; None while it does not know."""
    if monitor_op is None:
        return None
    # 3.5 compares with numpy's functions, later releases with those of keras.ops.
    return "min" if monitor_op.__name__.startswith("less") else "max"
