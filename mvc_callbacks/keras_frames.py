"""The call of fit or evaluate that a hook runs in: Keras tells callbacks nothing of its arguments."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any

__all__ = ["arguments_of", "goes_on"]

_DEEPEST = 64
_WANTED = (
    "x",
    "y",
    "sample_weight",
    "validation_data",
    "validation_split",
    "batch_size",
    "validation_batch_size",
    "validation_freq",
    "validation_steps",
    "class_weight",
    "epoch_iterator",
    "callbacks",
    "epochs",
    "initial_epoch",
    "steps_per_epoch",
    "shuffle",
)


def arguments_of(model: Any, method: str) -> Mapping[str, Any] | None:
    """Return the arguments of the call of a model's method that is running now.

    Args:
        model: A Keras model.
        method: ``fit`` or ``evaluate``.

    Returns:
        Those of its arguments that are of interest, as Keras understood them (a validation split is made
        already); None
        where Keras' own method does not run, as in a training loop of one's own.
    """
    frame: FrameType | None = sys._getframe(1)
    for _ in range(_DEEPEST):
        if frame is None:
            return None
        if _is_call(frame, method) and frame.f_locals.get("self") is model:
            return {name: frame.f_locals[name] for name in _WANTED if name in frame.f_locals}
        frame = frame.f_back
    return None


def goes_on(callbacks: Callable[[], Any], frame: FrameType | None) -> bool | None:
    """Tell whether one call of Keras' fit goes on.

    Args:
        callbacks: Returns the list that Keras made of the callbacks of that call, and of no other.
        frame: The innermost one, such as a signal came in.

    Returns:
        False if another fit runs within it; None if it is over.
    """
    innermost, wanted = True, callbacks()
    while frame is not None:
        if _is_call(frame, "fit"):
            if wanted is not None and frame.f_locals.get("callbacks") is wanted:
                return innermost
            innermost = False
        frame = frame.f_back
    return None


def _is_call(frame: FrameType, method: str) -> bool:
    return frame.f_code.co_name == method and str(frame.f_globals.get("__name__")).startswith("keras.")
