"""What the rooms of the store do on ways that no other test takes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from store_kit import commit, f32, fingerprint, snapshot

from mvc_callbacks.arguments import check_choice, check_keep, names_of
from mvc_callbacks.diff import comparable
from mvc_callbacks.errors import Misconfigured
from mvc_callbacks.snapshot import Snapshot
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
