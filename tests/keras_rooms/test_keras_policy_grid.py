"""When a version is made: exactly when stock ModelCheckpoint writes a file, in the same fit."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path
from typing import Any

import keras
import pytest
from keras_models import BACKEND, Zigzag, data, small

from mvc_callbacks import VersionStore
from mvc_callbacks.keras import VersionCheckpoint

Moments = list[tuple[int, int | None]]

WATCHED: list[dict[str, Any]] = [
    {"monitor": "score", "mode": "min"},
    {"monitor": "score", "mode": "max"},
    {"monitor": "loss"},
    {"monitor": "val_mae", "mode": "auto"},
    {"monitor": "score", "mode": "min", "initial_value_threshold": 1.5},
    {"monitor": "score", "mode": "max", "initial_value_threshold": 3.5},
]
POLICIES: list[dict[str, Any]] = [
    *(
        {"save_freq": freq, "save_weights_only": only}
        for freq, only in product(("epoch", 1, 3, 7), (False, True))
    ),
    *({"save_best_only": True, **watched} for watched in WATCHED),
    {"save_best_only": True, "monitor": "missing", "mode": "min"},
    {"save_best_only": True, "monitor": "missing", "mode": "min", "save_freq": 2},
    *(
        {"save_best_only": True, "save_freq": freq, **watched}
        for freq, watched in product((1, 4), (*WATCHED[:3], *WATCHED[4:]))
    ),
]
NAMES = ["-".join(f"{name}={value}" for name, value in policy.items()) for policy in POLICIES]


class MendedStock(keras.callbacks.ModelCheckpoint):
    """Stock without its error: a batch frequency with save_best_only compares before it knows how."""

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self.monitor_op is None:
            self._set_monitor_op()
        super().on_train_batch_end(batch, logs)


def written(folder: Path) -> Moments:
    found = []
    for path in folder.glob("*.weights.h5"):
        [(epoch, batch)] = re.findall(r"^(\d+)(?:-(\d+))?\.weights\.h5$", path.name)
        found.append((int(epoch) - 1, int(batch) - 1 if batch else None))
    return sorted(found)


def versions(store: VersionStore, run: str | None = None) -> Moments:
    made = store.versions(run) if store.exists() else []
    return sorted((each.epoch or 0, each.details.record["keras"].get("batch")) for each in made)


def pair(policy: dict[str, Any], folder: Path) -> tuple[Any, VersionCheckpoint]:
    (folder / "stock").mkdir(parents=True)
    batch = "" if policy.get("save_freq", "epoch") == "epoch" else "-{batch}"
    path = folder / "stock" / f"{{epoch}}{batch}.weights.h5"
    stock = MendedStock(path, **{**policy, "save_weights_only": True})
    return stock, VersionCheckpoint(folder / "versions", **policy)


STEPS = [1] if BACKEND == "torch" else [1, 2, 3]  # torch takes one step at a time


@pytest.fixture(scope="module", params=STEPS, ids=lambda steps: f"steps_per_execution={steps}")
def fitted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One fit with every policy twice: stock's and ours."""
    folder = tmp_path_factory.mktemp("grid")
    pairs = [pair(policy, folder / str(index)) for index, policy in enumerate(POLICIES)]
    x, y = data(40)
    small(steps_per_execution=request.param).fit(
        x,
        y,
        batch_size=8,
        epochs=5,
        validation_split=0.2,
        verbose=0,
        callbacks=[Zigzag(), *(each for both in pairs for each in both)],
    )
    return folder


@pytest.mark.filterwarnings("ignore:.*Can save best model only with.*")
@pytest.mark.parametrize("index", range(len(POLICIES)), ids=NAMES)
def test_the_same_epochs_and_batches_as_stock(index: int, fitted: Path) -> None:
    moments = versions(VersionStore(fitted / str(index) / "versions"))
    assert moments == written(fitted / str(index) / "stock")
    assert len(set(moments)) == len(moments)


def test_the_grid_is_large_enough() -> None:
    assert len(POLICIES) >= 20


SEVERAL = [POLICIES[0], POLICIES[4], POLICIES[8], POLICIES[9], {"save_freq": 7}, POLICIES[-2]]


@pytest.mark.parametrize("policy", SEVERAL, ids=lambda policy: str(policy))
def test_in_several_fits_each_is_a_run_of_a_fresh_policy(policy: dict[str, Any], tmp_path: Path) -> None:
    x, y = data(40)
    model = small()
    ours = VersionCheckpoint(tmp_path / "versions", run="fits", **policy)
    for number in (1, 2, 3):
        stock, _ = pair(policy, tmp_path / str(number))
        model.fit(x, y, batch_size=8, epochs=2, verbose=0, callbacks=[Zigzag(), stock, ours])
        assert ours.run_name == ("fits" if number == 1 else f"fits-{number}")
        made = versions(VersionStore(tmp_path / "versions"), ours.run_name)
        assert made == written(tmp_path / str(number) / "stock")


def test_the_same_when_fit_begins_at_a_later_epoch_and_ends_inside_of_one(tmp_path: Path) -> None:
    x, y = data(40)
    for index, policy in enumerate(({"save_freq": 3}, {"save_freq": "epoch"})):
        stock, ours = pair(policy, tmp_path / str(index))
        stop = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: None)
        small().fit(
            x,
            y,
            batch_size=8,
            initial_epoch=2,
            epochs=5,
            steps_per_epoch=4,
            verbose=0,
            callbacks=[stop, stock, ours],
        )
        assert versions(VersionStore(tmp_path / str(index) / "versions")) == written(
            tmp_path / str(index) / "stock"
        )


def test_best_and_a_batch_frequency_work_where_stock_raises(tmp_path: Path) -> None:
    x, y = data()
    policy: dict[str, Any] = {"monitor": "loss", "save_best_only": True, "save_freq": 1}
    stock = keras.callbacks.ModelCheckpoint(
        tmp_path / "{epoch}-{batch}.weights.h5", save_weights_only=True, **policy
    )
    with pytest.raises(TypeError):
        small().fit(x, y, batch_size=8, epochs=1, verbose=0, callbacks=[stock])
    ours = VersionCheckpoint(tmp_path / "versions", **policy)
    small().fit(x, y, batch_size=8, epochs=1, verbose=0, callbacks=[ours])
    losses = [each.metrics["loss"] for each in VersionStore(tmp_path / "versions").versions()]
    assert losses == sorted(losses, reverse=True)


def test_an_unknown_metric_in_auto_mode_is_refused_as_stock_does(tmp_path: Path) -> None:
    x, y = data()
    for callback in (
        keras.callbacks.ModelCheckpoint(tmp_path / "a.weights.h5", monitor="no", save_weights_only=True),
        VersionCheckpoint(tmp_path / "versions", monitor="no"),
    ):
        with pytest.raises(ValueError, match="monitor=no"):
            small().fit(x, y, verbose=0, callbacks=[callback])


def test_verbose_says_what_stock_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x, y = data()
    small().fit(x, y, epochs=2, verbose=0, callbacks=[VersionCheckpoint(tmp_path / "versions", verbose=1)])
    assert capsys.readouterr().out.count("saving model to a version in") == 2
