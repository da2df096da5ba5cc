"""Keras: the callback beside Keras' own ModelCheckpoint, on TensorFlow."""

from __future__ import annotations

import functools
import os
import statistics
import time
from typing import Any

from benchmarks.harness import Row, Table, alternate, apart, installed

_PEER = "keras ModelCheckpoint (.keras)"


def tables(quick: bool) -> list[Table]:
    """Measure; about seven minutes."""
    if not (installed("keras") and installed("tensorflow")):
        return []
    given: dict[str, Any] = {"layers": 2, "width": 64} if quick else {"layers": 32, "width": 2000}
    first = apart(fit, saver=_PEER, batches=2, epochs=2, tuned=True, **given)
    batches = max(1, round(statistics.mean(first["taken"]) / first["batch"]))
    given |= {"batches": batches, "epochs": 2 if quick else 3}
    contenders = {
        (name, tuned): functools.partial(apart, fit, saver=name, tuned=tuned, **given)
        for tuned in (True, False)
        for name in ("ours", _PEER)
    }
    results = alternate(contenders, 1 if quick else 5)
    rows = []
    for what, tuned, figure, bar in (
        ("taken", True, "taken from the training thread, per version", 0.15),
        ("fit", True, "the whole fit", 0.7),
        ("end", True, "– of it after the last epoch", None),
        ("fit", False, "the whole fit, without autotuning", 0.7),
        ("end", False, "– of that after the last epoch", None),
    ):
        ours, peer = (tuple(_one(each[what]) for each in results[name, tuned]) for name in ("ours", _PEER))
        rows.append(Row(figure, ours, "s", peer, _PEER, bar))
    return [
        Table(
            "Keras",
            "512 MB of weights, SGD, TensorFlow; a version at the end of each epoch, which takes about "
            "as long as one save of the peer and computes on the same two cores. Ours is fsynced, the "
            "peer's file is in the page cache only. Without autotuning: the data are a `tf.data.Dataset` "
            "whose option `autotune.enabled` is off.",
            tuple(rows),
        )
    ]


def _one(value: Any) -> float:
    return statistics.mean(value) if isinstance(value, list) else float(value)


def fit(saver: str, layers: int, width: int, batches: int, epochs: int, tuned: bool) -> dict[str, Any]:
    """Fit a stack of dense layers; return what hooks took, and the whole.

    Args:
        saver: ``ours``, or the peer.
        layers: How many.
        width: Of each.
        batches: In an epoch.
        epochs: How many.
        tuned: Whether TensorFlow tunes its pipeline while it runs, as it does by itself.
    """
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras
    import numpy
    import tensorflow as tf

    marks: dict[str, list[float]] = {"before": [], "after": [], "batch": []}

    class Mark(keras.callbacks.Callback):  # type: ignore[misc]
        def __init__(self, name: str) -> None:
            super().__init__()
            self._name = name

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            marks[self._name].append(time.perf_counter())

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if self._name == "before":
                marks["batch"].append(time.perf_counter())

    if saver == "ours":
        from mvc_callbacks.keras import VersionCheckpoint

        used: Any = VersionCheckpoint("store", run="bench")
    else:
        used = keras.callbacks.ModelCheckpoint("model-{epoch}.keras")
    keras.utils.set_random_seed(0)
    dense = [keras.layers.Dense(width, use_bias=False) for _ in range(layers)]
    model = keras.Sequential([keras.Input((width,)), *dense])
    # Small steps: weights that ended as NaN would be stored once, and cost nothing.
    model.compile(keras.optimizers.SGD(1e-3), "mse")
    x = numpy.full((batches * 8, width), 1e-3, "float32")
    data: tuple[Any, ...] = (x, x, 8)
    if not tuned:
        options = tf.data.Options()
        options.autotune.enabled = False
        data = (tf.data.Dataset.from_tensor_slices((x, x)).batch(8).with_options(options),)
    os.sync()
    started = time.perf_counter()
    model.fit(*data, epochs=epochs, verbose=0, callbacks=[Mark("before"), used, Mark("after")])
    ended = time.perf_counter()
    if not numpy.isfinite(model.layers[0].kernel.numpy()).all():
        raise RuntimeError("the weights are no numbers any more: the fit is none that anybody would save")
    batch = [b - a for a, b in zip(marks["batch"], marks["batch"][1:], strict=False)]
    return {
        "taken": [b - a for a, b in zip(marks["before"], marks["after"], strict=True)],
        "batch": sorted(batch)[0] if batch else 0.1,
        "fit": ended - started,
        "end": ended - marks["after"][-1],
    }
