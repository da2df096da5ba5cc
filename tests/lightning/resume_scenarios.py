"""Trainings that are interrupted and resumed in a new process, against the same ones that were left alone."""

from __future__ import annotations

import faulthandler
import logging
import os
import pickle
import random
import re
import signal
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, StochasticWeightAveraging
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset, random_split

from mvc_callbacks import VersionStore
from mvc_callbacks.lightning import VersionCheckpoint

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from resume_table import update

EPOCHS = 4
SAMPLES = 44
BATCH = 4  # eleven batches an epoch, so that two do not divide it


@dataclass(frozen=True)
class Scenario:
    """One training, and how it is interrupted.

    Attributes:
        name: What is told in the table.
        interrupt: ``epoch``, ``step``, ``sigterm``, ``ctrl-c``, ``exception`` or ``sigkill``.
        at: The epoch (counted from 0) and the batch after which it happens.
        expected: ``exact``, or a part of the reason that is told.
    """

    name: str
    interrupt: str = "epoch"
    at: tuple[int, int] = (1, 4)
    expected: str = "exact"
    optimizer: str = "adamw+cosine"
    workers: int = 0
    resumed_workers: int | None = None
    persistent: bool = False
    augment: str = ""
    loader: str = "plain"
    datamodule: bool = False
    manual: bool = False
    accumulate: int = 1
    precision: str = "32-true"
    every_steps: int | None = None
    validation: float | None = None
    reload: int = 0
    average: str = ""
    ranks: int = 1
    resumed_ranks: int | None = None
    split: bool = False
    max_steps: int = -1
    batch_size: int = BATCH
    resumed_batch_size: int | None = None
    hidden: bool = False
    monitor: str | None = None


class Augmented(Dataset[Any]):
    """Draws from all three libraries for each sample."""

    def __init__(self, kind: str, resumed: bool = False) -> None:
        generator = torch.Generator().manual_seed(7)
        self.values = torch.randn(SAMPLES, 6, generator=generator)
        self.labels = self.values.sum(1, keepdim=True).sin()
        self.kind = kind
        self.generator = np.random.default_rng(None if resumed else 5) if kind == "own generator" else None

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> Any:
        value = self.values[index]
        if self.generator is not None:
            value = value + 0.1 * float(self.generator.random())
        elif self.kind:
            value = value + 0.1 * torch.randn(6) + 0.1 * random.random() + 0.1 * float(np.random.rand())
        return value, self.labels[index]


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        data = Augmented("")
        return (data[int(index)] for index in torch.randperm(SAMPLES))


class Model(pl.LightningModule):
    def __init__(self, scenario: Scenario) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(
            torch.nn.Linear(6, 12), torch.nn.BatchNorm1d(12), torch.nn.Dropout(0.3), torch.nn.Linear(12, 1)
        )
        self._scenario = scenario
        self.automatic_optimization = not scenario.manual
        if scenario.hidden:
            self.calls = 0

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = torch.nn.functional.mse_loss(self.net(batch[0]), batch[1])
        self.log("loss", loss, on_epoch=True)
        if self._scenario.hidden:
            self.calls += 1
            loss = loss * (1 + 0.1 * self.calls)
        if self._scenario.manual:
            for index, optimizer in enumerate(self.optimizers()):
                if (batch_idx + index) % 2 == 0:
                    optimizer.zero_grad()
                self.manual_backward(loss / (index + 1), retain_graph=index == 0)
                if (batch_idx + index) % 2:  # gradients of two batches together
                    optimizer.step()
            return None
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", torch.nn.functional.mse_loss(self.net(batch[0]), batch[1]))

    def configure_optimizers(self) -> Any:
        kind = self._scenario.optimizer
        parameters = self.parameters()
        if self._scenario.manual:
            return [
                torch.optim.Adam(self.net[0].parameters(), lr=0.01),
                torch.optim.SGD(self.net[3].parameters(), lr=0.01, momentum=0.9),
            ]
        if kind == "sgd+onecycle":
            optimizer: Any = torch.optim.SGD(parameters, lr=0.01, momentum=0.9)
            steps = int(self.trainer.estimated_stepping_batches)
            schedule: Any = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=steps)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
        if kind.startswith("adam+plateau"):
            optimizer = torch.optim.Adam(parameters, lr=0.05)
            schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
                optimizer, patience=0, factor=0.3, threshold=0.5
            )
            monitor = "loss" if kind.endswith("of training") else "val_loss"
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "monitor": monitor}}
        optimizer = torch.optim.AdamW(parameters, lr=0.02)
        return {
            "optimizer": optimizer,
            "lr_scheduler": torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS),
        }

    def train_dataloader(self) -> Any:
        return training_loader(self._scenario, goes_on())

    def val_dataloader(self) -> Any:
        data = Augmented("")
        return DataLoader(TensorDataset(data.values[:8], data.labels[:8]), batch_size=4)


class Data(pl.LightningDataModule):
    def __init__(self, scenario: Scenario) -> None:
        super().__init__()
        self._scenario = scenario

    def train_dataloader(self) -> Any:
        return training_loader(self._scenario, goes_on())

    def val_dataloader(self) -> Any:
        return DataLoader(Augmented(""), batch_size=11)


def training_loader(scenario: Scenario, resumed: bool) -> Any:
    data: Any = Stream() if scenario.loader == "iterable" else Augmented(scenario.augment, resumed)
    if scenario.split:
        data = random_split(data, [36, 8])[0]
    workers = scenario.workers
    if resumed and scenario.resumed_workers is not None:
        workers = scenario.resumed_workers
    size = (scenario.resumed_batch_size if resumed else None) or scenario.batch_size
    options: dict[str, Any] = {
        "batch_size": size,
        "num_workers": workers,
        "persistent_workers": scenario.persistent,
    }
    if scenario.loader == "own generator":
        options["generator"] = torch.Generator().manual_seed(
            int.from_bytes(os.urandom(4), "little") if resumed else 5
        )
    if scenario.loader == "stateful":
        from torchdata.stateful_dataloader import StatefulDataLoader

        return StatefulDataLoader(data, shuffle=True, **options)
    return DataLoader(data, shuffle=scenario.loader != "iterable", **options)


class Interrupt(Callback):
    """Ends the process, or asks it to end, where the scenario says; in the first process only."""

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        scenario: Scenario = module._scenario
        if (trainer.current_epoch, batch_idx) != scenario.at or not armed():
            return
        if scenario.interrupt == "sigterm":
            os.kill(os.getpid(), signal.SIGTERM)
        elif scenario.interrupt == "ctrl-c":
            os.kill(os.getpid(), signal.SIGINT)
        elif scenario.interrupt == "exception":
            raise RuntimeError("the training fails")
        elif scenario.interrupt in ("step", "sigkill"):
            finish_saves(trainer)
            leave(scenario)

    def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
        scenario: Scenario = module._scenario
        if scenario.interrupt == "epoch" and trainer.current_epoch == scenario.at[0] + 1 and armed():
            finish_saves(trainer)
            leave(scenario)


def armed() -> bool:
    return os.environ.get("MVC_TEST_ROLE") == "interrupted"


def goes_on() -> bool:
    # Not an attribute of something, whose value would be found to be another one.
    return os.environ.get("MVC_TEST_ROLE") == "resumed"


def finish_saves(trainer: Any) -> None:
    for each in trainer.callbacks:
        if isinstance(each, VersionCheckpoint) and each._session is not None:
            each._session.wait()


def leave(scenario: Scenario) -> None:
    if scenario.ranks > 1:
        os._exit(9)
    os.kill(os.getpid(), signal.SIGKILL)


def train(scenario: Scenario, role: str, folder: str, *, stock: bool = False) -> Any:
    """Fit, in a process of its own.

    Args:
        scenario: What.
        role: ``straight``, ``interrupted`` or ``resumed``.
        folder: Where the store or the files are.
        stock: Whether ModelCheckpoint saves.

    Returns:
        The weights, and what was promised.
    """
    faulthandler.dump_traceback_later(100, exit=True)
    warnings.simplefilter("ignore")
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    os.environ["MVC_TEST_ROLE"] = role
    torch.set_num_threads(1)
    resumed = role == "resumed"
    pl.seed_everything(999 if resumed and scenario.ranks == 1 else 11, verbose=False)
    policy: dict[str, Any] = {"every_n_train_steps": scenario.every_steps, "save_top_k": -1}
    if scenario.interrupt == "exception" or (stock and scenario.interrupt in ("sigterm", "ctrl-c")):
        policy["save_on_exception"] = True
    if scenario.monitor is not None:
        policy.update(monitor=scenario.monitor, save_top_k=2)
    saver: Any
    if stock:
        saver = ModelCheckpoint(dirpath=folder, save_last=True, **policy)
    else:
        saver = VersionCheckpoint(folder, run="job", **policy)
    callbacks: list[Any] = [Interrupt(), saver]
    if scenario.average == "ema":
        from lightning.pytorch.callbacks import EMAWeightAveraging

        callbacks.append(EMAWeightAveraging(decay=0.9))
    if scenario.average == "swa":
        callbacks.append(StochasticWeightAveraging(0.01, swa_epoch_start=2))
    ranks = (scenario.resumed_ranks if resumed else None) or scenario.ranks
    trainer = pl.Trainer(
        max_epochs=EPOCHS,
        max_steps=scenario.max_steps,
        accelerator="cpu",
        devices=ranks,
        strategy="ddp_notebook" if ranks > 1 else "auto",
        callbacks=callbacks,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=1,
        precision=scenario.precision,
        accumulate_grad_batches=scenario.accumulate,
        val_check_interval=scenario.validation,
        reload_dataloaders_every_n_epochs=scenario.reload,
    )
    model = Model(scenario)
    data = Data(scenario) if scenario.datamodule else None
    trainer.fit(model, datamodule=data, ckpt_path="last" if resumed else None)
    told = promise(folder) if resumed and not stock else ""
    # The weights themselves: with averaging callbacks, fit puts the averages into the model at its end.
    return {name: value.numpy().copy() for name, value in model.state_dict().items()}, told


def promise(folder: str) -> str:
    record = VersionStore(folder).versions()[-1].details.run_record.get("resume", {})
    return record.get("guarantee", "nothing") + "".join(f"; {each}" for each in record.get("reasons", ()))


def run(scenario: Scenario, role: str, folder: Path, *, stock: bool = False) -> Any:
    """Run one role in a new process; return what `train` does, or None where it was interrupted.

    The process is forked, as importing everything anew takes longer than the training. Nothing has been run
    in this one, so there are no threads that matter, and each role sets a seed of its own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder.with_name(f"{folder.name}-{role}.pickle")
    child = os.fork()
    if child == 0:
        try:
            told = train(scenario, role, str(folder), stock=stock)
            if int(os.environ.get("LOCAL_RANK", "0")) == 0:
                file.write_bytes(pickle.dumps(told))
        except BaseException:
            if role != "interrupted":
                traceback.print_exc()
        finally:
            sys.stdout.flush()
            finish_and_exit()
    os.waitpid(child, 0)
    return pickle.loads(file.read_bytes()) if file.exists() else None


def finish_and_exit() -> None:
    """Exit as an interpreter does, but without going back into the program that was forked."""
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and not thread.daemon:
            thread.join()
    os._exit(0)


def same(first: Any, second: Any) -> bool:
    return first.keys() == second.keys() and all(
        first[name].tobytes() == second[name].tobytes() for name in first
    )


@dataclass(frozen=True)
class Outcome:
    same: bool
    promise: str
    stock_same: bool | None = None


def keeps_promise(scenario: Scenario, outcome: Outcome) -> bool:
    """Tell whether what was expected was promised, and an exact promise was kept."""
    if scenario.expected == "exact":
        return outcome.same and outcome.promise == "exact"
    return outcome.promise.startswith("approximate") and scenario.expected in outcome.promise


def play(scenario: Scenario, folder: Path, *, stock: bool = False) -> Outcome:
    """Train three ways; see whether the ends are the same bits."""
    straight = run(scenario, "straight", folder / "straight")
    assert straight is not None, "the straight training did not end"
    assert run(scenario, "interrupted", folder / "job") is None, "it was not interrupted"
    resumed = run(scenario, "resumed", folder / "job")
    assert resumed is not None, "the resumed training did not end"
    stock_same = None
    if stock:
        run(scenario, "interrupted", folder / "stock", stock=True)
        weights = run(scenario, "resumed", folder / "stock", stock=True)
        stock_same = weights is not None and same(straight[0], weights[0])
    return Outcome(same(straight[0], resumed[0]), resumed[1], stock_same)


STEPS: dict[str, Any] = {"every_steps": 3, "interrupt": "step", "at": (1, 5)}
SCENARIOS = [
    *(
        Scenario(
            f"{optimizer}, accumulation {accumulate}, workers {workers}",
            optimizer=optimizer,
            accumulate=accumulate,
            workers=workers,
        )
        for optimizer in ("adamw+cosine", "sgd+onecycle", "adam+plateau")
        for accumulate in (1, 2)
        for workers in (0, 2)
    ),
    Scenario("augmentation", augment="all"),
    Scenario("augmentation in workers", augment="all", workers=2),
    Scenario("augmentation by the data set's own generator", augment="own generator"),
    Scenario("loader with a generator of its own", loader="own generator"),
    Scenario("bfloat16 mixed precision", precision="bf16-mixed"),
    Scenario("datamodule", datamodule=True),
    Scenario("two optimizers, manual optimization", manual=True),
    Scenario("loaders made again each epoch", reload=1),
    Scenario(
        "loaders made again every two epochs, drawn split", reload=2, split=True, expected="the loaders"
    ),
    Scenario("average of weights (EMA)", average="ema"),
    Scenario("average of weights (SWA)", average="swa"),
    Scenario("by max_steps", max_steps=44, expected="with max_steps"),
    Scenario("by a monitored metric", monitor="val_loss"),
    Scenario("by step", augment="all", **STEPS),
    Scenario("by step, workers 2", augment="all", workers=2, **STEPS),
    Scenario("by step, first epoch", augment="all", workers=2, every_steps=3, interrupt="step", at=(0, 5)),
    Scenario("by step, own generators", augment="own generator", loader="own generator", **STEPS),
    Scenario("by step, on an epoch's last batch", every_steps=11, interrupt="sigkill", at=(1, 3)),
    Scenario(
        "by step, validation inside the epoch",
        validation=0.25,
        augment="all",
        every_steps=4,
        interrupt="sigkill",
        at=(1, 6),
    ),
    Scenario(
        "by step, validation after that step", validation=0.25, every_steps=2, interrupt="sigkill", at=(1, 2)
    ),
    Scenario("by step, accumulation 2", accumulate=2, **STEPS),
    Scenario("by step, max_steps", max_steps=44, **STEPS),
    Scenario(
        "by step, SWA", average="swa", **{**STEPS, "at": (2, 5)}, expected="StochasticWeightAveraging does"
    ),
    Scenario("by step, EMA", average="ema", **STEPS),
    Scenario("by step, two optimizers, manual optimization", manual=True, **STEPS),
    Scenario("by step, plateau of a validation metric", optimizer="adam+plateau", **STEPS),
    Scenario(
        "by step, plateau of a training mean",
        optimizer="adam+plateau of training",
        **STEPS,
        expected="mean of 'loss'",
    ),
    Scenario("SIGTERM", interrupt="sigterm", augment="all"),
    Scenario("SIGTERM, workers 2", interrupt="sigterm", augment="all", workers=2),
    Scenario("SIGTERM between accumulated batches", interrupt="sigterm", accumulate=3, at=(1, 4)),
    Scenario(
        "SIGTERM on an epoch's last batch",
        interrupt="sigterm",
        at=(1, 10),
        expected="in the middle of a validation",
    ),
    Scenario("SIGTERM, validation inside the epoch", interrupt="sigterm", validation=0.5, at=(1, 6)),
    Scenario("SIGTERM, plateau", interrupt="sigterm", optimizer="adam+plateau"),
    Scenario("Ctrl-C", interrupt="ctrl-c", augment="all"),
    Scenario("Ctrl-C, workers 2", interrupt="ctrl-c", augment="all", workers=2),
    Scenario("exception", interrupt="exception", augment="all"),
    Scenario("SIGKILL", interrupt="sigkill", augment="all", every_steps=2, at=(2, 7)),
    Scenario("SIGKILL, workers 2", interrupt="sigkill", augment="all", every_steps=2, workers=2, at=(2, 7)),
    Scenario("StatefulDataLoader, end of epoch", loader="stateful"),
    Scenario("StatefulDataLoader by step", loader="stateful", augment="all", **STEPS),
    Scenario(
        "StatefulDataLoader by step, workers 2",
        loader="stateful",
        workers=2,
        augment="all",
        **STEPS,
        expected="workers of a stateful",
    ),
    Scenario(
        "StatefulDataLoader on an epoch's last batch",
        loader="stateful",
        every_steps=11,
        interrupt="sigkill",
        at=(1, 3),
    ),
    Scenario("iterable data", loader="iterable", **STEPS, expected="iterable data"),
    Scenario(
        "other number of workers",
        augment="all",
        workers=2,
        resumed_workers=1,
        expected="num_workers was 2 and is 1",
    ),
    Scenario("persistent workers", augment="all", workers=2, persistent=True, expected="persistent workers"),
    Scenario("a split drawn without a generator", split=True, expected="data was Subset"),
    Scenario("another batch size", resumed_batch_size=2, expected="batch_size was 4 and is 2"),
    Scenario("state that no checkpoint holds", hidden=True, expected="changes calls"),
    *(
        Scenario(f"DDP, {kind}, workers {workers}", ranks=2, workers=workers, augment="all", **more)
        for kind, more in (("end of epoch", {}), ("by step", {**STEPS, "at": (1, 4)}))
        for workers in (0, 1)
    ),
    Scenario(
        "DDP, another number of ranks", ranks=2, resumed_ranks=1, expected="number of ranks was 2 and is 1"
    ),
]


# The table


def told(scenario: Scenario, outcome: Outcome) -> str:
    """Return one row of the table."""
    stock = {True: "the same", False: "other bits", None: "–"}[outcome.stock_same]
    mine = "the same" if outcome.same else "other bits"
    epoch, batch = scenario.at
    when = f"end of epoch {epoch}" if scenario.interrupt == "epoch" else f"epoch {epoch}, batch {batch}"
    loader = f"{scenario.loader}, {scenario.workers} workers" + (
        f", {scenario.augment}" if scenario.augment else ""
    )
    optimizer = "manual" if scenario.manual else scenario.optimizer
    promise = outcome.promise.replace("; ", ": ", 1)
    promise = promise if len(promise) <= 160 else f"{promise[:159]}…"
    cells = (
        scenario.name,
        loader,
        scenario.precision,
        optimizer,
        str(scenario.accumulate),
        f"{scenario.interrupt}, {when}",
        str(scenario.ranks),
        promise,
        mine,
        stock,
    )
    return f"| {' | '.join(cells)} |"


def main(target: str, chosen: list[str], *, stock: bool) -> int:
    """Play scenarios and write their rows into the table; return how many did not do as promised.

    Args:
        target: The table.
        chosen: Names, or shares such as ``2/3``, the second third of them; none means all.
        stock: Whether to play them with ModelCheckpoint too.
    """
    wrong = 0
    for scenario in share_of(SCENARIOS, chosen):
        with tempfile.TemporaryDirectory() as folder:
            try:
                outcome = play(scenario, Path(folder), stock=stock)
            except AssertionError as error:
                outcome = Outcome(False, f"failed: {error}")
        good = keeps_promise(scenario, outcome)
        wrong += not good
        row = told(scenario, outcome)
        sys.stdout.write(f"{'ok   ' if good else 'WRONG'} {row}\n")
        sys.stdout.flush()
        update(Path(target), "Lightning", [each.name for each in SCENARIOS], {scenario.name: row})
    return wrong


def share_of(scenarios: list[Scenario], chosen: list[str]) -> list[Scenario]:
    """Return those with the names, or in the shares, that were asked for."""
    names = {each for each in chosen if not re.fullmatch(r"\d+/\d+", each)}
    shares = [tuple(map(int, each.split("/"))) for each in chosen if each not in names]
    unknown = names - {each.name for each in scenarios}
    if unknown:
        raise SystemExit(f"no such scenario: {', '.join(sorted(unknown))}")
    return [
        each
        for index, each in enumerate(scenarios)
        if not chosen or each.name in names or any(index % of == part - 1 for part, of in shares)
    ]


if __name__ == "__main__":
    arguments = [each for each in sys.argv[1:] if each != "--quick"]
    sys.exit(min(main(arguments[0], arguments[1:], stock="--quick" not in sys.argv), 100))
