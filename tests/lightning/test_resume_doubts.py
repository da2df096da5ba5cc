"""Trainings that keep to themselves what no checkpoint holds: never called exact where they are not."""

from __future__ import annotations

import contextlib
import itertools
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    Callback,
    LambdaCallback,
    LearningRateFinder,
    ModelPruning,
)
from torch.utils.data import BatchSampler, DataLoader, Sampler, TensorDataset, WeightedRandomSampler

from mvc_callbacks import VersionStore, lightning_conditions
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


class ByFunction(Model):
    """Counts in an attribute of a function."""

    def __init__(self) -> None:
        super().__init__()

        def scale() -> float:
            scale.calls += 1  # type: ignore[attr-defined]
            return 1 + 0.1 * float(scale.calls)  # type: ignore[attr-defined]

        scale.calls = 0  # type: ignore[attr-defined]
        self.scale = scale

    def factor(self) -> float:
        return self.scale()


class Block(torch.nn.Module):
    """Counts, or does not, many modules deep."""

    def __init__(self, depth: int, counts: bool) -> None:
        super().__init__()
        self.calls, self.counts = 0, counts
        self.inner = Block(depth - 1, counts) if depth else torch.nn.Identity()

    def forward(self, x: Any) -> Any:
        self.calls += self.counts and isinstance(self.inner, torch.nn.Identity)
        return self.inner(x) * (1 + 0.1 * self.calls)


class Deep(Model):
    counts = True

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(6, 8), Block(10, self.counts), torch.nn.Linear(8, 1))


class DeepAndStill(Deep):
    counts = False


class Weighing(Model):
    """Keeps a number for each of many samples; those in the middle change."""

    changes = True

    def __init__(self) -> None:
        super().__init__()
        self.weights = [1.0] * 9000

    def factor(self) -> float:
        self.weights[4500] += 0.1 * self.changes
        return self.weights[4500]


class WeighingEvenly(Weighing):
    changes = False


class BehindMuch(Private):
    """Has so much before what it counts that not all of it is looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.table = {a: {b: {c: [c] for c in range(40)} for b in range(40)} for a in range(40)}


class Two(Model):
    """Takes its batches from two loaders."""

    stateful = ("", "")

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return super().training_step(batch[0], 0) + super().training_step(batch[1], 0)

    def train_dataloader(self) -> Any:
        from torchdata.stateful_dataloader import StatefulDataLoader

        data = super().train_dataloader().dataset
        kinds = [StatefulDataLoader if each else DataLoader for each in self.stateful]
        return [kind(data, batch_size=4, shuffle=True) for kind in kinds]


class Mixed(Two):
    stateful = ("yes", "")


class Taking(Model):
    def training_step(self, dataloader_iter: Any) -> Any:
        batch, index, _ = next(dataloader_iter)
        return super().training_step(batch, index)


class Plateau(Model):
    interval = "step"

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        self.log("loss", loss.detach())
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=0.02)
        schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=1, factor=0.5)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": self.interval, "monitor": "loss"},
        }


class Batched(Model):
    """Draws with replacement, by a generator of its own, in batches of its own."""

    def train_dataloader(self) -> Any:
        data = super().train_dataloader().dataset
        generator = torch.Generator().manual_seed(5)
        weights = torch.linspace(0, 1, SAMPLES)
        sampler = WeightedRandomSampler(weights.tolist(), SAMPLES, generator=generator)
        return DataLoader(data, batch_sampler=BatchSampler(sampler, 4, drop_last=True))


class Scheduled(Model):
    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=0.02)
        steps = self.trainer.estimated_stepping_batches
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, int(steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def compiled() -> Any:
    return torch.compile(Model(), backend="aot_eager")


class Sized(Model):
    """A model whose loader has the size that a finder of batch sizes asks for."""

    def __init__(self) -> None:
        super().__init__()
        self.lr, self.batch_size = 0.02, 4

    def train_dataloader(self) -> Any:
        return DataLoader(super().train_dataloader().dataset, batch_size=self.batch_size, shuffle=True)


def with_closure() -> list[Any]:
    counted = {"steps": 0}

    def step(trainer: Any, *_: Any) -> None:
        counted["steps"] += 1
        trainer.optimizers[0].param_groups[0]["lr"] = 0.02 / counted["steps"]

    return [LambdaCallback(on_train_batch_start=step)]


def fit(store: VersionStore, make: Any, callbacks: list[Any], seed: int, **options: Any) -> Any:
    pl.seed_everything(seed, verbose=False)
    model = make()
    policy = {"every_n_train_steps": 3, "save_on_exception": options.pop("save_on_exception", False)}
    trainer = pl.Trainer(
        max_epochs=options.pop("epochs", 3),
        **options.pop("trainer", {}),
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[
            Stop(),
            *callbacks,
            VersionCheckpoint(store.path, run="job", **policy),
        ],
    )
    with contextlib.suppress(Stopped):
        trainer.fit(model, **options)
    return {name: value.clone() for name, value in model.state_dict().items()}


def outcome(
    store: VersionStore, make: Callable[[], Any], callbacks: Callable[[], list[Any]], at: Any, **trainer: Any
) -> Any:
    """Train straight, and interrupted; return whether the ends are the same, and what was promised."""
    ends = []
    for folder, stop in (("straight", None), ("job", at)):
        COUNTED["steps"], STOP["at"], SETTING["scale"] = 0, stop, 1.0
        ends.append(fit(VersionStore(store.path / folder), make, callbacks(), 11, trainer=trainer))
    COUNTED["steps"], STOP["at"], SETTING["scale"] = 0, None, 2.0
    job = VersionStore(store.path / "job")
    resumed = fit(job, make, callbacks(), 999, ckpt_path="last", trainer=trainer)
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
        (ByFunction, list, "changes scale.calls"),
        (Deep, list, "inner.calls"),
        (Weighing, list, "changes weights"),
        (BehindMuch, list, "more objects than are looked at"),
        (Mixed, list, "one loader goes on by a state of its own"),
        (Taking, list, "takes its batches from the loader itself"),
        (Plateau, list, "ReduceLROnPlateau(interval='step')"),
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
@pytest.mark.parametrize(
    "make", [Model, Drawn, Restored, DeepAndStill, WeighingEvenly, Two, Batched, compiled]
)
def test_what_is_brought_back_is_exact(store: VersionStore, make: Any, at: tuple[int, int]) -> None:
    same, promise = outcome(store, make, list, at)
    assert promise == {"guarantee": "exact", "reasons": []}
    assert same


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "options",
    [
        {"overfit_batches": 5},
        {"limit_train_batches": 0.5},
        {"gradient_clip_val": 0.1},
        {"val_check_interval": 15, "check_val_every_n_epoch": None},
    ],
    ids=lambda each: "+".join(each),
)
def test_options_of_the_trainer_are_gone_through_again(store: VersionStore, options: dict[str, Any]) -> None:
    same, promise = outcome(store, Validated, list, (1, 3), **options)
    assert promise["guarantee"] == "approximate" or same, promise


class Validated(Model):
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        torch.rand(2)

    def val_dataloader(self) -> Any:
        return DataLoader(torch.randn(4, 6, generator=torch.Generator().manual_seed(1)))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("part", ["machine", "libraries"])
def test_another_machine_or_library_is_told(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    STOP["at"] = (1, 5)
    fit(store, Model, [], 11)
    STOP["at"] = None
    tell = getattr(lightning_conditions, f"_{part}")
    name, value = {"libraries": ("torch", "1.0"), "machine": ("vector instructions", "SSE")}[part]
    monkeypatch.setattr(lightning_conditions, f"_{part}", lambda *given: {**tell(*given), name: value})
    fit(store, Model, [], 999, ckpt_path="last")
    (reason,) = store.versions()[-1].details.run_record["resume"]["reasons"]
    assert reason.startswith(f"the {part} changed ({name} was ")
    assert reason.endswith(f" and is {value})")


class Failing(Model):
    def factor(self) -> float:
        if STOP["at"] == (self.trainer.current_epoch, self.trainer.fit_loop.epoch_loop.batch_idx):
            raise Stopped
        return 1.0


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", [Failing, Model], ids=["in a step", "between steps"])
def test_what_is_saved_in_the_middle_of_a_step_is_told(store: VersionStore, make: Any) -> None:
    STOP["at"] = (1, 5)  # after a step upon which nothing is saved
    fit(store, make, [], 11, save_on_exception=True)
    STOP["at"] = None
    fit(store, make, [], 999, ckpt_path="last")
    promise = store.versions()[-1].details.run_record["resume"]
    told = "it was saved in the middle of a step" in promise["reasons"]
    assert told is (make is Failing), promise


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "finder",
    [
        lambda: LearningRateFinder(num_training_steps=3),
        lambda: BatchSizeFinder(max_trials=1, steps_per_trial=1),
    ],
    ids=["learning rate", "batch size"],
)
def test_a_finder_makes_no_resume_of_a_fit_and_nothing_exact_of_a_resume(
    store: VersionStore, finder: Any, tmp_path: Path
) -> None:
    STOP["at"] = None
    given = {"trainer": {"default_root_dir": tmp_path}}
    fit(store, Sized, [finder()], 11, epochs=1, **given)
    assert all("resume" not in each.details.run_record for each in store.versions())
    fit(store, Sized, [finder()], 11, epochs=2, ckpt_path="last", **given)
    assert store.versions()[-1].details.run_record["resume"]["guarantee"] == "approximate"


class SavesTheBeginning(Callback):
    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        trainer.save_checkpoint(self.path)


@pytest.mark.filterwarnings("ignore")
def test_a_resume_from_a_checkpoint_of_the_very_beginning_is_one(store: VersionStore, tmp_path: Path) -> None:
    STOP["at"] = None
    begun = tmp_path / "begun.ckpt"
    other = {"callbacks": [SavesTheBeginning(begun)], "enable_checkpointing": False, "logger": False}
    pl.Trainer(accelerator="cpu", max_epochs=1, default_root_dir=tmp_path, **other).fit(Model())
    fit(store, Model, [], 11, epochs=1, ckpt_path=begun)
    assert store.versions()[-1].details.run_record["resume"] == {
        "guarantee": "approximate",
        "reasons": ["no random state was kept with what is resumed from"],
    }


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
