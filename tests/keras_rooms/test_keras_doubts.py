"""Keras trainings that keep to themselves what no version holds: never called exact where they are not."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras_models import BACKEND, compiled, data, small

from mvc_callbacks import VersionStore
from mvc_callbacks.keras import VersionCheckpoint

X, Y = data()
COUNTED = {"steps": 0}
BATCHES = 6


class Private(keras.layers.Layer):
    """Counts in an attribute that a subclass of Keras' would call its own."""

    def __init__(self) -> None:
        super().__init__()
        self._calls = 0

    def call(self, x: Any, training: bool = False) -> Any:
        self._calls += bool(training)
        return x * (1 + 0.01 * self._calls)


class Constant(keras.layers.Layer):
    """The near miss: what it keeps stays as it is."""

    def __init__(self) -> None:
        super().__init__()
        self._scale, self._names = 1.5, ["a", "b"]

    def call(self, x: Any) -> Any:
        return x * self._scale


class OfClass(keras.layers.Layer):
    """Counts in its class."""

    calls = 0

    def call(self, x: Any, training: bool = False) -> Any:
        OfClass.calls += bool(training)
        return x * (1 + 0.01 * OfClass.calls)


class Global(keras.layers.Layer):
    """Counts in a global dict."""

    def call(self, x: Any, training: bool = False) -> Any:
        COUNTED["steps"] += bool(training)
        return x * (1 + 0.01 * COUNTED["steps"])


def with_layer(kind: Any) -> Any:
    layers = [keras.Input((4,)), keras.layers.Dense(6), kind(), keras.layers.Dense(1)]
    return compiled(keras.Sequential(layers), run_eagerly=True)


def with_lambda() -> Any:
    counted = {"steps": 0}

    def count(x: Any) -> Any:
        counted["steps"] += 1
        return x * (1 + 0.01 * counted["steps"])

    return with_layer(lambda: keras.layers.Lambda(count))


def lower(rate: Any, by: int) -> float:
    return 0.02 / (1 + by)


class Slowing:
    def __init__(self) -> None:
        self._epochs = 0

    def next(self, epoch: int, rate: float) -> float:
        self._epochs += 1
        return lower(rate, self._epochs)


def scheduled() -> list[Any]:
    return [keras.callbacks.LearningRateScheduler(Slowing().next)]


def scheduled_by_the_epoch() -> list[Any]:
    return [keras.callbacks.LearningRateScheduler(lambda epoch, rate: lower(rate, epoch))]


def by_attribute_of_a_function() -> list[Any]:
    class Steps(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            step.calls += 1  # type: ignore[attr-defined]
            self.model.optimizer.learning_rate = lower(None, step.calls)  # type: ignore[attr-defined]

    def step() -> None: ...

    step.calls = 0  # type: ignore[attr-defined]
    return [Steps()]


def stopped() -> list[Any]:
    return [keras.callbacks.EarlyStopping("loss", patience=2, min_delta=9.0)]


class Batches(keras.utils.PyDataset):
    """Shuffles in place after each epoch, by a generator of its own; all of it private."""

    def __init__(self, shuffled: bool) -> None:
        super().__init__()
        self._order, self._rng, self._shuffled = np.arange(len(X)), np.random.default_rng(5), shuffled

    def __len__(self) -> int:
        return BATCHES

    def __getitem__(self, index: int) -> Any:
        chosen = self._order[index * 8 : index * 8 + 8]
        return X[chosen], Y[chosen]

    def on_epoch_end(self) -> None:
        if self._shuffled:
            self._rng.shuffle(self._order)


class Noisy(Batches):
    """Its generator is found, and put back."""

    def __getitem__(self, index: int) -> Any:
        x, y = super().__getitem__(index)
        return x + self._rng.normal(size=x.shape).astype("float32"), y


def arrays() -> dict[str, Any]:
    return {"x": X, "y": Y, "batch_size": 8, "shuffle": False}


def weighted() -> dict[str, Any]:
    return {**arrays(), "sample_weight": np.linspace(0, 1, len(X)), "shuffle": True}


def fit(callback: Any, make: Any, callbacks: Any, fed: Any, **options: Any) -> Any:
    made = make()
    made.fit(**fed(), epochs=4, verbose=0, callbacks=[*callbacks(), callback], **options)
    return callback.last_version


def outcome(
    store: VersionStore,
    make: Callable[[], Any] = small,
    callbacks: Callable[[], list[Any]] = list,
    fed: Callable[[], dict[str, Any]] = arrays,
    *,
    number: int = 2,
    **policy: Any,
) -> tuple[bool, Any]:
    """Train straight, and again from a version as in a new process; return whether both end the same."""
    ends = []
    for run, seed in (("straight", 11), ("resumed", 999)):
        COUNTED["steps"] = OfClass.calls = 0
        keras.utils.set_random_seed(seed)
        more = {"resume": f"straight/{number}"} if run == "resumed" else {"keep_training_state": "all"}
        ends.append(fit(VersionCheckpoint(store, run=run, **policy, **more), make, callbacks, fed))
    told = store.get("resumed/1").details.run_record["resume"]
    return ends[0].weights.digest == ends[1].weights.digest, told


@pytest.mark.filterwarnings("ignore:this run goes on from")
@pytest.mark.parametrize("policy", [{}, {"save_freq": 4}], ids=["at an epoch's end", "by step"])
@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({"make": lambda: with_layer(Private)}, "changes _calls"),
        ({"make": lambda: with_layer(OfClass)}, "changes OfClass.calls"),
        ({"make": lambda: with_layer(Global)}, "COUNTED.steps"),
        ({"make": with_lambda}, "changes counted.steps"),
        ({"callbacks": scheduled}, "changes self._epochs"),
        ({"callbacks": by_attribute_of_a_function}, "step.calls"),
        ({"fed": lambda: {"x": Batches(True), "shuffle": False}}, "_order"),
    ],
)
def test_what_is_lost_is_told(
    store: VersionStore, parts: dict[str, Any], reason: str, policy: dict[str, Any]
) -> None:
    _, promise = outcome(store, **parts, **policy)
    assert promise["guarantee"] == "approximate"
    assert any(reason in each for each in promise["reasons"]), promise


@pytest.mark.filterwarnings("ignore:this run goes on from")
@pytest.mark.parametrize("policy", [{}, {"save_freq": 4}], ids=["at an epoch's end", "by step"])
@pytest.mark.parametrize(
    "parts",
    [
        {"make": lambda: with_layer(Constant)},
        {"callbacks": scheduled_by_the_epoch},
        {"callbacks": stopped},
        {"fed": weighted},
        {"fed": lambda: {"x": Batches(False), "shuffle": False}},
    ],
)
def test_what_is_brought_back_is_exact(
    store: VersionStore, parts: dict[str, Any], policy: dict[str, Any]
) -> None:
    same, promise = outcome(store, **parts, **policy)
    assert promise == {"guarantee": "exact", "reasons": []}
    assert same


@pytest.mark.filterwarnings("ignore:this run goes on from")
def test_a_generator_that_data_keep_to_themselves_goes_on(store: VersionStore) -> None:
    same, promise = outcome(store, fed=lambda: {"x": Noisy(False), "shuffle": False})
    if BACKEND == "tensorflow":
        assert any("ahead of training" in each for each in promise["reasons"])
    else:
        assert promise == {"guarantee": "exact", "reasons": []}
        assert same


@pytest.mark.filterwarnings("ignore:this run goes on from")
def test_going_on_where_training_was_about_to_stop_is_told(store: VersionStore) -> None:
    same, promise = outcome(store, callbacks=stopped, number=3)
    assert not same
    assert promise["reasons"] == ["it was saved when training was about to stop, which goes on now"]


# Pipelines of tf.data


def interleaved(seed: int | None) -> Any:
    import tensorflow as tf

    def inner(index: Any) -> Any:
        part = tf.data.Dataset.from_tensor_slices((X, Y)).shard(2, index)
        return part.shuffle(48, seed=seed, reshuffle_each_iteration=True) if seed is not None else part

    return tf.data.Dataset.range(2).interleave(inner, cycle_length=2).batch(8)


def mapped(random: bool) -> Any:
    import tensorflow as tf

    noise = keras.layers.GaussianNoise(0.5, seed=3)

    def change(x: Any, y: Any) -> Any:
        return (noise(x, training=True) if random else x * 2.0), y

    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(8).map(change)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="pipelines of TensorFlow")
@pytest.mark.filterwarnings("ignore:this run goes on from")
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (functools.partial(interleaved, 3), "draws random numbers"),
        (functools.partial(mapped, True), "draws random numbers"),
        (functools.partial(interleaved, None), "have no fingerprint"),  # what is made inside cannot be told
        (functools.partial(mapped, False), None),
    ],
    ids=["shuffle inside of interleave", "seeded layer in map", "interleave alone", "map alone"],
)
def test_what_a_pipeline_draws_inside_of_its_functions_is_told(
    store: VersionStore, make: Any, reason: str | None
) -> None:
    same, promise = outcome(store, fed=lambda: {"x": make()})
    if reason is None:
        assert same
        assert promise == {"guarantee": "exact", "reasons": []}
    else:
        assert promise["guarantee"] == "approximate"
        assert any(reason in each for each in promise["reasons"]), promise
        assert any("draws" in each for each in promise["reasons"]) == reason.startswith("draws")
