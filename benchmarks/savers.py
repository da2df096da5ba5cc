"""Savers: this package's callback and its peers, each added to a Trainer as its users add it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins import AsyncCheckpointIO, TorchCheckpointIO

__all__ = ["NAMES", "SAVERS", "Saver", "fit"]


@dataclass(frozen=True, slots=True)
class Saver:
    """What is given to a Trainer.

    Attributes:
        callbacks: Callbacks.
        options: Further arguments of the Trainer.
        after: Called when fit has returned, inside the measurement: waits for what is not yet written.
    """

    callbacks: tuple[Any, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    after: Callable[[], None] = lambda: None


def _stock(every: int) -> ModelCheckpoint:
    return ModelCheckpoint(dirpath="checkpoints", every_n_train_steps=every, save_top_k=-1)


def _ours(every: int, **more: Any) -> Saver:
    from mvc_callbacks.lightning import VersionCheckpoint

    return Saver((VersionCheckpoint("store", run="bench", every_n_train_steps=every, save_top_k=-1, **more),))


def _ours_all(every: int) -> Saver:
    return _ours(every, keep_training_state="all")


def _ours_with_data(every: int) -> Saver:
    return _ours(every, data="data")


def _ours_at_once(every: int) -> Saver:
    return _ours(every, background=False)


def _model_checkpoint(every: int) -> Saver:
    return Saver((_stock(every),))


def _async_io(every: int) -> Saver:
    return Saver((_stock(every),), {"plugins": [AsyncCheckpointIO()]})


class _Distributed(TorchCheckpointIO):
    """Saves with `torch.distributed.checkpoint.async_save`, one save in flight, as its tutorial does."""

    def __init__(self) -> None:
        self._last: Any = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        import torch.distributed.checkpoint as dcp

        self.wait()
        self._last = dcp.async_save(checkpoint, checkpoint_id=str(path))

    def wait(self) -> None:
        if self._last is not None:
            self._last.result()


def _async_save(every: int) -> Saver:
    group = torch.distributed.FileStore(str(Path("group").absolute()), 1)
    torch.distributed.init_process_group("gloo", store=group, rank=0, world_size=1)
    plugin = _Distributed()
    return Saver((_stock(every),), {"plugins": [plugin]}, plugin.wait)


def _dvclive(every: int) -> Saver:
    os.environ.update(DVC_NO_ANALYTICS="1", DVC_STUDIO_OFFLINE="1")
    from dvc.repo import Repo
    from dvclive.lightning import DVCLiveLogger

    Repo.init(no_scm=True).close()
    logger = DVCLiveLogger(log_model="all", save_dvc_exp=False, report=None)
    checkpoint = ModelCheckpoint(every_n_train_steps=every, save_top_k=-1)
    return Saver((checkpoint,), {"logger": logger})


def _mlflow(every: int) -> Saver:
    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
    import mlflow.pytorch

    mlflow.set_tracking_uri(Path("mlruns").absolute().as_uri())
    mlflow.pytorch.autolog(
        log_models=False,
        checkpoint=True,
        checkpoint_monitor="train_loss",
        checkpoint_save_best_only=False,
        checkpoint_save_freq=every,
    )
    return Saver(())


SAVERS: Mapping[str, Callable[[int], Saver]] = {
    "none": lambda every: Saver(),
    "ours": _ours,
    "ours, all states": _ours_all,
    "ours, at once": _ours_at_once,
    "ours, with data": _ours_with_data,
    "ModelCheckpoint": _model_checkpoint,
    "AsyncCheckpointIO": _async_io,
    "torch.distributed async_save": _async_save,
    "DVCLive log_model": _dvclive,
    "MLflow autologging": _mlflow,
}
"""Name to what makes it; each is told after how many steps to save."""

NAMES = {"DVCLive log_model": "dvclive", "MLflow autologging": "mlflow"}
"""Module that a saver needs beside Lightning."""


class _Begin(pl.Callback):
    """The first callback: its hook is called before any that saves."""

    def __init__(self) -> None:
        self.before_hooks: list[float] = []
        self.first_batch = 0.0

    def on_train_batch_start(self, *_: Any) -> None:
        self.first_batch = self.first_batch or time.perf_counter()

    def on_train_batch_end(self, *_: Any) -> None:
        self.before_hooks.append(time.perf_counter())


def fit(
    model: str,
    optimizer: str,
    saver: str,
    every: int,
    versions: int,
    steps: str = "cpu",
    pause: float = 0.1,
) -> dict[str, Any]:
    """Fit with one saver.

    Returns:
        ``taken``: seconds that the hooks of each save took from the training thread; ``step``: seconds of a
        step without a save; ``start``: until the first step; ``fit``: the whole fit; ``end``: from the last
        step to its return; ``bytes`` (in MB) and ``files`` on disk; ``peak``: the process's largest
        memory in MB, and what `models.megabytes` tells.
    """
    from benchmarks import models
    from benchmarks.footprint import peak_memory, size_of

    module = models.module(model, optimizer, steps, pause)  # type: ignore[arg-type]
    used = SAVERS[saver](every)
    begin = _Begin()
    options = {"logger": False, **used.options}
    trainer = pl.Trainer(
        max_steps=every * versions,
        callbacks=[begin, *used.callbacks],
        accelerator="cpu",
        enable_checkpointing=bool(used.callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    loader = models.data(model)
    os.sync()
    started = time.perf_counter()
    trainer.fit(module, loader)
    used.after()
    ended = time.perf_counter()
    before, after = begin.before_hooks, module.after_hooks
    hooks = [last - first for first, last in zip(before, after, strict=True)]
    steps_taken = [before[at] - after[at - 1] for at in range(1, len(before))]
    return {
        "taken": [hooks[at] for at in range(every - 1, len(hooks), every)],
        "step": sorted(steps_taken)[len(steps_taken) // 2] if steps_taken else pause,
        "fit": ended - started,
        "start": begin.first_batch - started,
        "end": ended - after[-1],
        "peak": peak_memory(),
        **models.megabytes(module, optimizer),
        **size_of(Path()),
    }
