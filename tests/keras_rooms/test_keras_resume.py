"""Promises of resuming in Keras: the same bits where that is said, and the reason where it is not."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import keras_resume_scenarios as scenarios
import numpy as np
import pytest
from keras_models import BACKEND, compiled, data, small
from keras_resume_scenarios import EPOCHS, SCENARIOS, Scenario

from mvc_callbacks import VersionStore, keras_private, keras_random, restore_version
from mvc_callbacks.errors import DataChanged, MVCWarning
from mvc_callbacks.keras import VersionCheckpoint

HERE = Path(__file__).parent
X, Y = data()
TENSORFLOW = BACKEND == "tensorflow"


def resume_of(store: VersionStore, run: str) -> Any:
    return store.get(f"{run}/1").details.run_record["resume"]


def fit(scenario: Scenario, callback: Any) -> Any:
    """Fit as a scenario says, in this process."""
    x, y = scenarios.arrays()
    fed: dict[str, Any] = {"x": x, "y": y, "batch_size": scenarios.BATCH, "shuffle": scenario.shuffle}
    if scenario.loader != "arrays":
        fed = {"x": scenarios.loader_of(scenario, bool(scenarios.NOW["resumed"]))}
        if scenario.loader.startswith("PyDataset"):
            fed["shuffle"] = scenario.shuffle
    model = scenarios.model_of(scenario)
    behind = scenarios.watchers(replace(scenario, watch=scenario.behind))
    model.fit(
        **fed,
        epochs=EPOCHS,
        steps_per_epoch=scenario.steps,
        validation_data=(x[:8], y[:8]) if scenario.validation else None,
        verbose=0,
        callbacks=[*scenarios.watchers(scenario), callback, *behind],
    )
    return callback.last_version


IN_PROCESS = [
    "adam, accumulation 2",
    "shuffle=False",
    "shuffled inside of batches",
    "float16 with a scaled loss",
    "plateau",
    "early stopping",
    "swapped averages",
    "a callback that draws, before",
    "a callback that draws, behind",
    "plateau behind",
    "state that no version holds",
    "a layer's own generator",
    "steps_per_epoch",
    "keras.random without a seed",
    "PyDataset",
    "PyDataset that draws",
    "PyDataset that shuffles itself",
    "PyDataset, workers 2",
    "generator",
    "by step",
    "by step, on an epoch's last batch",
    "by step, schedule by epochs",
    "by step, PyDataset that draws",
    "by step, three steps at once",
    "random operations of TensorFlow",
    "tf.data by step",
    "tf.data, shuffled once, by step",
    "tf.data, shuffled once, other seed",
    "tf.data, shuffled each epoch",
    "tf.data with a random map",
]


@pytest.mark.filterwarnings("ignore:this run goes on from")
@pytest.mark.parametrize(
    "scenario",
    [each for each in SCENARIOS if each.name in IN_PROCESS],
    ids=lambda each: each.name,
)
def test_a_resumed_training_does_as_promised(
    scenario: Scenario, store: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    if scenario.expected == "ahead of training" and not TENSORFLOW:
        pytest.skip("only TensorFlow reads ahead")
    keras.config.set_dtype_policy(scenario.precision)
    try:
        keras.utils.set_random_seed(11)
        policy: dict[str, Any] = {"save_freq": scenario.save_freq, "monitor": "loss"}
        straight = fit(
            scenario, VersionCheckpoint(store, run="straight", keep_training_state="all", **policy)
        )
        keras.utils.set_random_seed(11 if scenario.same_seed else 999)
        monkeypatch.setitem(scenarios.NOW, "resumed", 1)
        epoch, batch = scenario.at
        batches = epoch * scenarios.BATCHES + batch + 1
        number = epoch + 1 if scenario.save_freq == "epoch" else batches // int(scenario.save_freq)
        resumed = fit(
            scenario, VersionCheckpoint(store, run="resumed", resume=f"straight/{number}", **policy)
        )
    finally:
        keras.config.set_dtype_policy("float32")
    told = resume_of(store, "resumed")
    if scenario.expected == "exact":
        assert told == {"guarantee": "exact", "reasons": []}
        assert resumed.weights.digest == straight.weights.digest
        assert resumed.metrics == straight.metrics
        assert resumed.step == straight.step
    else:
        assert told["guarantee"] == "approximate"
        assert any(scenario.expected in each for each in told["reasons"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adam, accumulation 1", "by step", "SIGKILL"])
def test_in_a_new_process_with_another_seed(name: str, tmp_path: Path) -> None:
    environment = {**os.environ, "KERAS_BACKEND": BACKEND, "PYTHONPATH": str(HERE.parent.parent)}
    done = subprocess.run(
        [
            sys.executable,
            str(HERE / "keras_resume_scenarios.py"),
            "--quick",
            str(tmp_path / "rows.md"),
            name,
        ],
        capture_output=True,
        text=True,
        env=environment,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_resuming_needs_of_keras_is_still_there(store: VersionStore) -> None:
    class Look(keras.callbacks.Callback):
        def on_train_begin(self, logs: Any = None) -> None:
            session = callback._session
            assert session is not None
            found.append(session.resuming._missing)

    found: list[Any] = []
    callback = VersionCheckpoint(store)
    small().fit(X, Y, epochs=1, verbose=0, callbacks=[callback, Look()])
    assert found == [[]]
    keras.random.normal((1,))
    assert keras_private.global_seed() is not None
    if TENSORFLOW:
        assert keras_private.tensorflow() is not None


def test_the_list_of_callbacks_is_left_as_it_was(store: VersionStore) -> None:
    model = small()
    given = keras.callbacks.CallbackList([VersionCheckpoint(store)], add_history=True, model=model, epochs=1)
    model.fit(X, Y, epochs=1, verbose=0, callbacks=given)
    assert "on_epoch_begin" not in vars(given)


def draw() -> Any:
    told = [random.random(), np.random.rand(), keras.ops.convert_to_numpy(keras.random.normal((2,))).tolist()]
    if "torch" in sys.modules:
        import torch

        told.append(torch.rand(1).item())
    if TENSORFLOW:
        import tensorflow as tf

        told.append(tf.random.normal((1,)).numpy().tolist())
    return told


@pytest.mark.parametrize("used", [False, True], ids=["fresh", "used"])
def test_every_random_state_comes_back(used: bool) -> None:
    keras.utils.set_random_seed(3)
    if used:
        draw()
    state = keras_random.capture()
    first = draw()
    keras.utils.set_random_seed(4)
    draw()
    keras_random.put_back(state)
    assert draw() == first


def test_restoring_the_training_state_puts_the_random_state_back_too(store: VersionStore) -> None:
    class Draws(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            drawn.append(draw())

    drawn: list[Any] = []
    small().fit(X, Y, epochs=1, verbose=0, callbacks=[VersionCheckpoint(store, run="job"), Draws()])
    model = small()
    keras.utils.set_random_seed(99)
    restore_version("job/1", model, store=store)
    assert draw() != drawn[0]
    restore_version("job/1", model, store=store, training_state=True)
    assert draw() == drawn[0]


@pytest.mark.skipif(not TENSORFLOW, reason="TensorFlow's order hangs on its seed when fit begins")
def test_restored_before_fit_an_order_of_tensorflow_goes_on(store: VersionStore) -> None:
    scenario = Scenario("by hand")
    keras.utils.set_random_seed(11)
    straight = fit(scenario, VersionCheckpoint(store, run="straight", keep_training_state="all"))
    keras.utils.set_random_seed(999)
    model = scenarios.model_of(scenario)
    restore_version("straight/2", model, store=store, training_state=True)
    x, y = scenarios.arrays()
    callback = VersionCheckpoint(store, run="by-hand")
    model.fit(
        x,
        y,
        batch_size=scenarios.BATCH,
        initial_epoch=2,
        epochs=EPOCHS,
        validation_data=(x[:8], y[:8]),
        verbose=0,
        callbacks=[callback],
    )
    assert callback.last_version is not None
    assert callback.last_version.weights.digest == straight.weights.digest


@pytest.mark.skipif(not TENSORFLOW, reason="the other backends draw their order from what is put back")
def test_an_order_without_a_seed_is_told(store: VersionStore) -> None:
    import tensorflow as tf

    tf.random.set_seed(1)
    tf.random.set_seed(None)  # type: ignore[arg-type]
    small().fit(X, Y, epochs=1, verbose=0, callbacks=[VersionCheckpoint(store, run="job")])
    with pytest.warns(MVCWarning, match="approximate: TensorFlow had no seed.*set_random_seed"):
        small().fit(X, Y, epochs=2, verbose=0, callbacks=[VersionCheckpoint(store, run="job", resume="last")])
    callback = VersionCheckpoint(store, run="still", resume="job")
    with pytest.warns(MVCWarning, match="TensorFlow had no seed"):
        small().fit(X, Y, epochs=2, verbose=0, shuffle=False, callbacks=[callback])  # then, it was shuffled


# What is not the same is told


def change_of(store: VersionStore, then: Any, now: Any, **options: Any) -> list[str]:
    """Resume with something else than before, and return the reasons that are told."""
    keras.utils.set_random_seed(1)
    then().fit(X, Y, epochs=1, verbose=0, callbacks=[VersionCheckpoint(store, run="job")])
    callbacks = [*options.pop("callbacks", []), VersionCheckpoint(store, run="other", resume="job")]
    with pytest.warns(MVCWarning, match="this run goes on from job/1: approximate"):
        now().fit(X, Y, epochs=2, verbose=0, callbacks=callbacks, **options)
    reasons: list[str] = resume_of(store, "other")["reasons"]
    return reasons


def other_activation() -> Any:
    return compiled(
        keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(1)])
    )


def one_activation() -> Any:
    return compiled(
        keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(1)])
    )


def test_another_model_of_the_same_shapes_is_told(store: VersionStore) -> None:
    reasons = change_of(store, one_activation, other_activation)
    assert any(each.startswith("the digest of the layers was") for each in reasons)


def test_the_same_model_built_again_is_the_same(store: VersionStore) -> None:
    for number in (1, 2):
        callback = VersionCheckpoint(store, run="job", resume="last" if number == 2 else None)
        keras.utils.set_random_seed(number)
        small().fit(X, Y, epochs=number, verbose=0, callbacks=[callback])
    assert resume_of(store, "job-2") == {"guarantee": "exact", "reasons": []}


def test_another_learning_rate_is_told(store: VersionStore) -> None:
    def faster() -> Any:
        return small(optimizer=keras.optimizers.Adam(0.5))

    reasons = change_of(store, small, faster)
    assert any("learning_rate was 0.01" in each for each in reasons)


def test_other_batches_validation_and_callbacks_are_told(store: VersionStore) -> None:
    reasons = change_of(
        store,
        small,
        small,
        batch_size=7,
        class_weight=None,
        validation_data=(X, Y),
        callbacks=[keras.callbacks.ReduceLROnPlateau("loss")],
    )
    text = "; ".join(reasons)
    for part in ("batch_size was 32 and is 7", "validation was none", "the callbacks was"):
        assert part in text


def test_a_version_without_random_state_is_never_called_exact(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mvc_callbacks.keras_resume import Resuming

    with monkeypatch.context() as patch:
        patch.setattr(Resuming, "keep", lambda self, batch: None)
        small().fit(X, Y, epochs=1, verbose=0, callbacks=[VersionCheckpoint(store, run="job")])
    with pytest.warns(MVCWarning, match="approximate: no random state was kept"):
        small().fit(X, Y, epochs=2, verbose=0, callbacks=[VersionCheckpoint(store, run="job", resume="last")])


def test_an_epoch_that_was_cut_short_is_told(store: VersionStore) -> None:
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if batch == 2:
                self.model.stop_training = True

    keras.utils.set_random_seed(1)
    model, callback = small(), VersionCheckpoint(store, run="job")
    model.fit(X, Y, batch_size=8, epochs=3, verbose=0, callbacks=[Stop(), callback])
    with pytest.warns(MVCWarning, match="cut short after 3 of 6 batches"):
        resumed = VersionCheckpoint(store, run="job", resume="last")
        small().fit(X, Y, batch_size=8, epochs=2, verbose=0, callbacks=[resumed])


# The data must still be the data


def fit_data(store: VersionStore, x: Any, run: str, epochs: int, **options: Any) -> None:
    keras.utils.set_random_seed(1)
    model = options.pop("model", None) or small()
    model.fit(x, Y, epochs=epochs, verbose=0, callbacks=[VersionCheckpoint(store, run=run, **options)])


def test_other_data_are_told_and_nothing_exact_is_promised(store: VersionStore) -> None:
    fit_data(store, X, "job", 1)
    with pytest.warns(MVCWarning, match=r"not the data that version job/1 was trained on: the data 'train'"):
        fit_data(store, X + 1, "other", 2, resume="job")
    assert resume_of(store, "other")["guarantee"] == "approximate"


def test_other_data_stop_a_resume_where_that_is_asked_for(store: VersionStore) -> None:
    fit_data(store, X, "job", 1)
    fit_data(store, X, "same", 2, resume="job", on_data_change="error")
    assert resume_of(store, "same") == {"guarantee": "exact", "reasons": []}
    model = small()
    with pytest.raises(DataChanged, match="on_data_change='warn'"):
        fit_data(store, X + 1, "other", 2, resume="job", on_data_change="error", model=model)
    assert [each.label for each in store.runs()] == ["job", "same"]
    assert model.fit(X, Y, epochs=1, verbose=0).epoch == [0]  # no trace of the resume is left


def test_data_that_are_not_compared_are_not_promised(store: VersionStore) -> None:
    fit_data(store, X, "job", 1)
    with pytest.warns(MVCWarning, match="not compared"):
        fit_data(store, X + 1, "other", 2, resume="job", on_data_change="ignore")


def test_changed_files_are_listed(store: VersionStore, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    for number in range(4):
        (folder / f"{number}.txt").write_text(str(number))
    fit_data(store, X, "job", 1, data=folder)
    (folder / "1.txt").write_text("other")
    (folder / "2.txt").unlink()
    (folder / "4.txt").write_text("4")
    with pytest.warns(
        MVCWarning, match=r"1 added \(.*4\.txt\), 1 removed \(.*2\.txt\), 1 changed \(.*1\.txt\)"
    ):
        fit_data(store, X, "other", 2, data=folder, resume="job")


def test_other_data_are_told_when_a_restored_model_is_trained(store: VersionStore) -> None:
    fit_data(store, X, "job", 1)
    model = restore_version("job/1", small(), store=store)
    with pytest.warns(MVCWarning, match="not the data that version job/1 was trained on"):
        fit_data(store, X + 1, "tuned", 1, model=model)
    assert "resume" not in store.get("tuned/1").details.run_record


# Marks


def test_weights_that_are_not_finite_or_do_not_move_are_marked_and_told_once(store: VersionStore) -> None:
    with pytest.warns(MVCWarning, match="version still/2 has the weights of the version before") as told:
        model = small_without_statistics(rate=0.0)
        model.fit(X, Y, epochs=3, verbose=0, callbacks=[VersionCheckpoint(store, run="still")])
    assert [each.flags for each in store.versions("still")] == [(), ("stale",), ("stale",)]
    assert len([each for each in told if "the version before" in str(each.message)]) == 1
    with pytest.warns(MVCWarning, match="version broken/1 holds NaN or Inf"):
        callback = VersionCheckpoint(store, run="broken")
        small().fit(X, np.full_like(Y, np.nan), epochs=2, verbose=0, callbacks=[callback])
    assert all("nonfinite" in each.flags for each in store.versions("broken"))


def small_without_statistics(rate: float) -> Any:
    layers = [keras.Input((4,)), keras.layers.Dense(8), keras.layers.Dropout(0.2), keras.layers.Dense(1)]
    return compiled(keras.Sequential(layers), keras.optimizers.SGD(rate))
