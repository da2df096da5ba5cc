"""The promises that Lightning and Keras share, held by one test each, on both."""

from __future__ import annotations

import copy
import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mvc_callbacks import VersionStore, restore_version
from mvc_callbacks.errors import DataChanged, IncompatibleModel, Misconfigured, MVCWarning, SaveFailed

EPOCHS = 3
LOSSES = [3.0, 1.0, 2.0, 0.5]


@dataclass(frozen=True)
class Framework:
    """What a framework needs to show a promise.

    Attributes:
        callback: The class VersionCheckpoint.
        model: Makes a model of a width.
        fit: Trains a model with a callback for a number of epochs, on data that are one value; the watched
            ``val_loss`` is `LOSSES`.
        bits: The weights of a model as bytes.
        only_best: Arguments that save or keep the best version only, by ``val_loss``.
        resume: Trains a new model with a callback, from a ref, up to a number of epochs.
        monitor: Arguments that watch ``val_loss``.
    """

    callback: Any
    model: Callable[..., Any]
    fit: Callable[..., Any]
    bits: Callable[[Any], list[bytes]]
    only_best: dict[str, Any]
    resume: Callable[..., Any]
    monitor: dict[str, Any]


def lightning() -> Framework:
    import lightning.pytorch as pl
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    from mvc_callbacks.lightning import VersionCheckpoint

    class Model(pl.LightningModule):
        def __init__(self, width: int = 4) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.layer = torch.nn.Sequential(torch.nn.Linear(3, width), torch.nn.Linear(width, 1))

        def training_step(self, batch: Any, _: int) -> Any:
            return self.layer(batch[0]).pow(2).mean()

        def validation_step(self, batch: Any, _: int) -> None:
            self.log("val_loss", LOSSES[self.current_epoch % len(LOSSES)])

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), lr=0.1)

    def fit(
        model: Any, callback: Any, epochs: int = EPOCHS, value: float = 1, ckpt_path: str | None = None
    ) -> None:
        loader = DataLoader(TensorDataset(torch.full((8, 3), float(value))), batch_size=4)
        trainer = pl.Trainer(
            max_epochs=epochs,
            callbacks=[] if callback is None else [callback],
            accelerator="cpu",
            devices=1,
            logger=False,
            enable_checkpointing=callback is not None,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        trainer.fit(model, loader, loader, ckpt_path=ckpt_path)

    def resume(store: VersionStore, ref: str, epochs: int, value: float = 1, **options: Any) -> None:
        fit(Model(), VersionCheckpoint(store, **options), epochs, value, ckpt_path=f"mvc://{ref}")

    return Framework(
        VersionCheckpoint,
        Model,
        fit,
        lambda model: [each.detach().numpy().tobytes() for each in model.state_dict().values()],
        {"monitor": "val_loss", "save_top_k": 1},
        resume,
        {"monitor": "val_loss"},
    )


def keras() -> Framework:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    pytest.importorskip("keras")
    from mvc_callbacks.keras import VersionCheckpoint

    import keras as k  # isort: skip
    import numpy as np

    def model(width: int = 4) -> Any:
        made = k.Sequential([k.Input((3,)), k.layers.Dense(width), k.layers.Dense(1)])
        made.compile(k.optimizers.Adam(0.1), "mse")
        return made

    def fit(model: Any, callback: Any, epochs: int = EPOCHS, value: float = 1) -> None:
        watched = k.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: logs.update(val_loss=LOSSES[epoch % len(LOSSES)])
        )
        x, y = np.full((8, 3), value, "float32"), np.zeros((8, 1), "float32")
        callbacks = [watched] if callback is None else [watched, callback]
        model.fit(x, y, batch_size=4, epochs=epochs, verbose=0, shuffle=False, callbacks=callbacks)

    def resume(store: VersionStore, ref: str, epochs: int, value: float = 1, **options: Any) -> None:
        fit(model(), VersionCheckpoint(store, resume=ref, **options), epochs, value)

    return Framework(
        VersionCheckpoint,
        model,
        fit,
        lambda model: [k.ops.convert_to_numpy(each).tobytes() for each in model.variables],
        {"monitor": "val_loss", "save_best_only": True},
        resume,
        {},
    )


@pytest.fixture(params=[lightning, keras], ids=["lightning", "keras"])
def framework(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Framework:
    if request.param is lightning:
        pytest.importorskip("lightning")
    monkeypatch.chdir(tmp_path)
    made: Framework = request.param()
    return made


@pytest.fixture
def store(tmp_path: Path) -> VersionStore:
    return VersionStore(tmp_path / "versions")


def test_every_epoch_is_a_version_of_one_run(framework: Framework, store: VersionStore) -> None:
    callback = framework.callback(store, run="baseline", **framework.monitor)
    framework.fit(framework.model(), callback)
    made = store.versions("baseline")
    assert [each.epoch for each in made] == [0, 1, 2]
    assert [each.step for each in made] == [2, 4, 6]
    assert [each.metrics["val_loss"] for each in made] == LOSSES[:3]
    assert [each.parent.id for each in made[1:] if each.parent] == [each.id for each in made[:-1]]
    assert callback.run_name == "baseline"
    assert callback.last_version == made[2]
    assert callback.best_version == made[1] == store.get("best")
    assert store.verify(full=True).ok


def test_a_version_comes_back_bit_for_bit(framework: Framework, store: VersionStore) -> None:
    model = framework.model()
    framework.fit(model, framework.callback(store, run="one"))
    again = restore_version("one/3", framework.model(), store=store)
    assert framework.bits(again) == framework.bits(model)


def test_a_factory_is_called_with_the_recorded_hyperparameters(
    framework: Framework, store: VersionStore
) -> None:
    model = framework.model(7)
    framework.fit(model, framework.callback(store, run="wide", hyperparameters={"width": 7}))
    assert framework.bits(restore_version("wide/3", framework.model, store=store)) == framework.bits(model)


def test_bad_input_66_another_model_is_refused_and_left_as_it_was(
    framework: Framework, store: VersionStore
) -> None:
    framework.fit(framework.model(4), framework.callback(store, run="narrow"))
    other = framework.model(5)
    before = framework.bits(other)
    with pytest.raises(IncompatibleModel, match="nothing was assigned"):
        restore_version("narrow/1", other, store=store)
    assert framework.bits(other) == before


def test_two_fits_with_one_callback_are_two_runs(framework: Framework, store: VersionStore) -> None:
    callback = framework.callback(store, run="again")
    for _ in range(2):
        framework.fit(framework.model(), callback)
    assert [(each.label, each.versions) for each in store.runs()] == [("again", 3), ("again-2", 3)]


def test_what_was_restored_is_the_parent_of_what_is_trained_from_it(
    framework: Framework, store: VersionStore
) -> None:
    framework.fit(framework.model(), framework.callback(store, run="first"))
    model = restore_version("first/2", framework.model(), store=store)
    framework.fit(model, framework.callback(store, run="second"))
    [parent] = store.get("second/1").parents
    assert (parent.id, parent.how) == (store.get("first/2").id, "restore")


def test_a_resumed_run_goes_on_where_the_other_ended(framework: Framework, store: VersionStore) -> None:
    framework.fit(framework.model(), framework.callback(store, run="first"), 2)
    framework.resume(store, "first/2", 4, run="resumed")
    made = store.versions("resumed")
    assert [each.epoch for each in made] == [2, 3]
    assert [each.step for each in made] == [6, 8]
    [parent] = made[0].parents
    assert (parent.id, parent.how) == (store.get("first/2").id, "resume")
    assert store.runs()[-1].resumes == store.get("first/2").id


def test_a_resumed_run_ends_with_the_weights_of_an_undisturbed_one(
    framework: Framework, store: VersionStore
) -> None:
    framework.fit(framework.model(), framework.callback(store, run="straight", keep_training_state="all"), 4)
    framework.resume(store, "straight/2", 4, run="resumed")
    assert store.get("resumed/2").weights.digest == store.get("straight/4").weights.digest
    assert resume_of(store, "resumed") == {"guarantee": "exact", "reasons": []}


def resume_of(store: VersionStore, run: str) -> Any:
    return store.versions(run)[-1].details.run_record["resume"]


def test_other_data_are_told_before_a_resume_goes_on_and_are_never_exact(
    framework: Framework, store: VersionStore
) -> None:
    framework.fit(framework.model(), framework.callback(store, run="first"), 1)
    with pytest.warns(MVCWarning, match="not the data that version first/1 was trained on"):
        framework.resume(store, "first/1", 2, 7, run="warned")
    assert resume_of(store, "warned")["guarantee"] == "approximate"
    with pytest.warns(MVCWarning, match="not compared"):
        framework.resume(store, "first/1", 2, 7, run="ignored", on_data_change="ignore")
    assert resume_of(store, "ignored")["guarantee"] == "approximate"
    with pytest.raises(DataChanged, match="on_data_change='warn'"):
        framework.resume(store, "first/1", 2, 7, run="refused", on_data_change="error")
    assert [each.label for each in store.runs()] == ["first", "warned", "ignored"]


def test_other_data_are_told_when_what_was_restored_is_trained(
    framework: Framework, store: VersionStore
) -> None:
    framework.fit(framework.model(), framework.callback(store, run="first"), 1)
    model = restore_version("first/1", framework.model(), store=store)
    with pytest.warns(MVCWarning, match="not the data that version first/1 was trained on"):
        framework.fit(model, framework.callback(store, run="tuned"), 1, 7)
    assert "resume" not in store.get("tuned").details.run_record


def test_another_hyperparameter_is_never_exact(framework: Framework, store: VersionStore) -> None:
    framework.fit(framework.model(), framework.callback(store, run="first", hyperparameters={"rate": 1}), 1)
    with pytest.warns(MVCWarning, match="approximate"):
        framework.resume(store, "first/1", 2, run="second", hyperparameters={"rate": 2})
    assert any("rate" in each for each in resume_of(store, "second")["reasons"])


def test_broken_weights_are_marked_and_warned_of_once(framework: Framework, store: VersionStore) -> None:
    with pytest.warns(MVCWarning, match="version broken/1 holds NaN or Inf") as told:
        framework.fit(framework.model(), framework.callback(store, run="broken"), 3, float("nan"))
    assert [each.flags for each in store.versions("broken")] == [
        ("nonfinite",),
        ("nonfinite", "stale"),
        ("nonfinite", "stale"),
    ]
    assert len([each for each in told if "NaN" in str(each.message)]) == 1


def test_the_best_so_far_survives_a_resume(framework: Framework, store: VersionStore) -> None:
    framework.fit(framework.model(), framework.callback(store, run="first", **framework.only_best), 2)
    framework.resume(store, "first/2", 3, run="second", **framework.only_best)  # 2.0 is not better than 1.0
    assert [each.label for each in store.runs()] == ["first"]
    framework.resume(store, "first/2", 4, run="third", **framework.only_best)
    assert [each.metrics["val_loss"] for each in store.versions("third")] == [0.5]


def test_the_data_is_found_by_itself(framework: Framework, store: VersionStore) -> None:
    framework.fit(framework.model(), framework.callback(store, run="found"))
    train = store.get("found/3").data["train"]
    assert train.coverage == "arrays"
    assert train.digest


def test_declared_data_comes_first(framework: Framework, store: VersionStore, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.txt").write_text("a")
    framework.fit(framework.model(), framework.callback(store, run="declared", data=tmp_path / "data"))
    assert store.get("declared/3").data["train"].files == 1


def test_a_failing_save_is_told_loudly_and_stops_training_only_when_asked(
    framework: Framework, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no folder can be made below a file")
    with pytest.warns(MVCWarning, match="WAS NOT SAVED"):
        framework.fit(framework.model(), framework.callback(tmp_path / "file" / "store"))
    with pytest.raises(SaveFailed):
        framework.fit(framework.model(), framework.callback(tmp_path / "file" / "store", on_error="raise"))


def test_training_state_is_kept_of_the_newest_two_and_the_best(
    framework: Framework, store: VersionStore
) -> None:
    framework.fit(framework.model(), framework.callback(store, run="kept", **framework.monitor), 4)
    assert [each.number for each in store.versions() if each.has_training_state] == [3, 4]
    framework.fit(
        framework.model(), framework.callback(store, run="one", keep_training_state=1, **framework.monitor), 3
    )
    assert [each.number for each in store.versions("one") if each.has_training_state] == [2, 3]


def test_callbacks_copy_before_and_after_fit_and_pickle(framework: Framework, store: VersionStore) -> None:
    callback = framework.callback(store, run="copied")
    for made in (copy.deepcopy(callback), pickle.loads(pickle.dumps(callback))):
        framework.fit(framework.model(), made)
        assert copy.deepcopy(made).run_name == made.run_name


@pytest.mark.parametrize("arguments", [{"on_error": "no"}, {"keep_training_state": -1}], ids=str)
def test_arguments_that_cannot_work_are_refused(framework: Framework, arguments: dict[str, Any]) -> None:
    with pytest.raises(Misconfigured):
        framework.callback(**arguments)


def test_the_callback_never_changes_what_training_computes(framework: Framework, store: VersionStore) -> None:
    framework.fit(framework.model(), framework.callback(store, run="first"))
    without, with_ours = (restore_version("first/1", framework.model(), store=store) for _ in range(2))
    framework.fit(without, None)
    framework.fit(with_ours, framework.callback(store, run="second"))
    assert framework.bits(without) == framework.bits(with_ours)
