"""Averaged weights: which ones a Keras model holds at this moment, its own or their moving average."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import keras

from mvc_callbacks.errors import MVCWarning
from mvc_callbacks.snapshot import WeightsOf

__all__ = ["Averages"]


class Averages:
    """The optimizer's moving average of the weights, and SwapEMAWeights that puts it into the model.

    Args:
        model: The model.
        arguments: Of ``fit``, with its callbacks; None where they could not be found.
    """

    def __init__(self, model: Any, arguments: Mapping[str, Any] | None) -> None:
        callbacks = (arguments or {}).get("callbacks")
        listed = getattr(callbacks, "callbacks", callbacks)
        self._swappers = [
            each
            for each in (listed if isinstance(listed, (list, tuple)) else ())
            if isinstance(each, keras.callbacks.SwapEMAWeights)
        ]

    @property
    def in_model(self) -> bool:
        """Whether SwapEMAWeights has exchanged them: the training weights are then in the optimizer."""
        # It tells nobody else; its attribute is there since the class is, in Keras 3.2.
        return any(getattr(each, "_ema_weights_in_model", False) for each in self._swappers)

    def kind_of(self, model: Any) -> WeightsOf:
        """Tell which weights the model holds: those of training, or their average."""
        if self.in_model:
            return "average"
        for each in _optimizers(model.optimizer):
            every = getattr(each, "ema_overwrite_frequency", None)
            if getattr(each, "use_ema", False) and every:
                steps = int(keras.ops.convert_to_numpy(each.iterations))
                if steps and steps % every == 0:
                    return "average"  # the optimizer has just written it over the weights
        return "training"

    def put_back(self, model: Any, were_in_model: bool, name: str) -> None:
        """Let the restored weights be what they were; SwapEMAWeights exchanges them as the epoch begins."""
        for each in self._swappers:
            each._ema_weights_in_model = were_in_model
        if were_in_model and not self._swappers:
            warnings.warn(
                f"version {name} holds averaged weights, which SwapEMAWeights had put into the model; it "
                "is not among the callbacks now, so training goes on from the average",
                MVCWarning,
                stacklevel=6,
            )


def _optimizers(optimizer: Any) -> Iterator[Any]:
    """Go through an optimizer and those that it wraps."""
    if optimizer is None:
        return
    yield optimizer
    inner = getattr(optimizer, "inner_optimizer", None)
    yield from _optimizers(inner)
    for each in getattr(optimizer, "optimizers", None) or ():
        yield from _optimizers(each)
