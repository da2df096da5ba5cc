"""A fit with VersionCheckpoint: what is recorded, and that training does not notice."""

from __future__ import annotations

import copy
import pickle
import warnings
from pathlib import Path
from typing import Any, ClassVar

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from small_models import Small, trainer_of
from torch.utils.data import DataLoader, Dataset, TensorDataset

from mvc_callbacks import MVCWarning, VersionStore
from mvc_callbacks.errors import BadName, Misconfigured, SaveFailed
from mvc_callbacks.lightning import VersionCheckpoint
from mvc_callbacks.lightning_io import CheckpointIOMixin


def test_every_epoch_is_a_version_with_its_metrics(store: VersionStore) -> None:
    callback = VersionCheckpoint(store.path, run="first", monitor="score", hyperparameters={"note": "mine"})
    assert callback.run_name is None
    trainer_of(callback).fit(Small())
    versions = store.versions()
    assert [(each.run, each.number, each.epoch, each.step) for each in versions] == [
        ("first", 1, 0, 4),
        ("first", 2, 1, 8),
        ("first", 3, 2, 12),
    ]
    assert versions[0].metrics["score"] == 3.0
    assert "loss" in versions[0].metrics
    assert [parent.how for each in versions for parent in each.parents] == ["run", "run"]
    assert versions[2].parents[0].id == versions[1].id
    assert versions[0].framework == "lightning"
    assert dict(versions[0].hyperparameters) == {"width": 4, "note": "mine"}
    assert callback.run_name == "first"
    assert callback.last_version == versions[2]
    assert callback.best_version == versions[1]
    assert callback.best_model_path == f"mvc://{store.path}@first/2"
    assert float(callback.best_model_score) == 1.0


def test_training_state_is_kept_of_the_newest_two_and_the_best(store: VersionStore) -> None:
    trainer_of(VersionCheckpoint(store.path, monitor="score"), max_epochs=5).fit(Small())
    assert [each.number for each in store.versions() if each.has_training_state] == [4, 5]  # 5 is the best
    store = VersionStore(store.path / "max")
    trainer_of(
        VersionCheckpoint(store.path, monitor="score", mode="max", keep_training_state=1), max_epochs=5
    ).fit(Small())
    assert [each.number for each in store.versions() if each.has_training_state] == [1, 5]


@pytest.mark.parametrize(
    ("policy", "kept"), [({"keep_training_state": "all"}, 3), ({"save_weights_only": True}, 0)]
)
def test_training_state_all_or_none(policy: dict[str, Any], kept: int, store: VersionStore) -> None:
    trainer_of(VersionCheckpoint(store.path, **policy)).fit(Small())
    assert sum(each.has_training_state for each in store.versions()) == kept
    assert all(each.has_weights for each in store.versions())


class Noisy(Small):
    """Draws random numbers wherever models do."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 1))

    def train_dataloader(self) -> Any:
        return DataLoader(RandomlyShifted(), batch_size=2, shuffle=True, num_workers=2)


class RandomlyShifted(TensorDataset):
    def __init__(self) -> None:
        super().__init__(torch.arange(32.0).reshape(8, 4))

    def __getitem__(self, index: int) -> Any:
        return (super().__getitem__(index)[0] + torch.rand(4),)


class RandomlyShiftedFiles(Dataset[Any]):
    def __init__(self, folder: Path) -> None:
        self.paths = sorted(folder.glob("*.bin"))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Any:
        values = torch.frombuffer(bytearray(self.paths[index].read_bytes()), dtype=torch.float32)
        return (values + torch.rand(4),)


class NoisyFiles(Noisy):
    def train_dataloader(self) -> Any:
        return DataLoader(RandomlyShiftedFiles(Path.cwd()), batch_size=2, shuffle=True, num_workers=2)


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("model_class", [Noisy, NoisyFiles])
def test_the_weights_after_fit_are_the_same_bits_with_and_without(
    model_class: type[Noisy], background: bool, store: VersionStore
) -> None:
    for number in range(8):
        Path(f"{number}.bin").write_bytes(torch.full((4,), float(number)).numpy().tobytes())
    states = []
    for callbacks in ([], [VersionCheckpoint(store.path, background=background, every_n_train_steps=1)]):
        pl.seed_everything(3, verbose=False)
        model = model_class()
        trainer_of(*callbacks, max_epochs=2, enable_checkpointing=bool(callbacks)).fit(model)
        states.append({name: value.clone() for name, value in model.state_dict().items()})
        states[-1]["rng"] = torch.get_rng_state()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    coverage = "files" if model_class is NoisyFiles else "arrays"
    assert [each.data["train"].coverage for each in store.versions()] == [coverage] * 8


def test_bad_input_37_a_version_is_one_moment_although_training_goes_on(store: VersionStore) -> None:
    class Watch(Callback):
        seen: ClassVar[dict[int, torch.Tensor]] = {}

        def on_train_batch_end(self, trainer: Any, module: Any, *args: Any) -> None:
            self.seen[trainer.global_step] = module.layer.weight.detach().clone()

    trainer_of(Watch(), VersionCheckpoint(store.path, every_n_train_steps=1)).fit(Small())
    for version in store.versions():
        assert torch.equal(store.state_dict(version)["layer.weight"], Watch.seen[version.step or 0])


def test_nothing_is_saved_outside_of_training(store: VersionStore) -> None:
    trainer = trainer_of(VersionCheckpoint(store.path), fast_dev_run=True)
    trainer.fit(Small())
    for stage in ("validate", "test", "predict"):
        getattr(trainer_of(VersionCheckpoint(store.path)), stage)(Small())
    assert not store.path.exists()
    with pytest.raises(MisconfigurationException, match="loss"):  # the sanity check saves nothing either
        trainer_of(VersionCheckpoint(store.path, monitor="no_such_loss"), num_sanity_val_steps=2).fit(Small())
    assert not store.path.exists()


def test_the_constructor_touches_nothing(tmp_path: Path) -> None:
    callback = VersionCheckpoint(tmp_path / "versions", run="any", monitor="score")
    assert list(tmp_path.iterdir()) == []
    assert pickle.loads(pickle.dumps(callback)).monitor == "score"
    assert copy.deepcopy(callback).run == "any"


def test_copies_work_after_fit_and_during_it(store: VersionStore) -> None:
    copies = []

    class Copy(Callback):
        def on_validation_end(self, trainer: Any, module: Any) -> None:
            copies.append(copy.deepcopy(trainer.checkpoint_callback))

    callback = VersionCheckpoint(store.path, monitor="score")
    trainer_of(Copy(), callback).fit(Small())
    for each in (pickle.loads(pickle.dumps(callback)), copy.deepcopy(callback), copies[-1]):
        assert each.best_version == store.get("best")
        trainer_of(each, max_epochs=1).fit(Small())
    assert len(store.runs()) == 4


@pytest.mark.parametrize("name", ["dirpath", "filename", "auto_insert_metric_name", "enable_version_counter"])
def test_arguments_that_name_files_are_refused_with_what_to_use(name: str) -> None:
    with pytest.raises(Misconfigured, match=r"store=|run="):
        VersionCheckpoint(**{name: "x"})


@pytest.mark.parametrize(
    "wrong",
    [
        {"on_error": "ignore"},
        {"keep_training_state": -1},
        {"keep_training_state": "some"},
        {"on_data_change": 1},
    ],
)
def test_impossible_arguments_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(Misconfigured, match=next(iter(wrong))):
        VersionCheckpoint(**wrong)


@pytest.mark.parametrize("label", ["../x", "best", "abc", "", "a b"])
def test_a_run_that_cannot_be_a_label_is_refused_at_once(label: str) -> None:
    with pytest.raises(BadName, match="the name of a run"):
        VersionCheckpoint(run=label)


def test_one_name_may_be_excluded() -> None:
    assert VersionCheckpoint(exclude_hyperparameters="url").exclude_hyperparameters == ("url",)


def test_the_state_key_tells_stores_apart() -> None:
    assert VersionCheckpoint().state_key == VersionCheckpoint(run="other").state_key
    assert VersionCheckpoint("a").state_key != VersionCheckpoint("b").state_key


def test_the_plugin_is_unwrapped_after_fit_and_after_an_exception(store: VersionStore) -> None:
    class Fails(Callback):
        def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
            assert isinstance(trainer.strategy.checkpoint_io, CheckpointIOMixin)
            if trainer.global_step == 6:
                raise ValueError("stop")

    trainer = trainer_of(VersionCheckpoint(store.path))
    trainer.fit(Small())
    assert not isinstance(trainer.strategy.checkpoint_io, CheckpointIOMixin)
    for stage in (trainer.validate, trainer.test, trainer.validate):
        stage(Small())
        assert not isinstance(trainer.strategy.checkpoint_io, CheckpointIOMixin)
    trainer = trainer_of(Fails(), VersionCheckpoint(store.path, run="stopped"))
    with pytest.raises(ValueError, match="stop"):
        trainer.fit(Small())
    assert not isinstance(trainer.strategy.checkpoint_io, CheckpointIOMixin)
    assert [each.number for each in store.versions("stopped")] == [1]


def test_two_callbacks_with_two_stores_and_a_model_checkpoint_beside(tmp_path: Path) -> None:
    stores = [VersionStore(tmp_path / name) for name in ("a", "b")]
    callbacks = [VersionCheckpoint(each.path, monitor="score", save_top_k=1) for each in stores]
    stock = ModelCheckpoint(dirpath=tmp_path / "stock", save_top_k=-1)
    trainer = trainer_of(callbacks[0], stock, callbacks[1])
    trainer.fit(Small())
    trainer.save_checkpoint(tmp_path / "own.ckpt")
    for store, callback in zip(stores, callbacks, strict=True):
        assert [each.number for each in store.versions() if each.has_weights] == [2]
        assert callback.best_version == store.get("best")
    assert len(list((tmp_path / "stock").glob("*.ckpt"))) == 3
    assert Small.load_from_checkpoint(tmp_path / "own.ckpt").hparams.width == 4


def test_one_of_two_callbacks_with_one_store(store: VersionStore) -> None:
    often = VersionCheckpoint(store.path, run="often", every_n_train_steps=1)
    seldom = VersionCheckpoint(store.path, run="seldom", every_n_epochs=2)
    trainer_of(often, seldom).fit(Small())
    assert [len(store.versions(each)) for each in ("often", "seldom")] == [12, 1]


def test_on_exception_a_version_is_saved_as_stock_does(store: VersionStore) -> None:
    class Fails(Callback):
        def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
            if trainer.global_step == 6:
                raise ValueError("stop")

    callback = VersionCheckpoint(store.path, run="saved", save_on_exception=True)
    with pytest.raises(ValueError, match="stop"):
        trainer_of(Fails(), callback).fit(Small())
    assert [each.step for each in store.versions()] == [4, 6]
    model = Small()
    trainer_of(callback).fit(model, ckpt_path="last")
    assert [each.step for each in store.versions("saved-2")] == [8, 12]


def test_a_failing_exception_hook_hides_no_exception(store: VersionStore) -> None:
    store.path.write_text("a file where the store should be")

    class Fails(Callback):
        def on_train_batch_end(self, *args: Any) -> None:
            raise ValueError("stop")

    with warnings.catch_warnings(), pytest.raises(ValueError, match="stop"):
        warnings.simplefilter("ignore")
        callback = VersionCheckpoint(store.path, save_on_exception=True, on_error="raise")
        trainer_of(Fails(), callback).fit(Small())


@pytest.mark.parametrize("background", [True, False])
def test_a_save_that_fails_is_reported_and_training_goes_on(
    background: bool, store: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_at(monkeypatch, {2, 3})
    callback = VersionCheckpoint(store.path, run="r", monitor="score", save_top_k=1, background=background)
    trainer = trainer_of(callback, max_epochs=5)
    with pytest.warns(MVCWarning, match=r"r/2 WAS NOT SAVED.*no space"):
        trainer.fit(Small())
    assert trainer.current_epoch == 5
    versions = store.versions()
    # 2 and 3 would have been better than 1, which was kept as they failed; then come a NaN, and the best.
    assert [each.number for each in versions] == [1, 4]
    assert callback.best_version == versions[-1]
    assert [each.number for each in versions if each.has_weights] == [4]
    assert callback.best_k_models.keys() == {f"mvc://{store.path}@r/4"}


def test_after_a_failed_save_the_best_is_what_is_there(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_at(monkeypatch, {2})
    callback = VersionCheckpoint(store.path, run="r", monitor="score", save_top_k=1)
    with pytest.warns(MVCWarning, match="WAS NOT SAVED"):
        trainer_of(callback, max_epochs=2).fit(Small())
    assert [each.number for each in store.versions() if each.has_weights] == [1]
    assert callback.best_model_path.endswith("@r/1")
    assert float(callback.best_model_score) == 3.0
    assert callback.last_version == store.get("r/1")


@pytest.mark.parametrize("background", [True, False])
def test_a_save_that_fails_stops_training_where_asked(
    background: bool, store: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_at(monkeypatch, {2})
    callback = VersionCheckpoint(store.path, on_error="raise", background=background)
    trainer = trainer_of(callback, max_epochs=9)
    with pytest.raises(SaveFailed, match="no space"):
        trainer.fit(Small())
    assert trainer.current_epoch < 4
    assert not isinstance(trainer.strategy.checkpoint_io, CheckpointIOMixin)
    trainer = trainer_of(VersionCheckpoint(store.path, on_error="raise", background=background), max_epochs=2)
    with pytest.raises(SaveFailed, match="no space"):  # the last save of a fit
        trainer.fit(Small())


def fail_at(monkeypatch: pytest.MonkeyPatch, numbers: set[int]) -> None:
    from mvc_callbacks.commit import Run

    commit = Run.commit

    def failing(self: Run, snapshot: Any, *, number: int, **kwargs: Any) -> Any:
        if number in numbers:
            raise OSError(28, "no space left on device")
        return commit(self, snapshot, number=number, **kwargs)

    monkeypatch.setattr(Run, "commit", failing)


def test_a_store_that_cannot_be_made_never_stops_training(store: VersionStore) -> None:
    store.path.write_text("a file where the store should be")
    with pytest.warns(MVCWarning, match="WAS NOT SAVED"):
        trainer_of(VersionCheckpoint(store.path)).fit(Small())
    assert store.path.is_file()


def test_a_disk_that_is_too_small_is_told_with_the_first_version(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10_000, 9_000, 100))
    with pytest.warns(MVCWarning, match="3 versions need up to"):
        trainer_of(VersionCheckpoint(store.path)).fit(Small())


def test_a_logger_that_would_upload_nothing_is_told(store: VersionStore, tmp_path: Path) -> None:
    from lightning.pytorch.loggers import CSVLogger

    class Uploading(CSVLogger):
        _log_model = "all"

    with pytest.warns(MVCWarning, match="upload nothing"):
        trainer_of(VersionCheckpoint(store.path), logger=Uploading(tmp_path)).fit(Small())


def test_what_cannot_be_kept_is_named_once_in_a_warning_and_in_every_record(store: VersionStore) -> None:
    class Odd(Small):
        def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            super().on_save_checkpoint(checkpoint)
            checkpoint["odd"] = {"lock": Lock(), "plain": 1}

    kind = f"{Lock.__module__}.{Lock.__qualname__}"
    with pytest.warns(MVCWarning, match="without pickle") as told:
        trainer_of(VersionCheckpoint(store.path)).fit(Odd())
    assert [str(each.message) for each in told if "pickle" in str(each.message)] == [
        "what cannot be kept without pickle comes back from the checkpoint as a marker (path: type): "
        f"odd.lock: {kind}. Keep plain values, arrays or tensors there instead"
    ]
    states = [each.training_state for each in store.versions()]
    assert [each.untold for each in states if each is not None] == [(f"odd.lock: {kind}",)] * 3


class Lock:
    """No plain value."""


def test_weights_that_are_not_finite_or_do_not_move_are_marked(store: VersionStore) -> None:
    class Still(Small):
        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.0)

    trainer_of(VersionCheckpoint(store.path, run="still")).fit(Still())
    assert [each.flags for each in store.versions("still")] == [(), ("stale",), ("stale",)]
    model = Small()
    model.layer.weight.data.fill_(torch.nan)
    trainer_of(VersionCheckpoint(store.path, run="broken"), max_epochs=1).fit(model)
    assert store.get("broken").flags == ("nonfinite",)


class Gan(pl.LightningModule):
    """Two optimizers, stepped by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.generator, self.discriminator = torch.nn.Linear(4, 4), torch.nn.Linear(4, 1)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        first, second = self.optimizers()  # type: ignore[attr-defined]
        for optimizer, sign in ((first, 1), (second, -1)):
            loss = sign * self.discriminator(self.generator(batch[0])).mean()
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.generator.parameters()), torch.optim.SGD(
            self.discriminator.parameters(), lr=0.1
        )

    def train_dataloader(self) -> Any:
        return DataLoader(TensorDataset(torch.ones(8, 4)), batch_size=2)


def test_manual_optimization_with_two_optimizers(tmp_path: Path, store: VersionStore) -> None:
    ours = VersionCheckpoint(store.path, every_n_train_steps=4, keep_training_state="all")
    stock = ModelCheckpoint(dirpath=tmp_path / "stock", every_n_train_steps=4, save_top_k=-1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer_of(stock, ours, max_epochs=2).fit(Gan())
    steps = {torch.load(path, weights_only=False)["global_step"] for path in (tmp_path / "stock").iterdir()}
    assert {each.step for each in store.versions()} == steps
    trainer_of(VersionCheckpoint(store.path), max_epochs=3).fit(Gan(), ckpt_path=ours.best_model_path)


def test_gradient_accumulation_counts_optimizer_steps(store: VersionStore) -> None:
    trainer_of(VersionCheckpoint(store.path, every_n_train_steps=2), accumulate_grad_batches=2).fit(Small())
    assert [each.step for each in store.versions()] == [2, 4, 6]


def test_lr_find_makes_no_run(store: VersionStore) -> None:
    from lightning.pytorch.tuner import Tuner

    trainer = trainer_of(VersionCheckpoint(store.path), max_epochs=2)

    class Tuned(Small):
        lr = 0.1

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), lr=self.lr)

    model = Tuned()
    Tuner(trainer).lr_find(model, num_training=4)
    assert not store.path.exists()
    trainer.fit(model)
    assert len(store.versions()) == 2
    assert len(store.runs()) == 1


def test_the_wrong_trainer_is_refused_with_the_right_import(store: VersionStore) -> None:
    other = pytest.importorskip("pytorch_lightning")
    from mvc_callbacks.pytorch_lightning import VersionCheckpoint as Other

    options: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "accelerator": "cpu"}
    try:
        pl.Trainer(callbacks=[Other(store.path)], **options)
    except ValueError:
        pytest.skip("this release of Lightning refuses such a callback itself, before it can say anything")
    with pytest.raises(Misconfigured, match=r"from mvc_callbacks\.lightning import"):
        pl.Trainer(callbacks=[Other(store.path)], **options).fit(Small())
    with pytest.raises(Misconfigured, match=r"from mvc_callbacks\.pytorch_lightning import"):
        from pytorch_lightning.demos.boring_classes import BoringModel

        other.Trainer(callbacks=[VersionCheckpoint(store.path)], **options).fit(BoringModel())


def test_the_other_namespace_does_the_same(store: VersionStore) -> None:
    other = pytest.importorskip("pytorch_lightning")
    from pytorch_lightning.demos.boring_classes import BoringModel

    from mvc_callbacks.pytorch_lightning import VersionCheckpoint as Other

    callback = Other(store.path, run="r")
    options: dict[str, Any] = {
        "logger": False,
        "enable_progress_bar": False,
        "accelerator": "cpu",
        "max_epochs": 1,
    }
    trainer = other.Trainer(callbacks=[callback], limit_train_batches=2, limit_val_batches=1, **options)
    trainer.fit(BoringModel())
    assert store.get("r/1").framework == "pytorch_lightning"
    trainer.test(ckpt_path="best", verbose=False)
    BoringModel.load_from_checkpoint(callback.best_model_path)


def test_lightning_cli_and_hydra_make_it_from_its_signature(store: VersionStore) -> None:
    pytest.importorskip("jsonargparse")
    from lightning.pytorch.cli import LightningCLI

    arguments = [
        "fit",
        "--trainer.callbacks=mvc_callbacks.lightning.VersionCheckpoint",
        f"--trainer.callbacks.store={store.path}",
        "--trainer.callbacks.run=cli",
        "--trainer.callbacks.monitor=score",
        "--trainer.callbacks.save_top_k=1",
        "--trainer.max_epochs=2",
        "--trainer.accelerator=cpu",
        "--trainer.logger=false",
        "--trainer.enable_progress_bar=false",
    ]
    LightningCLI(Small, args=arguments, save_config_callback=None)
    assert [each.number for each in store.versions("cli") if each.has_weights] == [2]

    hydra = pytest.importorskip("hydra.utils")
    made = hydra.instantiate(
        {"_target_": "mvc_callbacks.lightning.VersionCheckpoint", "store": "x", "mode": "max"}
    )
    assert made.mode == "max"
