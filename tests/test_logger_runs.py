"""Runs of other trackers: what they tell is recorded, and nothing of theirs ends a training."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from mvc_callbacks import logger_runs


class CSVLogger:
    def __init__(self, version: Any) -> None:
        self.name, self.version = "logs", version
        self.save_dir = SimpleNamespace()  # neither text nor number

    @property
    def log_dir(self) -> str:
        raise ConnectionError("no server")


class WandbLogger:
    def __init__(self, **experiment: Any) -> None:
        self.version, self.project = "abc", "p" * 1000
        if experiment:
            self.experiment = SimpleNamespace(**experiment)


class OwnLogger(WandbLogger):
    """One that somebody derived."""


def test_loggers_are_told_by_class_and_number_with_what_they_answer() -> None:
    loggers = [CSVLogger(0), CSVLogger("x"), WandbLogger(), CSVLogger(None), OwnLogger(url="https://w/abc")]
    assert logger_runs.told(loggers) == {
        "CSVLogger": {"name": "logs", "version": "0"},
        "CSVLogger-2": {"name": "logs", "version": "x"},
        "CSVLogger-3": {"name": "logs"},
        "WandbLogger": {"version": "abc", "project": "p" * 400},
        "OwnLogger": {"version": "abc", "project": "p" * 400, "url": "https://w/abc"},
    }


def failing() -> Any:
    raise RuntimeError("no tracking server")


RUN = SimpleNamespace(info=SimpleNamespace(run_id="7f", run_name="calm-owl", experiment_id="0"))


@pytest.mark.parametrize(
    ("active", "told"),
    [
        (lambda: RUN, {"mlflow": {"run_id": "7f", "run_name": "calm-owl", "experiment_id": "0"}}),
        (lambda: None, {}),
        (lambda: SimpleNamespace(), {}),
        (failing, {}),
    ],
)
def test_a_run_of_mlflow_that_is_open_is_told(
    active: Any, told: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(run=None))
    monkeypatch.setitem(sys.modules, "mlflow", SimpleNamespace(active_run=active))
    assert logger_runs.active_runs() == told


def test_a_run_of_wandb_that_is_open_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    run = SimpleNamespace(id="abc", name="calm-owl", project="p", entity=None, url="https://w/abc")
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(run=run))
    monkeypatch.delitem(sys.modules, "mlflow", raising=False)
    assert logger_runs.active_runs() == {
        "wandb": {"id": "abc", "name": "calm-owl", "project": "p", "url": "https://w/abc"}
    }
