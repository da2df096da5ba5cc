"""Promises of VersionCheckpoint in a fit: what is recorded, and what becomes of it however the fit ends."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras_models import BACKEND, compiled, data, predictions, small, values

from mvc_callbacks import VersionStore, restore_version
from mvc_callbacks.errors import BadName, Misconfigured, MVCWarning, PrunedVersion, SaveFailed, UnknownRef
from mvc_callbacks.keras import VersionCheckpoint
from mvc_callbacks.recorder import Recorder


def fit(model: Any, *callbacks: Any, **options: Any) -> Any:
    x, y = data()
    given: dict[str, Any] = {"epochs": 3, "batch_size": 8, "validation_split": 0.25, "verbose": 0, **options}
    return model.fit(x, y, callbacks=list(callbacks), **given)


# What is recorded


def test_every_epoch_is_a_version_with_the_logs_of_the_epoch(store: VersionStore) -> None:
    callback = VersionCheckpoint(store, run="baseline")
    history = fit(small(), callback).history
    made = store.versions("baseline")
    assert [each.epoch for each in made] == [0, 1, 2]
    assert [each.step for each in made] == [5, 10, 15]
    for number, version in enumerate(made):
        assert version.framework == "keras"
        assert version.metrics == {name: values[number] for name, values in history.items()}
    assert callback.run_name == "baseline"
    assert callback.last_version == made[-1]
    best = min(made, key=lambda each: each.metrics["val_loss"])
    assert callback.best_version == best == store.get("baseline/best")
    assert store.verify(full=True).ok


def test_inside_of_an_epoch_the_last_known_logs_count(store: VersionStore) -> None:
    fit(small(), VersionCheckpoint(store, run="steps", save_freq=2), epochs=1)
    assert [each.details.record["keras"]["batch"] for each in store.versions()] == [1, 3]
    assert all(set(each.metrics) == {"loss", "mae"} for each in store.versions())


def test_the_compiled_model_tells_its_hyperparameters(store: VersionStore) -> None:
    callback = VersionCheckpoint(store, hyperparameters={"units": 8, "api_key": "secret"})
    fit(small(), callback)
    assert callback.last_version is not None
    told = callback.last_version.hyperparameters
    assert told["optimizer"]["class"] == "Adam"
    assert told["optimizer"]["learning_rate"] == 0.01
    assert told["loss"] == "mse"
    assert told["metrics"] == ["mae"]
    assert (told["batch_size"], told["epochs"], told["steps_per_epoch"]) == (8, 3, 5)
    assert told["units"] == 8
    assert "secret" not in repr(told)


def test_losses_and_schedules_of_ones_own_are_named(store: VersionStore) -> None:
    def own_loss(y: Any, p: Any) -> Any:
        return keras.ops.mean((y - p) ** 2)

    model = small()
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 10)
    model.compile(keras.optimizers.SGD(schedule), own_loss, metrics=[keras.metrics.MeanAbsoluteError()])
    callback = VersionCheckpoint(store)
    fit(model, callback)
    assert callback.last_version is not None
    told = callback.last_version.hyperparameters
    assert told["loss"] == "own_loss"
    assert told["optimizer"]["learning_rate"]["class"] == "CosineDecay"
    assert told["metrics"][0]["class"] == "MeanAbsoluteError"


def test_the_architecture_is_recorded_as_information(store: VersionStore) -> None:
    callback = VersionCheckpoint(store)
    fit(small(), callback)
    assert callback.last_version is not None
    run = callback.last_version.details.run_record
    assert "BatchNormalization" in run["architecture"]["json"]
    assert run["policy"]["save_freq"] == "epoch"
    assert run["environment"]


def test_runs_know_what_they_began_from(store: VersionStore) -> None:
    fit(small(), VersionCheckpoint(store, run="first"))
    model = restore_version("first/2", small(), store=store)
    fit(model, VersionCheckpoint(store, run="restored"))
    [parent] = store.get("restored/1").parents
    assert (parent.id, parent.how) == (store.get("first/2").id, "restore")
    other = small()
    other.set_weights(model.get_weights())
    fit(other, VersionCheckpoint(store, run="found"))
    assert store.get("found/1").parents[0].how == "content"
    assert store.get("found/2").parent.id == store.get("found/1").id  # type: ignore[union-attr]


def test_evaluate_adds_an_evaluation(store: VersionStore) -> None:
    x, y = data()
    model = small()
    callback = VersionCheckpoint(store, run="measured")
    fit(model, callback)
    told = model.evaluate(x, y, verbose=0, return_dict=True, callbacks=[callback])
    [evaluation] = store.get("measured/3").evaluations
    assert evaluation.metrics == told
    assert evaluation.data["test"].coverage == "arrays"
    assert callback.last_version is not None
    assert len(store.versions()) == 3


def test_validate_test_and_predict_create_no_run(store: VersionStore) -> None:
    x, y = data()
    model = small()
    model.evaluate(x, y, verbose=0, callbacks=[VersionCheckpoint(store)])
    model.predict(x, verbose=0, callbacks=[VersionCheckpoint(store)])
    assert not store.exists()


# What it must not do


def test_the_weights_after_fit_are_the_same_bits_with_and_without(store: VersionStore) -> None:
    ended = []
    for callbacks in (
        [],
        [VersionCheckpoint(store, save_freq=1)],
        [VersionCheckpoint(store, background=False)],
    ):
        keras.utils.clear_session()
        keras.utils.set_random_seed(11)
        model = small()
        fit(model, *callbacks)
        ended.append(values([*model.variables, *model.optimizer.variables]))
    assert ended[0] == ended[1] == ended[2]
    assert len(store.versions()) == 15 + 3


def test_bad_input_37_a_version_is_one_moment_although_training_goes_on(store: VersionStore) -> None:
    seen = []
    model = small()
    record = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(values(record.model.variables))
    )
    fit(model, record, VersionCheckpoint(store, save_freq=1), epochs=4)
    for kept, version in zip(seen, store.versions(), strict=True):
        assert [each.tobytes() for each in store.state_dict(version).values()] == kept


def test_constructing_touches_nothing_and_copies_work_before_and_after_fit(
    tmp_path: Path, store: VersionStore
) -> None:
    callback = VersionCheckpoint(store, run="copied", hyperparameters={"a": 1}, monitor="loss")
    assert list(tmp_path.iterdir()) == []
    for made in (copy.deepcopy(callback), pickle.loads(pickle.dumps(callback))):
        fit(small(), made)
        for again in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
            assert again.run_name == made.run_name
            assert again.last_version == made.last_version
            assert again._model is None
    assert [each.label for each in store.runs()] == ["copied", "copied-2"]


@pytest.mark.parametrize(
    "arguments",
    [
        {"filepath": "model.keras"},
        {"store": "checkpoints/{epoch:02d}.keras"},
        {"store": "model.weights.h5"},
        {"on_error": "ignore"},
        {"on_data_change": "no"},
        {"keep_training_state": -1},
    ],
    ids=str,
)
def test_arguments_that_cannot_work_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(Misconfigured):
        VersionCheckpoint(**arguments)


def test_a_run_that_cannot_be_a_label_is_refused_at_once() -> None:
    with pytest.raises(BadName):
        VersionCheckpoint(run="../up")


# However fit ends


class Stops(RuntimeError):
    pass


def stopping(epoch: int) -> Any:
    def stop(number: int, logs: Any) -> None:
        if number == epoch:
            raise Stops

    return keras.callbacks.LambdaCallback(on_epoch_end=stop)


def test_nothing_is_lost_or_locked_when_fit_raises(store: VersionStore) -> None:
    callback = VersionCheckpoint(store, run="raises")
    model = small()
    with pytest.raises(Stops):
        fit(model, callback, stopping(1))
    assert callback.last_version is not None  # waits
    assert [each.number for each in store.versions("raises")] == [1, 2]
    fit(model, callback)
    assert callback.run_name == "raises-2"
    assert len(store.versions("raises-2")) == 3
    assert store.verify(full=True).ok
    assert [each.name for each in threading.enumerate() if each.name == "mvc-saver"] == []


def test_a_process_that_ends_with_an_exception_keeps_its_versions(tmp_path: Path) -> None:
    program = """
        import keras_models as m
        from mvc_callbacks.keras import VersionCheckpoint
        import keras
        x, y = m.data()
        stop = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: 1 / (1 - epoch))
        ours = VersionCheckpoint("versions", run="dies")
        m.small().fit(x, y, epochs=5, verbose=0, callbacks=[ours, stop])
    """
    ended = python(program, tmp_path)
    assert "ZeroDivisionError" in ended.stderr
    store = VersionStore(tmp_path / "versions")
    assert [each.epoch for each in store.versions("dies")] == [0, 1]
    assert store.verify(full=True).ok


def python(program: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "KERAS_BACKEND": BACKEND, **variables}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2])])
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture
def unwritable(tmp_path: Path) -> Path:
    (tmp_path / "file").write_text("no folder can be made below a file")
    return tmp_path / "file" / "versions"


def test_a_failing_save_never_stops_training_and_is_told_loudly(unwritable: Path) -> None:
    callback = VersionCheckpoint(unwritable)
    with pytest.warns(MVCWarning, match="WAS NOT SAVED"):
        history = fit(small(), callback)
    assert len(history.epoch) == 3
    assert callback.last_version is None


def test_a_failing_save_stops_training_when_asked(unwritable: Path) -> None:
    with pytest.raises(SaveFailed, match="was not saved"):
        fit(small(), VersionCheckpoint(unwritable, on_error="raise"))


def test_a_failed_save_is_not_the_best_so_far(store: VersionStore) -> None:
    callback = VersionCheckpoint(store, monitor="loss", save_best_only=True)
    falling = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: logs.update(loss=[1.0, 0.5, 0.7][epoch])
    )
    commit = Recorder._commit

    def failing(self: Any, snapshot: Any, facts: Any) -> None:
        if facts.number == 2:
            raise OSError(28, "No space left on device")
        commit(self, snapshot, facts)

    with pytest.MonkeyPatch.context() as patch, pytest.warns(MVCWarning, match="No space left"):
        patch.setattr(Recorder, "_commit", failing)
        fit(small(), falling, callback)
    assert [each.metrics["loss"] for each in store.versions()] == [1.0, 0.7]
    assert callback.best == 0.7
    assert callback.best_version == store.versions()[-1]


# Beside others


def test_backup_and_restore_beside_it(tmp_path: Path, store: VersionStore) -> None:
    callback = VersionCheckpoint(store, run="backed")
    backup = tmp_path / "backup"
    with pytest.raises(Stops):
        fit(small(), keras.callbacks.BackupAndRestore(backup), callback, stopping(1))
    fit(small(), keras.callbacks.BackupAndRestore(backup), callback)
    assert [each.epoch for each in store.versions("backed")] == [0, 1]
    assert [each.epoch for each in store.versions("backed-2")] == [2]


def test_early_stopping_that_restores_the_best_weights_beside_it(store: VersionStore) -> None:
    rising = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: logs.update(val_loss=[2.0, 1.0, 3.0, 4.0, 5.0][epoch])
    )
    model = small()
    callback = VersionCheckpoint(store)
    early = keras.callbacks.EarlyStopping(patience=2, restore_best_weights=True)
    fit(model, rising, callback, early, epochs=5)
    assert [each.epoch for each in store.versions()] == [0, 1, 2, 3]
    assert callback.best_version is not None
    assert callback.best_version.epoch == 1
    x, _ = data()
    again = restore_version(callback.best_version, small(), store=store)
    assert predictions(again, x) == predictions(model, x)


def test_the_record_says_which_weights_swap_ema_put_into_the_model(store: VersionStore) -> None:
    def ema(**options: Any) -> Any:
        return small_with(keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5, **options))

    model = ema()
    swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
    fit(model, swap, VersionCheckpoint(store, run="average"), epochs=2)
    assert [each.weights.of for each in store.versions("average")] == ["average", "average"]
    fit(ema(), VersionCheckpoint(store, run="training"), epochs=2)
    assert [each.weights.of for each in store.versions("training")] == ["training", "training"]
    fit(ema(ema_overwrite_frequency=10), VersionCheckpoint(store, run="overwritten"), epochs=2)
    assert [each.weights.of for each in store.versions("overwritten")] == ["training", "average"]


def small_with(optimizer: Any) -> Any:
    inputs = keras.Input((4,))
    return compiled(keras.Model(inputs, keras.layers.Dense(1)(inputs)), optimizer)


def test_swapped_averages_resume_as_if_never_interrupted(store: VersionStore) -> None:
    def begin(**options: Any) -> tuple[Any, list[Any]]:
        keras.utils.set_random_seed(5)
        model = small_with(keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5))
        swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
        return model, [swap, VersionCheckpoint(store, keep_training_state="all", **options)]

    model, callbacks = begin(run="straight")
    fit(model, *callbacks, epochs=4, shuffle=False)
    model, callbacks = begin(resume="straight/2")
    fit(model, *callbacks, epochs=4, shuffle=False)
    assert callbacks[1].last_version.weights.digest == store.get("straight/4").weights.digest


# Resuming


def test_resume_goes_on_at_the_right_epoch_and_leaves_no_trace(store: VersionStore) -> None:
    fit(small(), VersionCheckpoint(store, run="first"), epochs=2)
    model = small()
    callback = VersionCheckpoint(store, run="second", resume="first")
    history = fit(model, callback, epochs=5)
    assert history.epoch == [2, 3, 4]
    assert [each.epoch for each in store.versions("second")] == [2, 3, 4]
    [parent] = store.get("second/1").parents
    assert (parent.id, parent.how) == (store.get("first/2").id, "resume")
    assert store.runs()[1].resumes == store.get("first/2").id
    assert store.get("second/1").step == 15
    assert fit(model, epochs=2).epoch == [0, 1]
    assert fit(model, callback, epochs=2).epoch == [0, 1]  # the same callback resumes once


def test_resume_restores_weights_optimizer_and_seeds(store: VersionStore) -> None:
    # Without shuffling all three backends draw the same batches; the rest is the restored state.
    keras.utils.set_random_seed(1)
    fit(small(), VersionCheckpoint(store, run="straight", keep_training_state="all"), epochs=4, shuffle=False)
    keras.utils.set_random_seed(2)
    callback = VersionCheckpoint(store, run="resumed", resume="straight/2")
    fit(small(), callback, epochs=4, shuffle=False)
    assert store.get("resumed/2").weights.digest == store.get("straight/4").weights.digest
    assert store.get("resumed/2").training_state.digest == store.get("straight/4").training_state.digest  # type: ignore[union-attr]


def test_resume_last_takes_the_newest_of_the_label_or_begins_with_a_warning(store: VersionStore) -> None:
    with pytest.warns(MVCWarning, match="starts afresh"):
        fit(small(), VersionCheckpoint(store, run="job", resume="last"), epochs=1)
    assert fit(small(), VersionCheckpoint(store, run="job", resume="last"), epochs=3).epoch == [1, 2]
    assert fit(small(), VersionCheckpoint(store, run="job", resume="last"), epochs=4).epoch == [3]
    assert [each.label for each in store.runs()] == ["job", "job-2", "job-3"]


def test_a_resume_at_the_last_epoch_leaves_no_trace_either(store: VersionStore) -> None:
    fit(small(), VersionCheckpoint(store, run="whole"), epochs=2)
    model = small()
    assert fit(model, VersionCheckpoint(store, resume="whole"), epochs=2).epoch == []
    assert fit(model, epochs=1).epoch == [0]


def test_a_resume_inside_of_an_epoch_begins_that_epoch_again(store: VersionStore) -> None:
    fit(small(), VersionCheckpoint(store, run="steps", save_freq=3, keep_training_state="all"), epochs=2)
    assert store.get("steps/3").epoch == 1
    assert fit(small(), VersionCheckpoint(store, resume="steps/3"), epochs=3).epoch == [1, 2]


def test_the_best_value_survives_a_resume(store: VersionStore) -> None:
    def falling(scores: list[float]) -> Any:
        return keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: logs.update(val_loss=scores[epoch])
        )

    policy: dict[str, Any] = {"save_best_only": True}
    fit(small(), falling([3.0, 1.0]), VersionCheckpoint(store, run="before", **policy), epochs=2)
    callback = VersionCheckpoint(store, run="after", resume="before", **policy)
    fit(small(), falling([0, 0, 2.0, 1.5]), callback, epochs=4)
    assert callback.last_version is None  # nothing was better
    assert callback.best_version == store.get("before/2")
    callback = VersionCheckpoint(store, run="better", resume="before", **policy)
    fit(small(), falling([0, 0, 2.0, 0.5]), callback, epochs=4)
    assert callback.best_version == store.get("better/1")
    assert store.get("better/1").epoch == 3


def test_what_cannot_be_resumed_is_refused_before_training(store: VersionStore) -> None:
    fit(small(), VersionCheckpoint(store, run="weights", save_weights_only=True), epochs=1)
    model = small()
    before = values(model.variables)
    with pytest.raises(PrunedVersion, match="saved without its training state"):
        fit(model, VersionCheckpoint(store, resume="weights"))
    with pytest.raises(UnknownRef):
        fit(model, VersionCheckpoint(store, resume="nothing"))
    assert values(model.variables) == before
    assert fit(model, epochs=1).epoch == [0]


def test_a_model_that_is_built_by_its_first_batch_resumes(store: VersionStore) -> None:
    def unbuilt() -> Any:
        return compiled(
            keras.Sequential([keras.layers.Dense(8), keras.layers.Dropout(0.2), keras.layers.Dense(1)])
        )

    fit(unbuilt(), VersionCheckpoint(store, run="lazy"), epochs=2)
    callback = VersionCheckpoint(store, resume="lazy")
    assert fit(unbuilt(), callback, epochs=3).epoch == [2]
    assert callback.last_version is not None


# Keeping


def test_training_state_is_kept_of_the_newest_and_the_best(store: VersionStore) -> None:
    scores = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: logs.update(val_loss=[1.0, 0.1, 3.0, 4.0, 5.0][epoch])
    )
    fit(small(), scores, VersionCheckpoint(store, run="kept"), epochs=5)
    assert [each.number for each in store.versions() if each.has_training_state] == [2, 4, 5]
    assert all(each.has_weights for each in store.versions())


def test_frozen_layers_are_stored_once(store: VersionStore) -> None:
    def model() -> Any:
        inputs = keras.Input((4,))
        backbone = keras.layers.Dense(300_000, trainable=False, name="backbone")
        return compiled(
            keras.Model(
                inputs,
                keras.layers.Dense(1)(
                    keras.layers.GlobalAveragePooling1D()(keras.layers.Reshape((300, 1000))(backbone(inputs)))
                ),
            )
        )

    fit(model(), VersionCheckpoint(store), epochs=3)
    first, *rest = store.versions()
    assert first.weights.stored_bytes > 4_000_000
    assert all(each.weights.stored_bytes < 400_000 for each in rest)


def test_nan_weights_are_marked(store: VersionStore) -> None:
    x, y = data()
    y = np.full_like(y, np.nan)
    small().fit(x, y, verbose=0, callbacks=[VersionCheckpoint(store)])
    assert store.get("latest").weights.nonfinite
