"""What is saved, what is kept and what is best: the same as stock ModelCheckpoint in the same Trainer."""

from __future__ import annotations

from datetime import timedelta
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from small_models import Small, trainer_of

from mvc_callbacks import Version, VersionStore
from mvc_callbacks.lightning import VersionCheckpoint

Kept = set[tuple[int, int]]

TRIGGERS: list[dict[str, Any]] = [{}, {"every_n_train_steps": 3}, {"every_n_epochs": 2}]
UNMONITORED = [
    {"save_top_k": k, "save_last": last, **trigger}
    for k, last, trigger in product((-1, 0, 1), (None, True, "link"), TRIGGERS)
]
MONITORED = [
    {"monitor": "score", "mode": mode, "save_top_k": k, "save_last": last, **trigger}
    for mode, k, last, trigger in product(("min", "max"), (-1, 1, 2), (None, True, "link"), TRIGGERS)
]
OTHERS: list[dict[str, Any]] = [
    {"monitor": "loss", "save_top_k": 2, "every_n_train_steps": 1, "save_last": True},
    {"monitor": "loss", "save_top_k": 3, "every_n_train_steps": 2},
    {"monitor": "loss", "mode": "max", "save_top_k": 2, "every_n_train_steps": 1, "save_last": True},
    {"monitor": "score", "save_top_k": 2, "train_time_interval": timedelta(0), "save_last": True},
    {"monitor": None, "save_top_k": 1, "train_time_interval": timedelta(0)},
    {"monitor": None, "save_top_k": -1, "train_time_interval": timedelta(0), "save_last": True},
    {"monitor": "score", "save_top_k": 2, "save_on_train_epoch_end": True},
    {"monitor": "score", "save_top_k": 2, "save_on_train_epoch_end": False},
    {"monitor": "score", "save_top_k": 2, "save_weights_only": True, "save_last": True},
    {"monitor": "score", "save_top_k": 2, "every_n_epochs": 0, "save_last": True},
    {"monitor": "score", "save_top_k": 0, "save_last": True},
]
POLICIES = [*UNMONITORED, *MONITORED, *OTHERS]


def name_of(policy: dict[str, Any]) -> str:
    return "-".join(f"{name}={value}" for name, value in policy.items())


def stock_kept(folder: Path) -> Kept:
    kept = set()
    for path in folder.glob("*.ckpt"):
        if path.exists():  # with save_last="link" stock leaves dangling links
            checkpoint = torch.load(path, weights_only=False)
            kept.add((checkpoint["epoch"], checkpoint["global_step"]))
    return kept


def ours_kept(store: VersionStore) -> Kept:
    versions = store.versions() if store.exists() else []
    return {_at(each) for each in versions if each.has_weights}


def _at(version: Version) -> tuple[int, int]:
    assert version.epoch is not None
    assert version.step is not None
    return version.epoch, version.step


def assert_same_best(ours: VersionCheckpoint, stock: ModelCheckpoint) -> None:
    if stock.best_model_score is None:
        assert ours.best_model_score is None
    else:
        assert float(ours.best_model_score) == float(stock.best_model_score)
    if not stock.best_model_path:
        assert not ours.best_model_path
        assert ours.best_version is None
        return
    best = torch.load(stock.best_model_path, weights_only=False)
    version = ours.best_version
    assert version is not None
    assert _at(version) == (best["epoch"], best["global_step"])
    assert sorted(map(float, ours.best_k_models.values())) == sorted(map(float, stock.best_k_models.values()))


@pytest.mark.parametrize("policy", POLICIES, ids=name_of)
def test_the_same_versions_are_kept_as_files_by_stock(
    policy: dict[str, Any], tmp_path: Path, store: VersionStore
) -> None:
    stock = ModelCheckpoint(dirpath=tmp_path / "stock", **policy)
    ours = VersionCheckpoint(store.path, background=False, **policy)
    trainer_of(stock, ours).fit(Small())
    assert ours_kept(store) == stock_kept(tmp_path / "stock")
    assert_same_best(ours, stock)


@pytest.mark.parametrize("trainer", [{"val_check_interval": 0.5}, {"check_val_every_n_epoch": 2}], ids=str)
@pytest.mark.parametrize("policy", [*MONITORED[9:15], *OTHERS[:2]], ids=name_of)
def test_the_same_with_validation_at_other_times(
    policy: dict[str, Any], trainer: dict[str, Any], tmp_path: Path, store: VersionStore
) -> None:
    stock = ModelCheckpoint(dirpath=tmp_path / "stock", **policy)
    ours = VersionCheckpoint(store.path, **policy)
    trainer_of(stock, ours, max_epochs=4, **trainer).fit(Small())
    assert ours_kept(store) == stock_kept(tmp_path / "stock")
    assert_same_best(ours, stock)


# Every second one, but for those that save nothing.
AGAIN = [each for each in POLICIES[::2] if each["save_top_k"] != 0 or each.get("save_last") is not None]
# Stock cannot resume without optimizers. With a time interval and a score of the validation it resumes from
# an epoch's last batch and leaves that validation out, which we do not, so that the scores are others.
RESUMED = [
    each
    for each in AGAIN
    if not each.get("save_weights_only") and not (each.get("monitor") and "train_time_interval" in each)
]


def test_the_grids_are_as_large_as_promised() -> None:
    assert min(map(len, (POLICIES, AGAIN, RESUMED))) >= 30


@pytest.mark.parametrize("policy", AGAIN, ids=name_of)
def test_a_second_fit_starts_with_a_fresh_policy(
    policy: dict[str, Any], tmp_path: Path, store: VersionStore
) -> None:
    ours = VersionCheckpoint(store.path, run="twice", **policy)
    trainer_of(ours).fit(Small())
    first = ours_kept(store)
    stock = ModelCheckpoint(dirpath=tmp_path / "stock", **policy)
    trainer_of(stock, ours).fit(Small())
    assert ours.run_name == "twice-2"
    assert {_at(each) for each in store.versions("twice") if each.has_weights} == first
    assert {_at(each) for each in store.versions("twice-2") if each.has_weights} == stock_kept(
        tmp_path / "stock"
    )
    assert_same_best(ours, stock)


@pytest.mark.parametrize("policy", RESUMED, ids=name_of)
def test_a_resumed_run_goes_on_with_the_policy(
    policy: dict[str, Any], tmp_path: Path, store: VersionStore
) -> None:
    torch.manual_seed(1)
    stock = ModelCheckpoint(dirpath=tmp_path / "stock", **policy)
    trainer_of(stock, max_epochs=2).fit(Small())
    # What a stopped process has: the newest file.
    newest = max(
        (tmp_path / "stock").glob("*.ckpt"),
        key=lambda path: torch.load(path, weights_only=False)["global_step"],
    )
    resumed_at = (
        torch.load(newest, weights_only=False)["epoch"],
        torch.load(newest, weights_only=False)["global_step"],
    )
    stock = ModelCheckpoint(dirpath=tmp_path / "stock", **policy)
    trainer_of(stock, max_epochs=5).fit(Small(), ckpt_path=newest)

    torch.manual_seed(1)
    ours = VersionCheckpoint(store.path, run="long", **policy)
    trainer_of(ours, max_epochs=2).fit(Small())
    last = ours.last_version
    assert last is not None
    assert _at(last) == resumed_at
    ours = VersionCheckpoint(store.path, run="long", **policy)
    trainer_of(ours, max_epochs=5).fit(Small(), ckpt_path="last")

    # Stock may overwrite the file that it went on from. We never remove that version.
    assert stock_kept(tmp_path / "stock") <= ours_kept(store) <= stock_kept(tmp_path / "stock") | {resumed_at}
    assert_same_best(ours, stock)
    if ours.run_name is None:  # nothing was better than what there was
        return
    second = store.versions("long-2")
    assert second[0].parents[0].id == last.id
    assert second[0].parents[0].how == "resume"
    assert store.runs()[1].resumes == last.id


def test_versions_go_in_the_order_in_which_stock_removes_files(tmp_path: Path, store: VersionStore) -> None:
    policy: dict[str, Any] = {"monitor": "score", "save_top_k": 2, "save_last": True}
    removed: list[int] = []

    class Watched(ModelCheckpoint):
        def _remove_checkpoint(self, trainer: Any, filepath: str) -> None:
            if "last" not in filepath:
                removed.append(torch.load(filepath, weights_only=False)["global_step"])
            super()._remove_checkpoint(trainer, filepath)

    ours = VersionCheckpoint(store.path, monitor="score", save_top_k=2)
    trainer_of(Watched(dirpath=tmp_path / "stock", **policy), ours, max_epochs=6).fit(Small())
    gone = sorted(
        (each for each in store.versions() if not each.has_weights), key=lambda each: each.pruned[0].time
    )
    assert [each.step for each in gone] == removed
