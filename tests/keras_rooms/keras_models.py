"""Small models, data and callbacks for real fits that take a moment."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

BACKEND = keras.backend.backend()
SCORES = [3.0, 1.0, 2.0, 0.5, 4.0, 0.5, 0.25, 9.0, 1.5, 2.5, 0.1]


def data(rows: int = 48, width: int = 4) -> tuple[Any, Any]:
    generator = np.random.default_rng(3)
    x = generator.normal(size=(rows, width)).astype("float32")
    return x, x.sum(axis=1, keepdims=True)


def compiled(model: Any, optimizer: Any = None, **options: Any) -> Any:
    model.compile(optimizer or keras.optimizers.Adam(0.01), "mse", metrics=["mae"], **options)
    return model


def small(units: int = 8, **options: Any) -> Any:
    """A functional model with statistics, a seed and dropout."""
    inputs = keras.Input((4,))
    x = keras.layers.Dense(units, activation="relu")(inputs)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Dropout(0.25, seed=5)(x)  # unseeded, torch draws from its global generator
    return compiled(keras.Model(inputs, keras.layers.Dense(1)(x)), **options)


class Zigzag(keras.callbacks.Callback):
    """Puts a fixed score into the logs; it has to stand before those that read it."""

    def __init__(self, scores: list[float] = SCORES) -> None:
        super().__init__()
        self.scores = scores
        self.epochs = self.batches = 0

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs["score"] = self.scores[epoch % len(self.scores)]

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        logs["score"] = self.scores[self.batches % len(self.scores)]
        self.batches += 1


def values(variables: Any) -> list[Any]:
    """Return copies of variables, as bytes."""
    return [keras.ops.convert_to_numpy(each).tobytes() for each in variables]


def predictions(model: Any, x: Any) -> bytes:
    return bytes(keras.ops.convert_to_numpy(model(x, training=False)).tobytes())
