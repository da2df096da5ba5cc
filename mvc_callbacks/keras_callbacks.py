"""The callbacks beside ours in a Keras fit: what they remember, and what they do after a version is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

__all__ = ["acting", "capture", "doubts", "name_of", "ours", "put_back"]

# What these remember between epochs, and forget when a fit begins.
_MEMORIES: tuple[tuple[type, tuple[str, ...]], ...] = (
    (keras.callbacks.EarlyStopping, ("wait", "best", "best_epoch")),
    (keras.callbacks.ReduceLROnPlateau, ("wait", "best", "cooldown_counter")),
)
_HARMLESS = tuple(
    getattr(keras.callbacks, name)
    for name in (
        "CSVLogger",
        "History",
        "ModelCheckpoint",
        "ProgbarLogger",
        "RemoteMonitor",
        "TensorBoard",
        "TerminateOnNaN",
    )
    if hasattr(keras.callbacks, name)
)
_LOGGERS = frozenset({"clearml", "comet_ml", "dvclive", "mlflow", "neptune", "wandb"})


def acting(arguments: Mapping[str, Any]) -> list[Any]:
    """Return the callbacks that may have to do with the weights: loggers and the like do not.

    Args:
        arguments: Of ``fit``.
    """
    return [each for each in _all(arguments) if not (_is_logger(each) or _is_ours(each))]


def ours(arguments: Mapping[str, Any]) -> list[Any]:
    """Return the VersionCheckpoints, in their order.

    Args:
        arguments: Of ``fit``.
    """
    return [each for each in _all(arguments) if _is_ours(each)]


def _all(arguments: Mapping[str, Any]) -> Sequence[Any]:
    given = arguments.get("callbacks")
    listed = getattr(given, "callbacks", given)
    return listed if isinstance(listed, list | tuple) else ()


def _is_logger(callback: Any) -> bool:
    return type(callback) in _HARMLESS or type(callback).__module__.partition(".")[0] in _LOGGERS


def _is_ours(callback: Any) -> bool:
    return any(kind.__module__ == "mvc_callbacks.keras" for kind in type(callback).__mro__)


def name_of(value: Any) -> str:
    """Return the full name of an object's class."""
    return f"{type(value).__module__}.{type(value).__qualname__}"


def capture(arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what callbacks of Keras remember, in their order."""
    told = []
    for each in _all(arguments):
        names = _memory(each)
        if names:
            values = {name: _plain(getattr(each, name, None)) for name in names}
            told.append({"class": name_of(each), **values})
    return told


def put_back(arguments: Mapping[str, Any], states: Sequence[Mapping[str, Any]]) -> None:
    """Let callbacks remember what those at their place did; after they have begun, as they forget it then."""
    mine = [each for each in _all(arguments) if _memory(each)]
    for callback, state in zip(mine, states, strict=False):
        if state["class"] == name_of(callback):
            for name in _memory(callback):
                setattr(callback, name, state[name])


def _memory(callback: Any) -> tuple[str, ...]:
    return next((names for kind, names in _MEMORIES if isinstance(callback, kind)), ())


def _plain(value: Any) -> int | float | None:
    return value if value is None or isinstance(value, int) else float(value)


def doubts(arguments: Mapping[str, Any], callback: Any, *, in_epoch: bool) -> list[str]:
    """Return what callbacks do that its versions do not hold.

    Args:
        arguments: Of ``fit``.
        callback: The VersionCheckpoint.
        in_epoch: Whether it saved inside of an epoch.
    """
    reasons = []
    everyone = list(_all(arguments))
    place = next((index for index, each in enumerate(everyone) if each is callback), len(everyone))
    harmless = {id(each) for each in everyone} - {id(each) for each in acting(arguments)}
    hook = "on_train_batch_end" if in_epoch else "on_epoch_end"
    for index, each in enumerate(everyone):
        name = type(each).__name__
        if id(each) in harmless or isinstance(each, keras.callbacks.SwapEMAWeights):
            continue
        if index > place and _does(each, hook):
            reasons.append(f"{name} acts after the version is made: let VersionCheckpoint stand behind it")
        if in_epoch and not _of_keras(each) and _does(each, "on_epoch_begin"):
            reasons.append(f"{name} acts when an epoch begins, which it does once more")
        if isinstance(each, keras.callbacks.EarlyStopping) and each.restore_best_weights:
            reasons.append("the best weights that EarlyStopping keeps in memory are not those of before")
        if isinstance(each, keras.callbacks.BackupAndRestore):
            reasons.append("BackupAndRestore puts back a state of its own")
    return reasons


def _of_keras(callback: Any) -> bool:
    return (
        type(callback).__module__.partition(".")[0] == "keras"
        and type(callback) is not keras.callbacks.LambdaCallback
    )


def _does(callback: Any, hook: str) -> bool:
    base = {keras.callbacks.Callback}
    older = {"on_train_batch_end": "on_batch_end"}.get(hook, hook)
    return any(
        name in vars(callback)
        or any(name in vars(kind) for kind in type(callback).__mro__ if kind not in {*base, object})
        for name in {hook, older}
    )
