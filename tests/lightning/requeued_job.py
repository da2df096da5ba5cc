"""A training on SLURM, whose job is queued again in its seventh step; run by a test, twice."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch.utils.data import DataLoader, TensorDataset

from mvc_callbacks.lightning import VersionCheckpoint


class Model(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Dropout(0.3), torch.nn.Linear(8, 1))

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return torch.nn.functional.mse_loss(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=0.02)

    def train_dataloader(self) -> Any:
        values = torch.randn(44, 6, generator=torch.Generator().manual_seed(3))
        return DataLoader(TensorDataset(values, values.sum(1, keepdim=True)), batch_size=4, shuffle=True)


class Requeue(Callback):
    """Do what SLURM does shortly before a job's time is over."""

    def __init__(self, done: Path) -> None:
        self.done = done

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == 6 and not self.done.exists():
            self.done.touch()
            os.kill(os.getpid(), signal.SIGUSR1)
            os.kill(os.getpid(), signal.SIGTERM)


def main(store: str, seed: str, interrupt: str) -> None:
    warnings.simplefilter("ignore")
    pl.seed_everything(int(seed), verbose=False)
    requeue = [Requeue(Path(store).with_name("requeued"))] if interrupt == "yes" else []
    trainer = pl.Trainer(
        max_epochs=2,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=Path(store).with_name("root"),
        callbacks=[*requeue, VersionCheckpoint(store, run=f"job-{os.environ['SLURM_JOB_ID']}")],
    )
    trainer.fit(Model(), ckpt_path="last")


if __name__ == "__main__":
    main(*sys.argv[1:])
