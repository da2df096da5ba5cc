"""keras-tuner deep-copies callbacks and gives them no trial; a HyperModel's own fit does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import pytest
from keras_models import data

from mvc_callbacks import VersionStore, restore_version
from mvc_callbacks.keras import VersionCheckpoint

keras_tuner = pytest.importorskip("keras_tuner")


def build(units: int, rate: float) -> Any:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(units, "relu"), keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(rate), "mse")
    return model


def test_a_search_makes_one_run_for_each_trial_and_best_is_that_of_the_best_trial(tmp_path: Path) -> None:
    store = VersionStore(tmp_path / "versions")

    class Tuned(keras_tuner.HyperModel):  # type: ignore[misc]
        def build(self, hp: Any) -> Any:
            return build(hp.Int("units", 2, 16), hp.Float("rate", 1e-3, 1e-1, sampling="log"))

        def fit(self, hp: Any, model: Any, *args: Any, callbacks: Any = (), **kwargs: Any) -> Any:
            ours = VersionCheckpoint(store, run="search", hyperparameters=hp.values)
            return model.fit(*args, callbacks=[*callbacks, ours], **kwargs)

    tuner = keras_tuner.RandomSearch(
        Tuned(), objective="val_loss", max_trials=3, directory=tmp_path / "tuner", seed=3, overwrite=True
    )
    x, y = data()
    tuner.search(x, y, validation_split=0.25, epochs=2, verbose=0)
    assert [each.label for each in store.runs()] == ["search", "search-2", "search-3"]
    assert [each.versions for each in store.runs()] == [2, 2, 2]
    best = store.get("best")
    [trial] = tuner.oracle.get_best_trials(1)
    assert best.metrics["val_loss"] == trial.score
    assert {name: best.hyperparameters[name] for name in ("units", "rate")} == trial.hyperparameters.values
    restored = restore_version("best", build, store=store)
    assert restored.layers[0].units == trial.hyperparameters.values["units"]


def test_a_callback_given_to_search_makes_a_run_for_each_trial_too(tmp_path: Path) -> None:
    store = VersionStore(tmp_path / "versions")
    tuner = keras_tuner.RandomSearch(
        lambda hp: build(hp.Int("units", 2, 16), 0.01),
        objective="val_loss",
        max_trials=2,
        directory=tmp_path / "tuner",
    )
    x, y = data()
    given = VersionCheckpoint(store, run="given")
    tuner.search(x, y, validation_split=0.25, epochs=1, verbose=0, callbacks=[given])
    assert [each.label for each in store.runs()] == ["given", "given-2"]
    assert given.run_name is None
