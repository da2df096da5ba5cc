"""Training with a policy uses no more disk than the policy keeps, during the run and not only after it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from small_models import trainer_of
from torch.utils.data import DataLoader, TensorDataset

from mvc_callbacks import VersionStore, files
from mvc_callbacks.lightning import VersionCheckpoint

WIDTH = 400  # a state of about 2 MB: what else a version costs does not count beside it


class Wide(pl.LightningModule):
    """A model with an optimizer whose state is twice its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(WIDTH, WIDTH)

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        self.log("score", -float(self.global_step))  # each one is the best so far
        return self.layer(batch[0]).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), 0.01)

    def train_dataloader(self) -> Any:
        return DataLoader(TensorDataset(torch.randn(12, WIDTH)), batch_size=1)


@pytest.mark.lightning
@pytest.mark.parametrize("background", [True, False], ids=["background", "at once"])
@pytest.mark.parametrize(
    ("policy", "kept"),
    [
        ({"save_top_k": 2, "monitor": "score"}, 2),
        ({"save_top_k": 3, "monitor": "score", "save_last": True}, 3),
        ({"save_top_k": 1}, 1),
        ({"save_top_k": 0, "save_last": True}, 1),
    ],
    ids=str,
)
def test_at_most_k_and_two_states_are_on_the_disk_at_any_moment(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch, policy: dict[str, Any], kept: int, background: bool
) -> None:
    sizes: list[int] = []
    real = files.os.replace

    def replace(source: Path, target: Path) -> None:
        real(source, target)
        folder = store.path / "objects"  # each moment at which a file of the store was added
        sizes.append(sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()))

    monkeypatch.setattr(files.os, "replace", replace)
    torch.manual_seed(1)
    callback = VersionCheckpoint(
        store.path, every_n_train_steps=1, keep_training_state="all", background=background, **policy
    )
    trainer_of(callback, max_epochs=2).fit(Wide())
    one = 3 * 4 * (WIDTH * WIDTH + WIDTH)  # weights, and two moments of Adam
    assert len(store.versions()) == 24
    assert max(sizes) <= (kept + 2) * one * 1.02
    assert max(sizes) >= (kept + 1) * one  # it was looked at while it mattered
    assert sum(version.has_weights for version in store.versions()) <= kept + 1
