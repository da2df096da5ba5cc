"""What the rooms of the store do on ways that no other test takes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from store_kit import commit, f32, fingerprint, snapshot

from mvc_callbacks.arguments import check_choice, check_keep, names_of
from mvc_callbacks.diff import comparable
from mvc_callbacks.errors import Misconfigured, MVCWarning
from mvc_callbacks.snapshot import Snapshot
from mvc_callbacks.storage import disk_bytes, storage
from mvc_callbacks.store import VersionStore
from mvc_callbacks.tensors import State
from mvc_callbacks.versions import Parent


def test_nothing_is_said_of_weights_whose_parent_is_in_another_store(store: VersionStore) -> None:
    run = store.open_run("base", framework="torch")
    version = run.commit(snapshot(1), step=5, parents=(Parent("f" * 64, "declared"),))
    assert version.flags == ()
    assert version.parents[0].elsewhere
    assert store.verify(full=True).ok


def test_versions_whose_patch_is_gone_are_compared_without_it(store: VersionStore) -> None:
    patches = [store.put_patch(b"first"), store.put_patch(b"second")]
    for label, patch in zip(("one", "two"), patches, strict=True):
        store.open_run(label, framework="torch", record={"code": {"patch": patch}}).commit(snapshot(1))
    assert store.diff("one", "two").patches == ("first", "second")
    store._layout.objects.path_of(patches[0], ".patch").unlink()
    assert store.diff("one", "two").patches == ("", "second")


def test_a_second_sweep_reads_no_history_again_that_did_not_change(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(store, "base", 2, data={"train": fingerprint("a")})

    def sweep() -> set[str]:
        listing = VersionStore(store.path).put_listing([b"nobody names it\n"])
        before = time.time() - 2 * 24 * 3600
        path = store._layout.objects.path_of(listing, ".jsonl")
        os.utime(path, (before, before))
        assert store._pruner.sweep().objects == 1
        return {str(each) for each in (store.path / "objects").rglob("*.jsonl")}

    assert sweep() == set()
    rows_of, read = store._layout.history.rows_of, []

    def reading(path: Path, **how: bool) -> object:
        read.append(path)
        return rows_of(path, **how)

    monkeypatch.setattr(store._layout.history, "rows_of", reading)
    assert sweep() == set()
    assert read == []


def test_a_snapshot_whose_memory_is_its_own_has_nothing_to_give_back() -> None:
    shot = Snapshot(State({"w": f32(1)}))
    shot.release()
    assert not shot.nonfinite()
    given: list[bool] = []
    Snapshot(State({}), find_nonfinite=lambda: True, give_back=lambda: given.append(True)).release()
    assert given == [True]


def test_what_is_no_json_is_compared_as_it_shows_itself() -> None:
    assert comparable(1j) == repr(1j)
    assert comparable(1) != comparable(1.0) != comparable(True)
    assert comparable(float("nan")) == comparable(float("nan"))


def test_an_argument_that_cannot_be_is_refused_with_what_can() -> None:
    check_choice("on_error", "warn", ("warn", "raise"))
    with pytest.raises(Misconfigured, match="choose 'warn' or 'raise'"):
        check_choice("on_error", "ignore", ("warn", "raise"))
    for keep in (0, 3, "all"):
        check_keep(keep)
    for keep in (-1, True, "some", None):
        with pytest.raises(Misconfigured, match="or 'all'"):
            check_keep(keep)
    assert names_of("exclude", "lr") == ("lr",)
    assert names_of("exclude", ["lr", "seed"]) == ("lr", "seed")
    with pytest.raises(Misconfigured, match="give a list of names"):
        names_of("exclude", ["lr", 3])  # type: ignore[list-item]


def test_a_store_says_where_it_is(store: VersionStore) -> None:
    assert repr(store) == f"VersionStore({str(store.path)!r})"


def test_weights_of_keras_are_arrays_with_the_names_that_keras_shows(store: VersionStore) -> None:
    numpy = pytest.importorskip("numpy")
    run = store.open_run("base", framework="keras")
    run.commit(Snapshot(State({"0": f32(1, 2), "1": f32(3)}, labels={"0": "dense/kernel"})))
    state = store.state_dict("base")
    assert {name: each.tolist() for name, each in state.items()} == {"0": [1, 2], "1": [3]}
    assert all(isinstance(each, numpy.ndarray) for each in state.values())
    assert store.labels("base") == {"0": "dense/kernel"}


def test_the_newest_of_a_label_is_found_past_runs_that_saved_nothing(store: VersionStore) -> None:
    assert store.newest_of("base") is None
    [version] = commit(store, "base", 1)
    store.open_run("base", framework="torch")  # the fit that follows has saved nothing yet
    assert store.newest_of("base") == version


def test_what_a_run_takes_of_the_disk_leaves_out_what_was_pruned(store: VersionStore) -> None:
    commit(store, "base", 3)
    before = storage(store._layout, store.versions())
    store.prune("base/1")
    [second] = [each.id for each in store.versions() if each.number == 2]
    store.prune_ids([second], what="state", policy="test")
    [after] = storage(store._layout, store.versions())
    assert (after.versions, before[0].kept, after.kept) == (3, 3, 2)
    assert after.logical_bytes < before[0].logical_bytes
    assert after.held_bytes == after.own_bytes == disk_bytes(store._layout) < before[0].held_bytes


def test_a_metric_that_was_never_a_number_has_no_best(store: VersionStore) -> None:
    commit(store, "base", 1, metrics={"val_loss": float("nan")})
    found = store.overview()
    assert (found.best, found.metrics) == ({}, ("val_loss",))


def test_a_history_that_is_cut_while_others_prune_is_mended_by_the_next_save(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = store.open_run("base", framework="torch")
    run.commit(snapshot(1))
    nonfinite = Snapshot.nonfinite

    def meanwhile(shot: Snapshot) -> bool:
        with store._layout.lock("somebody else prunes"):
            store._layout.new_epoch()
        (store.path / "history" / "base" / "0001.json").write_text("{")
        return nonfinite(shot)

    with monkeypatch.context() as patch:
        patch.setattr(Snapshot, "nonfinite", meanwhile)
        with pytest.warns(MVCWarning, match="the history of the run base .* was damaged"):
            run.commit(snapshot(2))
    assert [version.number for version in store.versions("base")] == [1, 2]
    assert store.verify(full=True).ok


def test_weights_of_torch_are_tensors_of_which_tied_ones_share_their_memory(store: VersionStore) -> None:
    torch = pytest.importorskip("torch")
    run = store.open_run("base", framework="torch")
    run.commit(Snapshot(State({"a": f32(1, 2), "b": f32(1, 2)}, tied=(("a", "b"),))))
    state = store.state_dict("base")
    assert torch.equal(state["a"], torch.tensor([1.0, 2.0]))
    assert state["a"].data_ptr() == state["b"].data_ptr()


def test_the_newest_version_with_some_weights_is_found_in_whichever_run(store: VersionStore) -> None:
    assert store.find_by_weights("0" * 64) is None
    commit(store, "first", 2)
    [first] = [each for each in store.versions() if each.number == 1]
    assert store.find_by_weights(first.weights.digest) == first
    [again] = commit(store, "second", 1)
    assert store.find_by_weights(first.weights.digest) == again
    assert store.find_by_weights(store.get("first/2").weights.digest).number == 2  # type: ignore[union-attr]
