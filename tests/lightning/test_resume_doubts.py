"""Trainings that keep to themselves what no checkpoint holds: never called exact where they are not."""

from __future__ import annotations

import contextlib
import itertools
import random
from collections.abc import Callable, Iterator
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback, LambdaCallback, ModelPruning
from torch.utils.data import DataLoader, Sampler, TensorDataset

from mvc_callbacks import VersionStore
from mvc_callbacks.lightning import VersionCheckpoint

SAMPLES = 44
STOP: dict[str, Any] = {"at": None}
COUNTED = {"steps": 0}
SETTING = {"scale": 1.0}


class Stopped(Exception):
    """The training is over, as if its process were."""


class Stop(Callback):
    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if STOP["at"] == (trainer.current_epoch, batch_idx):
            raise Stopped


class Model(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Dropout(0.3), torch.nn.Linear(8, 1))

    def factor(self) -> float:
        return 1.0

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return torch.nn.functional.mse_loss(self.net(batch[0]), batch[1]) * self.factor()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.02)

    def sampler(self) -> Any:
        return None

    def train_dataloader(self) -> Any:
        values = torch.randn(SAMPLES, 6, generator=torch.Generator().manual_seed(3))
        sampler = self.sampler()
        data = TensorDataset(values, values.sum(1, keepdim=True).sin())
        return DataLoader(data, batch_size=4, shuffle=sampler is None, sampler=sampler)


class Private(Model):
    def __init__(self) -> None:
        super().__init__()
        self._calls = 0

    def factor(self) -> float:
        self._calls += 1
        return 1 + 0.1 * self._calls


class Counts(Model):
    def __init__(self) -> None:
        super().__init__()
        self.numbers = itertools.count()

    def factor(self) -> float:
        return 1 + 0.1 * next(self.numbers)


class Global(Model):
    def factor(self) -> float:
        COUNTED["steps"] += 1
        return 1 + 0.1 * COUNTED["steps"]


class Set(Model):
    def factor(self) -> float:
        return SETTING["scale"]


class After(Model):
    def on_train_batch_end(self, *_: Any) -> None:
        torch.rand(3)


class OwnSampler(Sampler[int]):
    def __init__(self) -> None:
        self._epoch = 0

    def __iter__(self) -> Iterator[int]:
        self._epoch += 1
        return iter(torch.randperm(SAMPLES, generator=torch.Generator().manual_seed(self._epoch)).tolist())

    def __len__(self) -> int:
        return SAMPLES


class Buffered(Sampler[int]):
    """Shuffles what comes, in a buffer."""

    def __iter__(self) -> Iterator[int]:
        buffer = list(range(8))
        for index in range(8, SAMPLES + 8):
            place = random.randrange(len(buffer))
            yield buffer[place]
            if index < SAMPLES:
                buffer[place] = index
            else:
                buffer.pop(place)

    def __len__(self) -> int:
        return SAMPLES


class Sampled(Model):
    kind: Any = OwnSampler

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        random.random()
        return super().training_step(batch, batch_idx)

    def sampler(self) -> Any:
        return self.kind()


class SampledByBuffer(Sampled):
    kind = Buffered


class Drawn(Model):
    """Draws before the first batch is loaded, and from a generator in a closure."""

    def __init__(self) -> None:
        super().__init__()
        generator = np.random.default_rng(5)
        self.draw = lambda: float(generator.random())

    def on_train_epoch_start(self) -> None:
        torch.rand(3)

    def factor(self) -> float:
        return 1 + self.draw()


class Restored(Private):
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["calls"] = self._calls

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._calls = checkpoint["calls"]


class Scheduled(Model):
    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=0.02)
        steps = self.trainer.estimated_stepping_batches
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, int(steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def with_closure() -> list[Any]:
    counted = {"steps": 0}

    def step(trainer: Any, *_: Any) -> None:
        counted["steps"] += 1
        trainer.optimizers[0].param_groups[0]["lr"] = 0.02 / counted["steps"]

    return [LambdaCallback(on_train_batch_start=step)]


def fit(store: VersionStore, make: Any, callbacks: list[Any], seed: int, **options: Any) -> Any:
    pl.seed_everything(seed, verbose=False)
    model = make()
    trainer = pl.Trainer(
        max_epochs=options.pop("epochs", 3),
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Stop(), *callbacks, VersionCheckpoint(store.path, run="job", every_n_train_steps=3)],
    )
    with contextlib.suppress(Stopped):
        trainer.fit(model, **options)
    return {name: value.clone() for name, value in model.state_dict().items()}


def outcome(store: VersionStore, make: Callable[[], Any], callbacks: Callable[[], list[Any]], at: Any) -> Any:
    """Train straight, and interrupted; return whether the ends are the same, and what was promised."""
    ends = []
    for folder, stop in (("straight", None), ("job", at)):
        COUNTED["steps"], STOP["at"], SETTING["scale"] = 0, stop, 1.0
        ends.append(fit(VersionStore(store.path / folder), make, callbacks(), 11))
    COUNTED["steps"], STOP["at"], SETTING["scale"] = 0, None, 2.0
    job = VersionStore(store.path / "job")
    resumed = fit(job, make, callbacks(), 999, ckpt_path="last")
    promise = job.versions()[-1].details.run_record["resume"]
    return all(torch.equal(ends[0][name], resumed[name]) for name in resumed), promise


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("at", [(0, 5), (1, 5)], ids=["first epoch", "second epoch"])
@pytest.mark.parametrize(
    ("make", "callbacks", "reason"),
    [
        (Private, list, "changes _calls"),
        (Counts, list, "changes numbers"),
        (Global, list, "COUNTED.steps"),
        (Set, list, "SETTING.scale was 1.0 and is 2.0"),
        (After, list, "on_train_batch_end comes after its save"),
        (Sampled, list, "changes _epoch"),
        (SampledByBuffer, list, "a sampler of one's own"),
        (Model, with_closure, "changes counted.steps"),
        (Model, lambda: [ModelPruning("l1_unstructured", amount=0.2)], "ModelPruning has masks"),
    ],
)
def test_what_is_lost_is_told(
    store: VersionStore, make: Any, callbacks: Any, reason: str, at: tuple[int, int]
) -> None:
    _, promise = outcome(store, make, callbacks, at)
    assert promise["guarantee"] == "approximate"
    assert any(reason in each for each in promise["reasons"]), promise


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("at", [(0, 5), (1, 5)], ids=["first epoch", "second epoch"])
@pytest.mark.parametrize("make", [Model, Drawn, Restored])
def test_what_is_brought_back_is_exact(store: VersionStore, make: Any, at: tuple[int, int]) -> None:
    same, promise = outcome(store, make, list, at)
    assert promise == {"guarantee": "exact", "reasons": []}
    assert same


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("make", "guarantee"), [(Model, "exact"), (Scheduled, "approximate")])
def test_a_training_made_longer_is_exact_where_no_schedule_follows_its_length(
    store: VersionStore, make: Any, guarantee: str
) -> None:
    STOP["at"] = None
    straight = fit(VersionStore(store.path / "straight"), make, [], 11, epochs=4)
    job = VersionStore(store.path / "job")
    fit(job, make, [], 11, epochs=2)
    resumed = fit(job, make, [], 999, epochs=4, ckpt_path="last")
    assert all(torch.equal(straight[name], resumed[name]) for name in resumed) is (guarantee == "exact")
    promise = job.versions()[-1].details.run_record["resume"]
    assert promise["guarantee"] == guarantee
    if guarantee == "approximate":
        assert any("2 epochs and is 4 epochs" in each for each in promise["reasons"]), promise
