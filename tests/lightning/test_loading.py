"""Versions where Lightning expects the path of a checkpoint."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from small_models import Small, trainer_of

from mvc_callbacks import VersionStore, restore_version
from mvc_callbacks.errors import MVCError, MVCWarning, PrunedVersion, UnknownRef
from mvc_callbacks.lightning import VersionCheckpoint
from mvc_callbacks.versions import Parent


def fitted(store: VersionStore, **options: Any) -> tuple[VersionCheckpoint, Any, Small]:
    callback = VersionCheckpoint(store.path, run="baseline", monitor="score", **options)
    trainer = trainer_of(callback)
    model = Small()
    trainer.fit(model)
    return callback, trainer, model


def test_best_is_tested_and_its_metrics_are_added_to_the_version(store: VersionStore) -> None:
    callback, trainer, _ = fitted(store)
    [metrics] = trainer.test(ckpt_path="best", verbose=False)
    [evaluation] = store.get("best").evaluations
    assert evaluation.kind == "test"
    assert evaluation.metrics["test_loss"] == pytest.approx(metrics["test_loss"])
    assert store.get("best").id == callback.best_version.id  # type: ignore[union-attr]
    trainer.validate(ckpt_path="mvc://baseline/1", verbose=False)
    assert [each.kind for each in store.get("baseline/1").evaluations] == ["validate"]
    trainer.predict(ckpt_path="best")
    assert len(store.runs()) == 1


def test_weights_in_memory_that_are_a_known_version_are_evaluated_as_it(store: VersionStore) -> None:
    _, trainer, model = fitted(store)
    trainer.test(model, verbose=False)
    assert len(store.get("baseline/3").evaluations) == 1
    trainer.test(Small(), verbose=False)
    assert sum(len(each.evaluations) for each in store.versions()) == 1


def test_a_test_leaves_what_is_known_of_the_last_run(store: VersionStore) -> None:
    callback, trainer, _ = fitted(store, keep_training_state="all")
    best, score = callback.best_model_path, callback.best_model_score
    trainer.test(ckpt_path="mvc://baseline/1", verbose=False)
    assert (callback.best_model_path, callback.best_model_score) == (best, score)
    assert callback.run_name == "baseline"


def test_an_evaluation_of_a_part_says_so_and_a_dry_run_is_none(store: VersionStore) -> None:
    fitted(store)
    trainer_of(VersionCheckpoint(store.path), fast_dev_run=True).test(
        Small(), ckpt_path="mvc://best", verbose=False
    )
    assert store.get("best").evaluations == ()
    trainer_of(VersionCheckpoint(store.path), limit_test_batches=1).test(
        Small(), ckpt_path="mvc://best", verbose=False
    )
    [evaluation] = store.get("best").evaluations
    assert evaluation.data["test"].problems == ("measured with limit_test_batches=1",)


class Configured(Small):
    def __init__(self, options: dict[str, Any]) -> None:
        super().__init__()
        self.save_hyperparameters()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["login"] = {"names": ["me"], "password": "hunter2", "seen": ({"api_key": "k"}, 3)}


def test_a_secret_deep_inside_does_not_make_a_version_unreadable(store: VersionStore) -> None:
    trainer = trainer_of(VersionCheckpoint(store.path, run="secret"))
    trainer.fit(Configured({"width": 4, "login": {"token": "s3cret"}}))
    url = f"mvc://{store.path}@secret"
    with pytest.warns(MVCWarning, match="options.login.token"):
        model = Configured.load_from_checkpoint(url, weights_only=True)
    assert model.hparams.options == {"width": 4, "login": {}}
    with fsspec.open(url) as stream:
        assert torch.load(stream)["login"] == {"names": ["me"], "seen": ({}, 3)}


def test_load_from_checkpoint_gives_the_versions_weights(store: VersionStore) -> None:
    callback, _, _ = fitted(store)
    for safely in (None, True, False):
        model = Small.load_from_checkpoint(callback.best_model_path, weights_only=safely)
        expected = store.state_dict("best")
        assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
    assert (
        Small.load_from_checkpoint(f"mvc://{store.path}@baseline/1").hparams.width == 4
    )  # without training state


def test_a_url_without_a_store_means_the_callbacks_or_the_default_one(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted(store)
    with pytest.raises(MVCError, match="model_versions"):
        Small.load_from_checkpoint("mvc://baseline/latest")
    monkeypatch.setenv("MVC_STORE", str(store.path))
    Small.load_from_checkpoint("mvc://baseline/latest")
    monkeypatch.delenv("MVC_STORE")
    trainer = trainer_of(VersionCheckpoint(store.path, run="next"), max_epochs=4)
    trainer.fit(Small(), ckpt_path=Path("mvc://baseline/latest"))  # pathlib takes a slash away
    assert [each.step for each in store.versions("next")] == [16]
    assert store.get("next/1").parents[0].id == store.get("baseline/3").id


def test_fit_and_test_work_without_the_callback(store: VersionStore) -> None:
    callback, _, _ = fitted(store)
    url = callback.best_model_path.replace("baseline/2", "baseline/3")
    trainer = trainer_of(max_epochs=4, enable_checkpointing=False)
    trainer.test(Small(), ckpt_path=url, verbose=False)
    trainer.fit(Small(), ckpt_path=url)
    assert trainer.global_step == 16


def test_without_the_callback_too_it_is_told_why_a_version_cannot_be_loaded(
    store: VersionStore, caplog: pytest.LogCaptureFixture
) -> None:
    fitted(store, save_top_k=1)
    trainer = trainer_of(enable_checkpointing=False)
    with pytest.raises(PrunedVersion, match="nearest"):
        trainer.test(Small(), ckpt_path=f"mvc://{store.path}@baseline/1", verbose=False)
    with pytest.raises(FileNotFoundError):
        trainer.test(Small(), ckpt_path=f"mvc://{store.path}@nope", verbose=False)
    assert "there are: baseline" in caplog.text


def test_the_protocol_is_known_without_importing_the_callback(store: VersionStore) -> None:
    try:
        importlib.metadata.distribution("mvc-callbacks")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("entry points need an installed package")
    callback, _, _ = fitted(store)
    code = (
        "import sys, torch, fsspec; f = fsspec.open(sys.argv[1]).open(); print(torch.load(f)['global_step'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, callback.best_model_path], capture_output=True, text=True
    )
    assert done.stdout.strip() == "8", done.stderr


def test_a_missing_ref_is_an_error(store: VersionStore) -> None:
    fitted(store)
    for ref in ("mvc://no-such-run", f"mvc://{store.path}@baseline/99"):
        with pytest.raises(UnknownRef):
            trainer_of(VersionCheckpoint(store.path)).fit(Small(), ckpt_path=ref)
    assert len(store.runs()) == 1


def test_training_cannot_go_on_from_pruned_state_and_says_from_where_it_can(store: VersionStore) -> None:
    fitted(store)
    with pytest.raises(PrunedVersion, match="baseline/2"):
        trainer_of(VersionCheckpoint(store.path), max_epochs=5).fit(Small(), ckpt_path="mvc://baseline/1")


def test_a_resumed_fit_has_the_whole_training_state(store: VersionStore) -> None:
    torch.manual_seed(5)
    whole = Small()
    trainer_of(max_epochs=4, enable_checkpointing=False).fit(whole)
    torch.manual_seed(5)
    trainer_of(VersionCheckpoint(store.path, run="r"), max_epochs=2).fit(Small())
    model = Small()
    trainer = trainer_of(VersionCheckpoint(store.path, run="r"), max_epochs=4)
    trainer.fit(model, ckpt_path="last")
    assert torch.equal(model.layer.weight, whole.layer.weight)
    assert [each.step for each in store.versions("r-2")] == [12, 16]
    assert [each.label for each in store.runs()] == ["r", "r-2"]


def test_last_without_a_version_starts_fresh_with_a_warning(store: VersionStore) -> None:
    fitted(store)
    with pytest.warns(UserWarning, match="no last checkpoint available"):
        trainer_of(VersionCheckpoint(store.path, run="other"), max_epochs=1).fit(Small(), ckpt_path="last")
    assert store.get("other/1").step == 4


def test_last_of_a_callback_without_a_label_is_its_own_last_run(store: VersionStore) -> None:
    fitted(store)
    callback = VersionCheckpoint(store.path)
    trainer_of(callback, max_epochs=1).fit(Small())
    trainer_of(callback, max_epochs=2).fit(Small(), ckpt_path="last")
    assert [each.step for each in store.versions(callback.run_name)] == [8]


def test_a_moved_store_is_resumed_with_its_policy(store: VersionStore, tmp_path: Path) -> None:
    callback = VersionCheckpoint(run="r", monitor="score", save_top_k=2)
    trainer_of(callback, max_epochs=2).fit(Small())
    moved = tmp_path / "elsewhere"
    VersionStore().path.rename(moved)
    callback = VersionCheckpoint(run="r", monitor="score", save_top_k=2)
    import os

    os.environ["MVC_STORE"] = str(moved)
    try:
        trainer_of(callback, max_epochs=3).fit(Small(), ckpt_path="last")
    finally:
        del os.environ["MVC_STORE"]
    assert sorted(callback.best_k_models) == [f"mvc://{moved}@r-2/1", f"mvc://{moved}@r/2"]
    assert not VersionStore().path.exists()


def test_ten_fits_of_one_epoch_are_ten_runs_in_a_chain(store: VersionStore) -> None:
    model = Small()
    for _ in range(10):
        trainer_of(VersionCheckpoint(store.path, run="cell"), max_epochs=1).fit(model)
    versions = store.versions()
    assert len({each.run for each in versions}) == 10
    assert versions[0].parents == ()
    for before, after in pairwise(versions):
        [parent] = after.parents
        assert (parent.id, parent.how, parent.shared) == (before.id, "content", "2/2")


def test_a_fit_that_shares_a_part_knows_what_with_whom(store: VersionStore) -> None:
    class Wide(Small):
        def __init__(self, head: int) -> None:
            super().__init__()
            self.backbone = torch.nn.Linear(16, 16)
            self.head = torch.nn.Linear(16, head)

    first = Wide(3)
    trainer_of(VersionCheckpoint(store.path, run="first"), max_epochs=1).fit(first)
    second = Wide(5)
    second.backbone.load_state_dict(first.backbone.state_dict())
    trainer_of(VersionCheckpoint(store.path, run="second"), max_epochs=1).fit(second)
    [parent] = store.get("second/1").parents
    assert (parent.id, parent.how) == (store.get("first/1").id, "content")
    assert parent.shared == "2/6"  # weight and bias of the backbone
    trainer_of(VersionCheckpoint(store.path, run="third"), max_epochs=1).fit(Wide(7))
    assert store.get("third/1").parents == ()


def test_a_model_that_was_restored_knows_its_version(store: VersionStore) -> None:
    from mvc_callbacks import lineage

    fitted(store)
    model = Small()
    lineage.remember(model, store.get("baseline/2").id, "1/2")
    trainer_of(VersionCheckpoint(store.path, run="tuned"), max_epochs=1).fit(model)
    [parent] = store.get("tuned/1").parents
    assert (parent.id, parent.how, parent.shared) == (store.get("baseline/2").id, "restore", "1/2")
    assert lineage.origin(model) is None


def test_a_base_of_another_store_is_a_parent_and_no_damage(store: VersionStore, tmp_path: Path) -> None:
    fitted(store)
    mine = VersionStore(tmp_path / "mine")
    model = restore_version("baseline/2", Small, store=store)
    callback = VersionCheckpoint(mine.path, run="tuned")
    trainer_of(callback, max_epochs=2).fit(model)
    first, second = mine.versions()
    assert first.parents == (Parent(store.get("baseline/2").id, "restore", elsewhere=True),)
    assert second.parents == (Parent(first.id, "run"),)
    assert mine.verify(full=True).ok
    mine.rebuild()
    assert [each.parents for each in mine.versions()] == [first.parents, second.parents]
    trainer_of(VersionCheckpoint(store.path, run="tuned"), max_epochs=1).fit(
        restore_version("baseline/2", Small, store=store)
    )
    assert store.get("tuned/1").parents == (Parent(store.get("baseline/2").id, "restore"),)


def test_the_file_system_is_read_only_and_lists_nothing(store: VersionStore) -> None:
    callback, _, _ = fitted(store)
    files = fsspec.filesystem("mvc")
    url = callback.best_model_path
    assert files.exists(url)
    assert files.isfile(url)
    assert not files.isdir(url)
    assert not files.exists(f"mvc://{store.path}@baseline/99")
    assert files.ls(f"mvc://{store.path}") == []
    assert files.info(url)["id"] == store.get("best").id
    assert files.modified(url).tzinfo is not None
    for write in (lambda: files.open(url, "wb"), lambda: files.makedirs(url), lambda: files.rm(url)):
        with pytest.raises(OSError, match="read-only"):
            write()
    with pytest.raises(OSError, match="read-only"):
        trainer = trainer_of(max_epochs=1, enable_checkpointing=False)
        trainer.fit(Small())
        trainer.save_checkpoint(url)


def test_data_that_is_hashed_late_completes_the_versions(store: VersionStore, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.txt").write_text("a")
    trainer_of(VersionCheckpoint(store.path, data=str(tmp_path / "data"))).fit(Small())
    data = [each.data["train"] for each in store.versions()]
    assert {each.coverage for each in data} == {"declared"}
    assert len({each.digest for each in data}) == 1
    assert data[0].files == 1


def test_the_loaders_data_are_found_without_being_asked(store: VersionStore) -> None:
    trainer_of(VersionCheckpoint(store.path)).fit(Small())
    data = store.get("latest").data
    assert {name: each.coverage for name, each in data.items()} == {"train": "arrays", "val": "arrays"}
