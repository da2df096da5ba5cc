"""Real architectures: a version, a fresh process, a rebuilt model, the same bits and the same digest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras_models import BACKEND

from mvc_callbacks import VersionStore, restore_version
from mvc_callbacks.keras import VersionCheckpoint
from mvc_callbacks.keras_state import state_digests
from mvc_callbacks.tensors import weights_digest

pytestmark = pytest.mark.slow


def mobilenet() -> Any:
    return keras.applications.MobileNetV2((32, 32, 3), alpha=0.35, weights=None, classes=3)


def efficientnet() -> Any:
    return keras.applications.EfficientNetB0(weights=None, input_shape=(32, 32, 3), classes=3)


def lstm() -> Any:
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.Reshape((32, 96))(inputs)
    x = keras.layers.Bidirectional(keras.layers.LSTM(8, return_sequences=True, dropout=0.1))(x)
    return keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(keras.layers.LSTM(6)(x)))


def shared() -> Any:
    inputs = keras.Input((32, 32, 3))
    layer, norm = keras.layers.Conv2D(3, 3, padding="same"), keras.layers.BatchNormalization()
    x = norm(layer(norm(layer(inputs))))
    return keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(keras.layers.Flatten()(x)))


class Noise(keras.layers.Layer):
    """A custom layer with a seed generator."""

    def __init__(self, seed: int = 3, **options: Any) -> None:
        super().__init__(**options)
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, x: Any, training: bool = False) -> Any:
        return x + keras.random.normal(keras.ops.shape(x), seed=self.seed_generator) if training else x


def seeded() -> Any:
    layers = [keras.Input((32, 32, 3)), Noise(), keras.layers.Flatten(), keras.layers.Dropout(0.3, seed=1)]
    return keras.Sequential([*layers, keras.layers.Dense(3, activation="softmax")])


def augmented() -> Any:
    layers = [
        keras.Input((32, 32, 3)),
        keras.layers.RandomFlip(seed=1),
        keras.layers.RandomRotation(0.1, seed=2),
        keras.layers.RandomContrast(0.2, seed=3),
        keras.layers.Rescaling(1 / 2),
        keras.layers.Conv2D(4, 3),
        keras.layers.GlobalAveragePooling2D(),
    ]
    return keras.Sequential([*layers, keras.layers.Dense(3, activation="softmax")])


MODELS: dict[str, Callable[[], Any]] = {
    "mobilenet": mobilenet,
    "efficientnet": efficientnet,
    "lstm": lstm,
    "shared": shared,
    "seeded": seeded,
    "augmented": augmented,
}


def images() -> Any:
    return np.random.default_rng(1).uniform(size=(4, 32, 32, 3)).astype("float32")


def measure(model: Any) -> dict[str, str]:
    """Tell a model's weights digest and its predictions."""
    digest = weights_digest(
        state_digests(model.variables)
    )  # first: an LSTM draws from its seed when it predicts
    told = keras.ops.convert_to_numpy(model(images(), training=False))
    return {"digest": digest, "predictions": told.tobytes().hex()}


def restore_all(store: str) -> None:
    """Runs in a process of its own."""
    told = {}
    for name, make in MODELS.items():
        for _ in range(2):
            make()  # the layers of what is built next have other names
        told[name] = measure(restore_version(f"run-{name}", make, store=store))
    print(json.dumps(told))


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[dict[str, str], dict[str, str], str]]:
    """Train each model, restore it elsewhere: what was measured here, there, and the recorded digest."""
    path = tmp_path_factory.mktemp("real") / "versions"
    here, digests = {}, {}
    for name, make in MODELS.items():
        model = make()
        # Eagerly: compiling EfficientNet's graph would take longer than everything else here.
        model.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=True)
        callback = VersionCheckpoint(path, run=f"run-{name}", monitor="loss")
        model.fit(images(), np.arange(4) % 3, batch_size=2, epochs=1, verbose=0, callbacks=[callback])
        here[name] = measure(model)
        assert callback.last_version is not None
        digests[name] = callback.last_version.weights.digest
    program = f"import test_keras_real_models as t; t.restore_all({str(path)!r})"
    folders = [str(Path(__file__).parent), str(Path(__file__).parents[2])]
    environment = {**os.environ, "KERAS_BACKEND": BACKEND, "PYTHONPATH": os.pathsep.join(folders)}
    ended = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=500
    )
    assert ended.returncode == 0, ended.stderr
    there = json.loads(ended.stdout.splitlines()[-1])
    assert VersionStore(path).verify(full=True).ok
    return {name: (here[name], there[name], digests[name]) for name in MODELS}


@pytest.mark.parametrize("name", MODELS)
def test_the_same_predictions_and_digest_in_a_fresh_process(name: str, both: Any) -> None:
    here, there, recorded = both[name]
    assert there["predictions"] == here["predictions"]
    assert there["digest"] == here["digest"] == recorded
