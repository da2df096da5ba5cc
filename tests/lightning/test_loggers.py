"""Promises of loggers: versions are written beside the metrics, and the record names the loggers' runs."""

from __future__ import annotations

import csv
import importlib.util
import warnings
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from small_models import Small, trainer_of

from mvc_callbacks import MVCWarning, VersionStore
from mvc_callbacks.lightning import VersionCheckpoint

FIT: dict[str, Any] = {"log_every_n_steps": 1}


def rows_of(logger: CSVLogger) -> list[dict[str, str]]:
    with (Path(logger.log_dir) / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


needs_tensorboard = pytest.mark.skipif(not installed("tensorboard"), reason="needs tensorboard")


@pytest.mark.parametrize("background", [True, False])
def test_each_versions_id_is_a_row_of_the_csv_at_the_step_of_its_metrics(
    store: VersionStore, background: bool, tmp_path: Path
) -> None:
    logger = CSVLogger(tmp_path, name="mine")
    callback = VersionCheckpoint(store.path, run="first", monitor="score", background=background)
    trainer_of(callback, logger=logger, **FIT).fit(Small())
    rows = rows_of(logger)
    logged = {row["step"]: row["mvc_version"] for row in rows if row["mvc_version"]}
    scores = [row["step"] for row in rows if row["score"]]
    assert list(logged) == scores == ["3", "7", "11"]
    assert list(logged.values()) == [each.id for each in store.versions()]


def test_versions_in_the_middle_of_an_epoch_are_at_the_steps_metrics(
    store: VersionStore, tmp_path: Path
) -> None:
    logger = CSVLogger(tmp_path)
    callback = VersionCheckpoint(store.path, every_n_train_steps=2)
    trainer_of(callback, logger=logger, max_epochs=1, **FIT).fit(Small())
    rows = rows_of(logger)
    logged = [row["step"] for row in rows if row["mvc_version"]]
    assert set(logged) <= {row["step"] for row in rows if row["loss"]}
    assert len(logged) == len(store.versions()) == 2


@needs_tensorboard
def test_each_versions_id_is_a_text_in_tensorboard_at_the_step_of_its_metrics(
    store: VersionStore, tmp_path: Path
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = TensorBoardLogger(tmp_path, name="board")
    trainer_of(VersionCheckpoint(store.path, run="first"), logger=logger, **FIT).fit(Small())
    events = EventAccumulator(logger.log_dir).Reload()
    texts = events.Tensors("mvc_version/text_summary")
    assert [each.step for each in texts] == [each.step for each in events.Scalars("score")] == [3, 7, 11]
    told = [each.tensor_proto.string_val[0].decode() for each in texts]
    for text, version in zip(told, store.versions(), strict=True):
        assert version.id in text and f"first/{version.number}" in text


def test_the_record_names_the_loggers_runs(store: VersionStore, tmp_path: Path) -> None:
    loggers: list[Logger] = [CSVLogger(tmp_path, name="a"), CSVLogger(tmp_path, name="b")]
    trainer_of(VersionCheckpoint(store.path), logger=loggers, max_epochs=1).fit(Small())
    told = store.get("latest").details.run_record["loggers"]
    assert told["CSVLogger"]["name"] == "a" and told["CSVLogger"]["version"] == "0"
    assert told["CSVLogger-2"]["log_dir"] == str(tmp_path / "b" / "version_0")
    assert "loggers" in store.get("latest").text()


def test_a_fit_without_loggers_tells_of_none(store: VersionStore) -> None:
    trainer_of(VersionCheckpoint(store.path), max_epochs=1).fit(Small())
    assert "loggers" not in store.get("latest").details.run_record


class Full(CSVLogger):
    """A logger whose disk is full."""

    def log_metrics(self, metrics: Any, step: Any = None) -> None:
        if "mvc_version" in metrics:
            raise OSError("no space left")
        super().log_metrics(metrics, step)


def test_a_logger_that_fails_ends_no_training_and_is_told_of_once(
    store: VersionStore, tmp_path: Path
) -> None:
    good = CSVLogger(tmp_path, name="good")
    with pytest.warns(MVCWarning, match=r"Full took no note of the version first/1") as seen:
        trainer_of(VersionCheckpoint(store.path, run="first"), logger=[Full(tmp_path), good]).fit(Small())
    assert len([each for each in seen if "took no note" in str(each.message)]) == 1
    assert len(store.versions()) == 3
    assert len([row for row in rows_of(good) if row["mvc_version"]]) == 3


def test_a_version_that_was_saved_on_an_exception_is_logged_too(store: VersionStore, tmp_path: Path) -> None:
    class Breaks(Small):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            if self.trainer.global_step == 5:
                raise RuntimeError("out of memory")
            return super().training_step(batch, batch_idx)

    logger = CSVLogger(tmp_path)
    with pytest.raises(RuntimeError, match="out of memory"):
        trainer_of(VersionCheckpoint(store.path), logger=logger).fit(Breaks())
    assert [row["mvc_version"] for row in rows_of(logger) if row["mvc_version"]] == [
        each.id for each in store.versions()
    ]


@pytest.mark.skipif(not installed("wandb"), reason="needs wandb")
def test_the_record_names_the_run_of_wandb(
    store: VersionStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_SILENT", "true")
    from lightning.pytorch.loggers import WandbLogger

    logger = WandbLogger(project="digits", save_dir=tmp_path, offline=True)
    try:
        trainer_of(VersionCheckpoint(store.path), logger=logger, max_epochs=1).fit(Small())
        told = store.get("latest").details.run_record["loggers"]
        assert told["WandbLogger"]["version"] == told["wandb"]["id"] == logger.experiment.id
        assert told["WandbLogger"]["name"] == "digits"
    finally:
        logger.experiment.finish()


@pytest.mark.skipif(not installed("mlflow"), reason="needs mlflow")
def test_the_record_names_the_run_of_mlflow(
    store: VersionStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    import mlflow
    from lightning.pytorch.loggers import MLFlowLogger

    logger = MLFlowLogger("digits", tracking_uri=(tmp_path / "runs").as_uri())
    mlflow.set_tracking_uri((tmp_path / "runs").as_uri())
    with warnings.catch_warnings(), mlflow.start_run() as active:
        warnings.simplefilter("ignore", FutureWarning)
        trainer_of(VersionCheckpoint(store.path), logger=logger, max_epochs=1).fit(Small())
    told = store.get("latest").details.run_record["loggers"]
    assert active.info.run_id != logger.run_id
    assert told["MLFlowLogger"]["run_id"] == told["MLFlowLogger"]["version"] == logger.run_id
    assert told["mlflow"]["run_id"] == active.info.run_id
