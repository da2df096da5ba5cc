"""Two processes that share a model (FSDP2) and fit it together; run by a test."""

from __future__ import annotations

import sys
import warnings
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.utils.data import DataLoader, TensorDataset

from mvc_callbacks.lightning import VersionCheckpoint


class Model(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Dropout(0.2), torch.nn.Linear(8, 1))

    def configure_model(self) -> None:
        from torch.distributed.fsdp import fully_shard

        mesh = self.device_mesh["data_parallel"]
        for each in self.net:
            if isinstance(each, torch.nn.Linear):
                fully_shard(each, mesh=mesh)
        fully_shard(self.net, mesh=mesh)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return torch.nn.functional.mse_loss(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=0.02)

    def train_dataloader(self) -> Any:
        values = torch.randn(32, 6, generator=torch.Generator().manual_seed(3))
        return DataLoader(TensorDataset(values, values.sum(1, keepdim=True)), batch_size=4, shuffle=True)


def main(store: str, epochs: str, path: str) -> None:
    warnings.simplefilter("ignore")
    pl.seed_everything(11, verbose=False)
    trainer = pl.Trainer(
        max_epochs=int(epochs),
        accelerator="cpu",
        devices=2,
        strategy=ModelParallelStrategy(
            data_parallel_size=2,
            tensor_parallel_size=1,
            save_distributed_checkpoint=False,
            process_group_backend="gloo",
        ),
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[VersionCheckpoint(store, run="job")],
    )
    trainer.fit(Model(), ckpt_path=path or None)


if __name__ == "__main__":
    main(*sys.argv[1:])
