"""Small models and Trainers for real fits that take a tenth of a second."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader, TensorDataset

VALUES = [3.0, 1.0, 2.0, float("nan"), 0.5, 4.0, 0.5, 0.25, 9.0, 1.5, 2.5, 0.1]


class Small(pl.LightningModule):
    """A linear model whose validation metric is a fixed zigzag, the same in every run."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layer = torch.nn.Linear(width, 1)
        self.validations = 0

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = self.layer(batch[0]).pow(2).mean()
        self.log("loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        pass

    def on_validation_epoch_end(self) -> None:
        if not self.trainer.sanity_checking:
            self.log("score", VALUES[self.validations % len(VALUES)])
            self.validations += 1

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.log("test_loss", self.layer(batch[0]).pow(2).mean())

    def predict_step(self, batch: Any, batch_idx: int) -> Any:
        return self.layer(batch[0])

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.05)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["validations"] = self.validations

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.validations = checkpoint.get("validations", 0)

    def train_dataloader(self) -> Any:
        return _loader()

    def val_dataloader(self) -> Any:
        return _loader()

    def test_dataloader(self) -> Any:
        return _loader()

    def predict_dataloader(self) -> Any:
        return _loader()


def _loader() -> Any:
    generator = torch.Generator().manual_seed(7)
    return DataLoader(TensorDataset(torch.randn(8, 4, generator=generator)), batch_size=2)


def trainer_of(*callbacks: Any, **kwargs: Any) -> Any:
    """Make a Trainer that says and writes nothing of its own."""
    given: dict[str, Any] = {
        "max_epochs": 3,
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        **kwargs,
    }
    return pl.Trainer(callbacks=list(callbacks), **given)
