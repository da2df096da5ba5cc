"""Keras trainings that are interrupted and resumed in a new process; rows of the table in docs/resume.md.

``keras_resume_scenarios.py FILE [NAME ...]`` adds the rows of the backend that KERAS_BACKEND names.
"""

from __future__ import annotations

import faulthandler
import os
import pickle
import random
import signal
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import contextlib

import keras
import numpy as np

with contextlib.suppress(ImportError):  # Keras' seeds ask for it, and then each process would import it anew
    import tensorflow as tf

from mvc_callbacks import VersionStore, restore_version
from mvc_callbacks.keras import VersionCheckpoint

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from resume_table import update

EPOCHS = 4
SAMPLES = 44
BATCH = 4
BATCHES = 11
BACKEND = keras.backend.backend()
TENSORFLOW = BACKEND == "tensorflow"


class Now:
    """Numbers in the environment, where nobody looks: what a callback counts otherwise is told."""

    def get(self, name: str, default: Any = 0) -> Any:
        value = os.environ.get(f"MVC_TEST_NOW_{name}")
        return int(value) if value is not None else default

    def __getitem__(self, name: str) -> int:
        return int(self.get(name))

    def __setitem__(self, name: str, value: int) -> None:
        os.environ[f"MVC_TEST_NOW_{name}"] = str(value)

    def __delitem__(self, name: str) -> None:
        del os.environ[f"MVC_TEST_NOW_{name}"]


NOW = Now()


@dataclass(frozen=True)
class Scenario:
    """One training, and how it is interrupted.

    Attributes:
        name: What is told in the table.
        expected: ``exact``, or a part of the reason that is told.
        interrupt: ``epoch``, ``step`` or ``sigkill`` (without waiting for what is saved); ``sigterm`` or
            ``ctrl-c``, which come in a step, and with ``in validation`` in the one that follows.
        at: The epoch and the batch, counted from 0, after which it happens.
        by_hand: Restored with restore_version before fit, and resumed without ``resume=``.
    """

    name: str
    expected: str = "exact"
    interrupt: str = "epoch"
    at: tuple[int, int] = (1, 10)
    loader: str = "arrays"
    shuffle: bool | str = True
    seeded: bool = True
    same_seed: bool = False
    model: str = "plain"
    optimizer: str = "adam"
    accumulate: int = 1
    precision: str = "float32"
    save_freq: int | str = "epoch"
    watch: str = ""
    behind: str = ""
    steps: int | None = None
    per_execution: int = 1
    resumed_batch: int | None = None
    validation: bool = True
    by_hand: bool = False
    run_eagerly: bool = False


# Models


class Counting(keras.layers.Layer):
    """Keeps a number that nobody saves."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def call(self, x: Any) -> Any:
        self.calls += 1
        return x * (1 + 0.01 * self.calls)


class Noise(keras.layers.Layer):
    """Draws from the generator behind keras.random, which belongs to no layer."""

    def call(self, x: Any, training: bool = False) -> Any:
        return x + 0.1 * keras.random.normal(keras.ops.shape(x)) if training else x


class OwnNoise(keras.layers.Layer):
    """Draws from an operation of TensorFlow, whose state nobody can reach."""

    def call(self, x: Any, training: bool = False) -> Any:
        return x + 0.1 * tf.random.normal(tf.shape(x)) if training else x


class NumpyNoise(keras.layers.Layer):
    """Draws from a generator of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = np.random.default_rng(None if NOW["resumed"] else 3)

    def call(self, x: Any, training: bool = False) -> Any:
        return x + float(self.generator.normal()) if training else x


def model_of(scenario: Scenario) -> Any:
    layers = [keras.Input((6,)), keras.layers.Dense(12, "relu"), keras.layers.BatchNormalization()]
    extra = {
        "plain": lambda: keras.layers.Dropout(0.3),
        "seeded": lambda: keras.layers.Dropout(0.3, seed=5),
        "counting": Counting,
        "keras.random": Noise,
        "tf.random": OwnNoise,
        "numpy": NumpyNoise,
        "lstm": lambda: keras.Sequential(
            [keras.layers.Reshape((3, 4)), keras.layers.LSTM(6, dropout=0.2, recurrent_dropout=0.2)]
        ),
    }
    model = keras.Sequential([*layers, extra[scenario.model](), keras.layers.Dense(1)])
    options: dict[str, Any] = {}
    if scenario.accumulate > 1:
        options["gradient_accumulation_steps"] = scenario.accumulate
    if scenario.optimizer == "sgd+cosine":
        schedule = keras.optimizers.schedules.CosineDecay(0.05, EPOCHS * BATCHES)
        optimizer: Any = keras.optimizers.SGD(schedule, momentum=0.9, **options)
    elif scenario.optimizer == "adamw+ema":
        optimizer = keras.optimizers.AdamW(0.02, use_ema=True, ema_momentum=0.9, **options)
    else:
        optimizer = keras.optimizers.Adam(0.02, **options)
    model.compile(
        optimizer,
        "mse",
        metrics=["mae"],
        steps_per_execution=scenario.per_execution,
        run_eagerly=scenario.run_eagerly,
    )
    return model


# Data


def arrays() -> tuple[Any, Any]:
    x = np.random.default_rng(7).normal(size=(SAMPLES, 6)).astype("float32")
    return x, np.sin(x.sum(1, keepdims=True))


class Batches(keras.utils.PyDataset):
    """Draws for each batch, if it is told to; or shuffles in place after each epoch."""

    def __init__(self, kind: str, **options: Any) -> None:
        super().__init__(**options)
        self.x, self.y = arrays()
        self.kind = kind
        self.order = np.arange(SAMPLES)

    def __len__(self) -> int:
        return BATCHES

    def __getitem__(self, index: int) -> Any:
        chosen = self.order[index * BATCH : index * BATCH + BATCH]
        x = self.x[chosen]
        if self.kind == "drawn":
            x = x + 0.1 * np.random.normal(size=x.shape) + 0.1 * random.random()
        return x.astype("float32"), self.y[chosen]

    def on_epoch_end(self) -> None:
        if self.kind == "shuffled in place":
            np.random.shuffle(self.order)


def endless() -> Iterator[Any]:
    x, y = arrays()
    while True:
        chosen = np.random.permutation(SAMPLES)[:BATCH]
        yield x[chosen], y[chosen]


def loader_of(scenario: Scenario, resumed: bool) -> Any:
    x, y = arrays()
    if scenario.loader.startswith("PyDataset"):
        options = {"workers": 2} if "workers" in scenario.loader else {}
        kind = next((each for each in ("drawn", "shuffled in place") if each in scenario.loader), "")
        return Batches(kind, **options)
    if scenario.loader.startswith("torch"):
        import torch
        from torch.utils.data import DataLoader, TensorDataset

        workers = 2 if "workers" in scenario.loader else 0
        generator = None
        if "generator" in scenario.loader:
            generator = torch.Generator().manual_seed(random.randrange(1 << 30) if resumed else 5)
        data = TensorDataset(torch.tensor(x), torch.tensor(y))
        return DataLoader(data, batch_size=BATCH, shuffle=True, num_workers=workers, generator=generator)
    if scenario.loader.startswith("tf.data"):
        data = tf.data.Dataset.from_tensor_slices((x, y))
        if "shuffle" in scenario.loader:
            again = "each epoch" in scenario.loader
            seed = 5 if "seed" in scenario.loader else None
            data = data.shuffle(SAMPLES, seed=seed, reshuffle_each_iteration=again)
        if "random map" in scenario.loader:
            data = data.map(lambda a, b: (a + 0.1 * tf.random.normal((6,)), b))
        return data.batch(BATCH).prefetch(2)
    return endless()


# Training


class Interrupt(keras.callbacks.Callback):
    """Ends the process, or asks it to end, where the scenario says; in the first process only."""

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        how, steps = os.environ["MVC_TEST_INTERRUPT"], int(os.environ["MVC_TEST_STEPS"])
        epoch, number = map(int, os.environ["MVC_TEST_AT"].split(","))
        last = epoch * BATCHES + number
        if how in SIGNALS and NOW["batches"] <= last < NOW["batches"] + steps:
            os.kill(os.getpid(), SIGNALS[how])
        elif how and how not in SIGNALS and NOW["batches"] > last and "validation" not in how:
            os.kill(os.getpid(), signal.SIGKILL)
        NOW["batches"] += steps

    def on_test_batch_begin(self, batch: int, logs: Any = None) -> None:
        how = os.environ["MVC_TEST_INTERRUPT"]
        epoch = int(os.environ["MVC_TEST_AT"].split(",")[0])
        if how.endswith(" in validation") and batch == 1 and NOW["batches"] >= (epoch + 1) * BATCHES:
            os.kill(os.getpid(), SIGNALS[how.removesuffix(" in validation")])


SIGNALS = {"sigterm": signal.SIGTERM, "ctrl-c": signal.SIGINT}


class Settle(keras.callbacks.Callback):
    """Waits until what was saved is on disk, so that the interruption is where the table says."""

    def __init__(self, saver: Any) -> None:
        super().__init__()
        self._saver = saver

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if self._saver._session is not None:
            self._saver._session.settle(wait=True)


class Draws(keras.callbacks.Callback):
    """Samples at an epoch's end, as the examples of generative models do."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        np.random.rand()
        random.random()
        keras.random.normal((1,))


def watchers(scenario: Scenario) -> list[Any]:
    kinds = {
        "plateau": lambda: keras.callbacks.ReduceLROnPlateau(
            "val_loss", factor=0.5, patience=1, min_delta=0.05
        ),
        "plateau of the loss": lambda: keras.callbacks.ReduceLROnPlateau(
            "loss", factor=0.5, patience=0, min_delta=0.5
        ),
        "early": lambda: keras.callbacks.EarlyStopping("val_loss", patience=2, min_delta=0.5),
        "early best": lambda: keras.callbacks.EarlyStopping(
            "val_loss", patience=2, min_delta=0.5, restore_best_weights=True
        ),
        "schedule": lambda: keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.7),
        "swap": lambda: keras.callbacks.SwapEMAWeights(swap_on_epoch=True),
        "draws": Draws,
    }
    return [kinds[each]() for each in scenario.watch.split("+") if each]


def train(scenario: Scenario, role: str, folder: str, *, stock: bool = False) -> Any:
    """Fit, in a process of its own.

    Args:
        scenario: What.
        role: ``straight``, ``interrupted`` or ``resumed``.
        folder: Where the store or the files are.
        stock: Whether BackupAndRestore, Keras' own way to resume, saves.

    Returns:
        The weights, and what was promised.
    """
    faulthandler.dump_traceback_later(240, exit=True)
    warnings.simplefilter("ignore")
    resumed = role == "resumed"
    NOW["resumed"] = int(resumed)
    os.environ["MVC_TEST_INTERRUPT"] = scenario.interrupt if role == "interrupted" else ""
    os.environ["MVC_TEST_AT"] = f"{scenario.at[0]},{scenario.at[1]}"
    os.environ["MVC_TEST_STEPS"] = str(scenario.per_execution)
    seed = 999 if resumed and not scenario.same_seed else 11
    if scenario.seeded:
        keras.utils.set_random_seed(seed)
    else:  # two trainings that begin with the same weights, all the same
        random.seed(seed)
        np.random.seed(seed)
    keras.config.set_dtype_policy(scenario.precision)
    if BACKEND == "torch":
        import torch

        torch.set_num_threads(1)
    options = {"resume": "last"} if resumed and not scenario.by_hand else {}
    saver: Any
    if stock:
        saver = keras.callbacks.BackupAndRestore(
            folder, save_freq=scenario.save_freq, delete_checkpoint=False
        )
    else:
        saver = VersionCheckpoint(folder, run="job", save_freq=scenario.save_freq, monitor="loss", **options)
    before = [] if stock or scenario.interrupt == "sigkill" else [Settle(saver)]
    callbacks = [*before, Interrupt(), *watchers(scenario), saver]
    if scenario.behind:
        callbacks += watchers(replace(scenario, watch=scenario.behind))
    model = model_of(scenario)
    first = 0
    if resumed and scenario.by_hand:
        version = VersionStore(folder).get("latest")
        restore_version(version, model, store=folder, training_state=True)
        first = (version.epoch or 0) + 1
    x, y = arrays()
    fed: dict[str, Any] = {"x": x, "y": y, "batch_size": BATCH, "shuffle": scenario.shuffle}
    if scenario.loader != "arrays":
        fed = {"x": loader_of(scenario, resumed)}
        if scenario.loader.startswith("PyDataset"):
            fed["shuffle"] = scenario.shuffle
    elif resumed and scenario.resumed_batch is not None:
        fed["batch_size"] = scenario.resumed_batch
    model.fit(
        **fed,
        epochs=EPOCHS,
        initial_epoch=first,
        steps_per_epoch=scenario.steps,
        validation_data=(x[:8], y[:8]) if scenario.validation else None,
        validation_batch_size=BATCH,
        verbose=0,
        callbacks=callbacks,
    )
    told = promise(folder) if resumed and not stock else ""
    return {str(i): keras.ops.convert_to_numpy(each).copy() for i, each in enumerate(model.variables)}, told


def promise(folder: str) -> str:
    record = VersionStore(folder).versions()[-1].details.run_record.get("resume", {})
    return record.get("guarantee", "nothing") + "".join(f"; {each}" for each in record.get("reasons", ()))


def run(scenario: Scenario, role: str, folder: Path, *, stock: bool = False) -> Any:
    """Run one role in a process that is forked: nothing has been run in this one, so no thread matters."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder.with_name(f"{folder.name}-{role}.pickle")
    child = os.fork()
    if child == 0:
        try:
            file.write_bytes(pickle.dumps(train(scenario, role, str(folder), stock=stock)))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            for thread in threading.enumerate():
                if thread is not threading.main_thread() and not thread.daemon:
                    thread.join()
            os._exit(0)
    os.waitpid(child, 0)
    return pickle.loads(file.read_bytes()) if file.exists() else None


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
    if scenario.by_hand:
        return outcome.same
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
    if stock and not scenario.by_hand:
        run(scenario, "interrupted", folder / "stock", stock=True)
        weights = run(scenario, "resumed", folder / "stock", stock=True)
        stock_same = weights is not None and same(straight[0], weights[0])
    return Outcome(same(straight[0], resumed[0]), resumed[1], stock_same)


STEPS: dict[str, Any] = {"save_freq": 3, "interrupt": "step", "at": (1, 5)}
AHEAD = {"expected": "ahead of training"} if TENSORFLOW else {}
SCENARIOS = [
    *(
        Scenario(f"{optimizer}, accumulation {accumulate}", optimizer=optimizer, accumulate=accumulate)
        for optimizer in ("adam", "sgd+cosine", "adamw+ema")
        for accumulate in (1, 2)
    ),
    Scenario("shuffle=False", shuffle=False),
    Scenario("shuffled inside of batches", shuffle="batch"),
    Scenario("bfloat16 mixed precision", precision="mixed_bfloat16"),
    Scenario("LSTM with dropout", model="lstm"),
    Scenario("float16 with a scaled loss", precision="mixed_float16"),
    Scenario("seeded layers", model="seeded"),
    Scenario("plateau", watch="plateau"),
    Scenario("early stopping", watch="early"),
    Scenario("early stopping, best weights", watch="early best", expected="best weights"),
    Scenario("schedule by epochs", watch="schedule"),
    Scenario("swapped averages", optimizer="adamw+ema", watch="swap"),
    Scenario("without validation", validation=False),
    Scenario("a callback that draws, before", watch="draws"),
    Scenario("a callback that draws, behind", behind="draws", expected="Draws acts after"),
    Scenario("plateau behind", behind="plateau", expected="ReduceLROnPlateau acts after"),
    Scenario("state that no version holds", model="counting", run_eagerly=True, expected="changes calls"),
    Scenario("a layer's own generator", model="numpy", run_eagerly=True),
    Scenario("steps_per_epoch", steps=BATCHES, expected="steps_per_epoch"),
    Scenario("another batch size", resumed_batch=2, expected="batch_size was 4 and is 2"),
    Scenario("PyDataset", loader="PyDataset", **AHEAD),
    Scenario("PyDataset, in order", loader="PyDataset", shuffle=False),
    Scenario("PyDataset that draws", loader="PyDataset, drawn", shuffle=False, **AHEAD),
    Scenario(
        "PyDataset that shuffles itself",
        loader="PyDataset, shuffled in place",
        shuffle=False,
        expected="order",
    ),
    Scenario("PyDataset, workers 2", loader="PyDataset, workers", expected="workers of a PyDataset"),
    Scenario("generator", loader="generator", steps=BATCHES, expected="a generator"),
    Scenario("torch DataLoader", loader="torch", **AHEAD),
    Scenario("torch DataLoader with a generator", loader="torch, generator", **AHEAD),
    Scenario("by step", **STEPS),
    Scenario("by step, first epoch", **{**STEPS, "at": (0, 5)}),
    Scenario("by step, on an epoch's last batch", save_freq=11, interrupt="step", at=(1, 10)),
    Scenario(
        "by step, on an epoch's last batch, plateau of the loss",
        save_freq=11,
        interrupt="step",
        at=(1, 10),
        watch="plateau of the loss",
    ),
    Scenario("by step, shuffle=False", shuffle=False, **STEPS),
    Scenario("by step, accumulation 2", accumulate=2, **STEPS),
    Scenario("by step, schedule by epochs", watch="schedule", **STEPS),
    Scenario("by step, plateau", watch="plateau", **STEPS),
    Scenario("by step, PyDataset that draws", loader="PyDataset, drawn", **STEPS, **AHEAD),
    Scenario("by step, torch DataLoader", loader="torch", **STEPS, **AHEAD),
    Scenario("by step, generator", loader="generator", steps=BATCHES, **STEPS, expected="begins again"),
    Scenario("SIGKILL", save_freq=2, interrupt="sigkill", at=(2, 7)),
    Scenario("SIGTERM", interrupt="sigterm", at=(1, 4)),
    Scenario("SIGTERM, first epoch", interrupt="sigterm", at=(0, 4)),
    Scenario("SIGTERM on an epoch's last batch", interrupt="sigterm", at=(1, 10)),
    Scenario("SIGTERM, by step, plateau", save_freq=2, interrupt="sigterm", at=(1, 4), watch="plateau"),
    Scenario("SIGTERM in validation", interrupt="sigterm in validation", expected="middle of a validation"),
    Scenario("Ctrl-C", interrupt="ctrl-c", at=(1, 4)),
    Scenario("Ctrl-C, PyDataset, in order", loader="PyDataset", shuffle=False, interrupt="ctrl-c", at=(1, 4)),
]
if not TENSORFLOW:  # whose threads do not go with torch's workers, which are forked: they hang
    SCENARIOS += [
        Scenario("torch DataLoader, workers 2", loader="torch, workers"),
        Scenario("by step, torch DataLoader, workers 2", loader="torch, workers", **STEPS),
    ]
if BACKEND != "jax":
    SCENARIOS += [Scenario("keras.random without a seed", model="keras.random")]
if BACKEND != "torch":
    SCENARIOS += [
        Scenario("three steps at once", per_execution=3),
        Scenario("by step, three steps at once", per_execution=3, **STEPS),
        Scenario("SIGTERM, three steps at once", per_execution=3, interrupt="sigterm", at=(1, 4)),
    ]
if TENSORFLOW:
    SCENARIOS += [
        Scenario("without a seed", seeded=False, expected="TensorFlow had no seed"),
        Scenario("without a seed, shuffle=False", seeded=False, shuffle=False),
        Scenario("restored before fit", by_hand=True),
        Scenario("random operations of TensorFlow", model="tf.random", expected="RandomStandardNormal"),
        Scenario("tf.data", loader="tf.data"),
        Scenario("tf.data by step", loader="tf.data", **STEPS),
        Scenario("tf.data, shuffled once", loader="tf.data, shuffle, seed", same_seed=True),
        Scenario("tf.data, shuffled once, by step", loader="tf.data, shuffle, seed", same_seed=True, **STEPS),
        Scenario(
            "tf.data, shuffled once, other seed", loader="tf.data, shuffle, seed", expected="the pipeline"
        ),
        Scenario(
            "tf.data, shuffled each epoch",
            loader="tf.data, shuffle each epoch, seed",
            expected="another order",
        ),
        Scenario("tf.data with a random map", loader="tf.data, random map", expected="draws random numbers"),
    ]


# The table


def told(scenario: Scenario, outcome: Outcome) -> str:
    """Return one row of the table that tests/lightning/resume_scenarios.py begins."""
    stock = {True: "the same", False: "other bits", None: "–"}[outcome.stock_same]
    mine = "the same" if outcome.same else "other bits"
    epoch, batch = scenario.at
    when = f"end of epoch {epoch}" if scenario.interrupt == "epoch" else f"epoch {epoch}, batch {batch}"
    how = {True: ", shuffled", False: "", "batch": ", shuffled inside of batches"}[scenario.shuffle]
    loader = scenario.loader + (how if scenario.loader == "arrays" else "")
    text = outcome.promise.replace("; ", ": ", 1)
    cells = (
        f"Keras on {BACKEND}: {scenario.name}",
        loader,
        scenario.precision,
        f"{scenario.optimizer}{' and ' + scenario.watch if scenario.watch else ''}",
        str(scenario.accumulate),
        f"{scenario.interrupt}, {when}",
        "1",
        text if len(text) <= 160 else f"{text[:159]}…",
        mine,
        stock,
    )
    return f"| {' | '.join(cells)} |"


def main(target: str, chosen: list[str], *, stock: bool) -> int:
    """Play scenarios and add their rows to the table; return how many did not do as promised."""
    wrong = 0
    for scenario in SCENARIOS:
        if chosen and scenario.name not in chosen:
            continue
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
        order = [f"Keras on {BACKEND}: {each.name}" for each in SCENARIOS]
        update(Path(target), f"Keras on {BACKEND}", order, {f"Keras on {BACKEND}: {scenario.name}": row})
    return wrong


if __name__ == "__main__":
    given = [each for each in sys.argv[1:] if each != "--quick"]
    sys.exit(min(main(given[0], given[1:], stock="--quick" not in sys.argv), 100))
