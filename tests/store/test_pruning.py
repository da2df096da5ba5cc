"""Promises of pruning: bytes go, what a version was stays, and nothing goes that a version needs."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from store_kit import (
    Crash,
    bits,
    chunk,
    commit,
    expected,
    f32,
    fault,
    fingerprint,
    large,
    many,
    objects,
    snapshot,
)

from mvc_callbacks import commit as commit_module
from mvc_callbacks import history, locks, needs
from mvc_callbacks.commit import Run
from mvc_callbacks.errors import (
    BadName,
    CorruptHistory,
    CorruptRecord,
    Misconfigured,
    MVCError,
    MVCWarning,
    PrunedVersion,
    StoreLocked,
    UnknownRef,
)
from mvc_callbacks.snapshot import Snapshot
from mvc_callbacks.store import VersionStore
from mvc_callbacks.tensors import State


def test_pruning_frees_the_bytes_of_what_only_that_version_had(store: VersionStore) -> None:
    run = store.open_run("base", framework="torch")
    run.commit(snapshot(1, more={"big": large(1), "common": large(9)}))
    kept = run.commit(snapshot(2, more={"big": large(2), "common": large(9)}))
    before = objects(store)
    report = store.prune("base/1")
    after = objects(store)
    gone = before.keys() - after.keys()
    assert f"{large(1).digest()}.safetensors" in gone
    assert report.objects == len(gone)
    assert report.freed_bytes == sum(before[name] for name in gone) > large(1).nbytes
    assert report.versions == (store.get("base/1").id,)
    assert bits(store, kept) == expected(snapshot(2, more={"big": large(2), "common": large(9)}))
    assert store.training_state(kept)
    assert store.verify(full=True).ok


def test_bad_input_70_a_pruned_version_tells_what_it_was_and_names_the_nearest_kept(
    store: VersionStore,
) -> None:
    commit(store, "base", 4, data={"train": fingerprint("a")}, hyperparameters={"given": {"lr": 0.1}})
    before = store.get("base/2")
    store.prune("base/2", policy="save_top_k=3")
    version = store.get("base/2")
    assert version.id == before.id
    assert (version.metrics, version.data, version.hyperparameters) == (
        before.metrics,
        before.data,
        {"lr": 0.1},
    )
    assert [(each.what, each.policy) for each in version.pruned] == [("weights", "save_top_k=3")]
    assert not version.has_weights
    assert not version.has_training_state
    for ask in (store.tensors, store.training_state, store.entries):
        with pytest.raises(PrunedVersion, match=r"by save_top_k=3; the nearest one that has it is base/1"):
            ask(version)
    with pytest.raises(PrunedVersion):
        store.tensors(before)  # asked for before it was pruned
    with pytest.raises(PrunedVersion):
        store.promote("base/2", "production")


def test_pruning_the_state_keeps_the_weights(store: VersionStore) -> None:
    commit(store, "base", 3)
    before = objects(store)
    report = store.prune("base/1", "base/2", what="state")
    assert report.objects == len(before) - len(objects(store)) == 4
    assert bits(store, "base/1") == expected(snapshot(1))
    with pytest.raises(PrunedVersion, match="training state"):
        store.training_state("base/1")
    assert store.training_state("base/3")
    assert not store.prune("base/1", what="state").versions
    store.prune("base/1")
    assert {each.what for each in store.get("base/1").pruned} == {"state", "weights"}
    assert store.verify(full=True).ok


def test_an_aliased_version_is_never_pruned(store: VersionStore) -> None:
    versions = commit(store, "base", 3)
    store.promote("base/1", "production")
    report = store.prune(keep_last=1)
    assert report.versions == (versions[1].id,)
    assert report.kept == ((versions[0].id, "the alias production points to it"),)
    assert store.prune("base/1", "production").versions == ()
    store.prune_ids([versions[0].id], what="weights", policy="top-k")
    assert bits(store, "production") == expected(snapshot(1))


def test_an_aliased_version_is_not_pruned_when_the_aliases_were_lost(store: VersionStore) -> None:
    commit(store, "base", 3)
    store.promote("base/1", "production")
    (store.path / "aliases.json").unlink()
    assert not store.verify().ok
    with pytest.warns(MVCWarning, match="aliases"):
        assert store.prune("base/1").versions == ()
    assert store.get("production").number == 1


def test_a_version_promoted_while_a_prune_waits_is_not_pruned(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(store, "base", 3)
    there = VersionStore(store.path)
    real = there._layout.open_for_writing

    def promote_first() -> None:
        real()
        monkeypatch.undo()
        store.promote("base/1", "production")

    monkeypatch.setattr(there._layout, "open_for_writing", promote_first)
    assert there.prune("base/1").versions == ()
    assert bits(store, "production") == expected(snapshot(1))


def test_a_dry_run_says_the_same_and_changes_nothing(store: VersionStore) -> None:
    commit(store, "base", 4)
    before = {path: path.stat().st_mtime_ns for path in store.path.rglob("*")}
    told = store.prune(keep_last=1, dry_run=True)
    assert {path: path.stat().st_mtime_ns for path in store.path.rglob("*")} == before
    done = store.prune(keep_last=1)
    assert told.dry_run
    assert (told.versions, told.objects, told.freed_bytes) == (done.versions, done.objects, done.freed_bytes)


def test_rules_keep_the_newest_the_best_and_every_nth_of_each_run(store: VersionStore) -> None:
    for label in ("one", "two"):
        run = store.open_run(label, framework="torch")
        for number, loss in enumerate([0.5, 0.1, float("nan"), 0.3, 0.9, 0.8, 0.7], 1):
            run.commit(snapshot(number), metrics={"loss": loss}, monitor=commit_module.Monitor("loss", "min"))
    store.prune(keep_last=1, keep_best=1, keep_every=4, run="one")
    assert [version.number for version in store.versions("one") if version.has_weights] == [2, 4, 7]
    assert all(version.has_weights for version in store.versions("two"))
    store.prune(keep_best=2)
    assert [version.number for version in store.versions("two") if version.has_weights] == [2, 4]
    store.prune(older_than="1999-01-01T00:00:00Z", keep_last=0)
    assert store.get("two/2").has_weights
    assert store.verify(full=True).ok


@pytest.mark.parametrize("rules", [{}, {"keep_last": -1}, {"keep_every": 0}])
def test_a_rule_that_makes_no_sense_is_refused(store: VersionStore, rules: dict[str, int]) -> None:
    commit(store)
    with pytest.raises(Misconfigured):
        store.prune(**rules)  # type: ignore[arg-type]
    assert store.get("base").has_weights


def test_automatic_pruning_touches_only_the_runs_own_chain(store: VersionStore) -> None:
    other = commit(store, "other", 2)
    run = store.open_run("base", framework="torch")
    mine = [run.commit(snapshot(number + 10)) for number in range(2)]
    run.prune([other[0].id, mine[0].id], what="weights", policy="save_top_k=1")
    assert store.get("other/1").has_weights
    assert not store.get("base/1").has_weights


def test_the_base_of_a_manifest_survives_the_pruning_of_its_version(store: VersionStore) -> None:
    run = store.open_run("base", framework="torch")
    for number in range(4):
        run.commit(many(number))
    base = store.get("base/1").weights.digest
    store.prune("base/1")
    assert store._layout.manifests.has(base)
    for number in (1, 2, 3):
        assert bits(VersionStore(store.path), f"base/{number + 1}") == expected(many(number))
    assert bits(store, run.commit(many(9))) == expected(many(9))
    store.prune("base/2", "base/3", "base/4", "base/5")
    assert not store._layout.manifests.has(base)
    assert objects(store) == {}
    assert list(store._layout.manifests.all()) == []


def test_a_manifest_that_was_replaced_since_it_was_last_looked_at_is_looked_at_again(
    store: VersionStore,
) -> None:
    run = store.open_run("one", framework="torch")
    for number in range(3):
        run.commit(many(number))
    store.prune(
        "one/1"
    )  # the base of the others is now needed by them alone, and this store remembers what it names
    pack = max(objects(store), key=lambda name: objects(store)[name])
    (store.path / "objects" / pack[:2] / pack).unlink()
    other = VersionStore(store.path).open_run("two", framework="torch")
    other.commit(many(0))  # heals: the base is written again, and names what was written just now
    assert bits(store, "one/2") == expected(many(1))
    store.prune("two/1")
    assert bits(store, "one/2") == expected(many(1))
    assert bits(store, "one/3") == expected(many(2))
    assert store.verify(full=True).ok


def test_what_a_save_noted_of_a_manifest_does_not_hide_how_it_was_written_since(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(needs, "YOUNG", 0)  # two seconds have passed since
    store.open_run("one", framework="torch").commit(Snapshot(State({"w": f32(1), "x": f32(2)})))
    other = VersionStore(store.path)
    other.prune("one/1")
    run = other.open_run("two", framework="torch")
    run.commit(Snapshot(State({"w": f32(1)})))
    run.commit(Snapshot(State({"w": f32(1), "x": f32(2)})))  # the same manifest, of two packs
    other.open_run("three", framework="torch").commit(snapshot(3))
    other.prune("three/1")  # this host remembers what it names
    store.prune("two/1")  # and the first one notes what it named once
    assert bits(other, "two/2") == expected(Snapshot(State({"w": f32(1), "x": f32(2)})))
    assert store.verify(full=True).ok


@pytest.mark.parametrize("remembered", [True, False])
def test_a_cache_of_the_host_that_fails_while_it_is_asked_is_made_anew(
    remembered: bool, store: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise sqlite3.DatabaseError("database disk image is malformed")

    def refuse(*_: object) -> None:
        raise OSError("no cache")

    commit(store, "base", 3)
    with monkeypatch.context() as patch:
        if not remembered:
            patch.setattr(needs, "cache_folder", refuse)
        store.prune("base/1")
        cache = store._pruner.needs._path
        assert (cache is not None and cache.exists()) is remembered
        patch.setattr(needs.Needs, "by_others", fail)
        with pytest.raises(OSError, match=r"malformed.*made anew"):
            store.prune("base/2")
        assert cache is None or not cache.exists()
    assert bits(store, "base/2") == expected(snapshot(2))
    store.prune("base/2")
    assert store._pruner.needs._path.exists()
    assert bits(store, "base/3") == expected(snapshot(3))
    assert store.verify(full=True).ok


def test_nor_how_what_it_refers_to_was_written_since(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(needs, "YOUNG", 0)
    run = store.open_run("one", framework="torch")
    run.commit(many(0))
    run.commit(many(1))  # tells what differs from the first
    pack = max(objects(store), key=lambda name: objects(store)[name])
    (store.path / "objects" / pack[:2] / pack).unlink()
    other = VersionStore(store.path)
    run = other.open_run("two", framework="torch")
    run.commit(many(0, 59))
    run.commit(many(0))  # heals: the base names other packs
    other.open_run("three", framework="torch").commit(snapshot(3))
    other.prune("three/1")
    for ref in ("one/1", "two/1", "two/2"):
        store.prune(ref)
    assert bits(other, "one/2") == expected(many(1))
    assert store.verify(full=True).ok


def test_a_sweep_takes_what_crashes_left_and_nothing_else(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(store, "base", 2)
    before = objects(store)
    run = store.open_run("crashed", framework="torch")
    with pytest.raises(OSError, match="x"), monkeypatch.context() as patch:
        patch.setattr(Run, "_append", lambda *_: (_ for _ in ()).throw(OSError("x")))
        run.commit(snapshot(50, more={"big": large(5)}))
    assert len(objects(store)) > len(before)
    report = store.prune(keep_last=2)
    assert report.versions == ()
    assert report.objects > 0
    assert objects(store) == before
    assert run.commit(snapshot(50, more={"big": large(5)})).number == 2
    assert store.verify(full=True).ok


def test_listings_and_patches_stay_with_pruned_versions_and_go_a_day_after_nobody_names_them(
    store: VersionStore,
) -> None:
    listing, loose = store.put_listing([b"one\n"]), store.put_listing([b"two\n"])
    patch = store.put_patch(b"patch")
    run = store.open_run("base", framework="torch", record={"code": {"patch": patch}})
    told = commit_module.Fingerprint("a" * 64, "files", listing=listing)
    run.commit(snapshot(1), data={"train": told})
    store.prune(keep_last=0)
    assert store.listing(loose) == b"two\n"
    before = time.time() - 25 * 3600
    for path in (store.path / "objects").glob("*/*"):
        os.utime(path, (before, before))
    VersionStore(store.path).prune(keep_last=0)
    assert store.listing(listing) == b"one\n"
    assert store.patch(patch) == b"patch"
    assert objects(store).keys() == {f"{listing}.jsonl", f"{patch}.patch"}
    store.delete_run("base")
    assert objects(store) == {}


@pytest.mark.parametrize("what", ["history", "manifest"])
def test_nothing_is_pruned_while_it_cannot_be_known_what_is_needed(store: VersionStore, what: str) -> None:
    commit(store, "one", 2)
    commit(store, "two", 2)
    path = chunk(store, "two")
    if what == "manifest":
        path = store._layout.manifests.path_of(store.get("two/2").training_state.digest)  # type: ignore[union-attr]
    path.write_bytes(path.read_bytes()[:-5])
    before = objects(store)
    for ask in (
        lambda: store.prune("one/1"),
        lambda: store.prune(keep_last=0, run="one"),
        lambda: store.delete_run("one"),
    ):
        with pytest.raises((CorruptHistory, CorruptRecord)):
            ask()
    assert objects(store) == before
    assert store.get("one/1").has_weights


def test_bad_input_51_where_locks_do_not_work_saving_works_and_pruning_is_refused(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOLCK, "no locks here")

    monkeypatch.setattr(locks, "_try_lock", refuse)
    commit(store, "base", 2)
    store.promote("latest", "production")
    for ask in (
        lambda: store.prune("base/1"),
        lambda: store.delete_run("base"),
        lambda: store.prune(keep_last=0),
    ):
        with pytest.raises((StoreLocked, BadName)):
            ask()
    assert bits(store, "base/1") == expected(snapshot(1))


# --- beside a save in flight: invariant 9 ---


def between(run: Run, monkeypatch: pytest.MonkeyPatch, act: Callable[[], Any], *, times: int = 1) -> None:
    """Do something between the writing of a save's objects and its append, the first so many times."""
    real = run._write
    left = times

    def write(snapshot_: Snapshot) -> Any:
        nonlocal left
        written = real(snapshot_)
        if left:
            left -= 1
            act()
        return written

    monkeypatch.setattr(run, "_write", write)


@pytest.mark.parametrize("times", [1, 2, 3])
def test_bad_input_49_what_a_prune_takes_from_a_save_in_flight_is_written_again(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    shot = snapshot(5, more={"big": large(3)})
    store.open_run("old", framework="torch").commit(shot)
    run = VersionStore(store.path).open_run("base", framework="torch")
    done = []

    def prune() -> None:
        if not done:
            done.append(store.prune("old/1").versions)
        store.prune(keep_last=10)  # sweeps what no history names yet

    between(run, monkeypatch, prune, times=times)
    version = run.commit(shot)
    assert done
    assert not store.get("old/1").has_weights
    assert bits(store, version) == expected(shot)
    assert store.training_state(version)
    assert store.verify(full=True).ok


def test_bad_input_49_objects_found_while_a_prune_is_about_to_take_them_are_not_relied_on(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the new epoch and the removals a save must not begin: it would find what is about to go."""
    shot = snapshot(5)
    store.open_run("old", framework="torch").commit(shot)
    run = VersionStore(store.path).open_run("base", framework="torch")
    run._layout.lock.timeout = 0.05
    pruner = store._pruner
    real = pruner._remove
    refused = []

    def remove(*args: Any) -> None:
        with pytest.raises(StoreLocked):  # another thread or process waits here; this thread cannot
            failed: list[BaseException] = []

            def save() -> None:
                try:
                    run.commit(shot)
                except BaseException as error:
                    failed.append(error)

            thread = threading.Thread(target=save)
            thread.start()
            thread.join()
            raise failed[0]
        refused.append(True)
        real(*args)

    monkeypatch.setattr(pruner, "_remove", remove)
    store.prune("old/1")
    assert refused
    run._layout.lock.timeout = 60
    assert bits(store, run.commit(shot)) == expected(shot)


def test_bad_input_49_the_versions_own_predecessor_may_go_while_it_is_saved(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = store.open_run("base", framework="torch")
    for number in range(3):
        run.commit(many(number))
    with monkeypatch.context() as patch:
        between(run, patch, lambda: VersionStore(store.path).prune("base/1", "base/2", "base/3"))
        version = run.commit(many(7))
    assert bits(store, version) == expected(many(7))
    assert bits(store, run.commit(many(8))) == expected(many(8))
    assert store.verify(full=True).ok


def test_bad_input_49_a_manifest_replaced_by_another_save_is_believed_from_the_disk(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two runs write one state to different places; the manifest on the disk says which of them count."""
    shot = Snapshot(State({"w": f32(1), "x": f32(2)}))
    run = store.open_run("base", framework="torch")
    there = VersionStore(store.path)

    def replace() -> None:
        other = there.open_run("other", framework="torch")
        other.commit(Snapshot(State({"w": f32(1)})))
        path = store._layout.manifests.path_of(run_digest[0])
        path.unlink()
        other.commit(shot)  # names the other pack for w
        there.delete_run("other")

    from mvc_callbacks.tensors import weights_digest

    run_digest = [
        weights_digest(
            (name, each.dtype, each.shape, each.digest()) for name, each in shot.weights.tensors.items()
        )
    ]
    between(run, monkeypatch, replace)
    version = run.commit(shot)
    assert version.weights.digest == run_digest[0]
    assert bits(store, version) == expected(shot)
    assert store.verify(full=True).ok


def test_a_save_with_two_that_prune_in_turns_comes_to_an_end(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    shot = snapshot(5)
    run = store.open_run("base", framework="torch")
    there = VersionStore(store.path)
    commit(there, "old", 1)
    swept = []

    def sweep() -> None:
        if not there._layout.lock._state.__dict__.get("depth") and len(swept) < 50:
            swept.append(there._pruner.sweep())

    real = run._write
    held = []

    def write(snapshot_: Snapshot) -> Any:
        written = real(snapshot_)
        if getattr(run._layout.lock._state, "depth", 0):
            held.append(True)  # under the lock: nobody can sweep now
        else:
            sweep()
        return written

    monkeypatch.setattr(run, "_write", write)
    version = run.commit(shot)
    assert held
    assert len(swept) == 3
    assert bits(store, version) == expected(shot)


# --- faults and deletion ---


@pytest.mark.parametrize("dead", [False, True], ids=["error", "kill"])
@pytest.mark.parametrize("way", ["names", "rule", "delete"])
def test_bad_input_42_46_whatever_operation_of_a_removal_fails_the_others_are_whole(
    store: VersionStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dead: bool, way: str
) -> None:
    keep = store.open_run("keep", framework="torch").commit(many(1))
    run = store.open_run("base", framework="torch")
    for number in range(3):
        run.commit(many(number + 5))
    for at in range(1, 80):
        there = VersionStore(shutil.copytree(store.path, tmp_path / str(at)))
        with (
            fault(monkeypatch, at, Crash if dead else lambda: OSError(errno.EIO, "no"), dead=dead) as trace,
            contextlib.suppress(OSError, Crash),
        ):
            if way == "names":
                there.prune("base/1", "base/2")
            elif way == "rule":
                there.prune(keep_last=1, run="base")
            else:
                there.delete_run("base")
        there = VersionStore(there.path)
        for version in there.versions():
            if version.has_weights and not (way == "delete" and version.run == "base"):
                assert bits(there, version)
        if way != "delete":
            assert there.verify().ok
        there.rebuild()
        there.prune(keep_last=100)
        assert there.verify(full=True).ok
        assert bits(there, keep) == expected(many(1))
        if len(trace) < at:
            break
    assert at > 8


def test_a_deleted_run_does_not_come_back_with_a_rebuild(store: VersionStore) -> None:
    commit(store, "base", 2)
    commit(store, "other", 1)
    before = objects(store)
    report = store.delete_run("base")
    assert len(report.versions) == 2
    assert len(objects(store)) < len(before)
    assert [version.run for version in store.versions()] == ["other"]
    store.rebuild()
    assert [version.run for version in store.versions()] == ["other"]
    assert bits(store, "other") == expected(snapshot(1))
    assert store.verify(full=True).ok
    with pytest.raises(UnknownRef):
        store.delete_run("base")
    assert commit(store, "base", 1)[0].run == "base"


def test_what_a_crash_left_in_a_run_that_was_deleted_since_does_not_come_back(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash_before_the_row(run: Run) -> None:
        with pytest.raises(Crash), monkeypatch.context() as patch:
            patch.setattr(store._layout.history, "append", lambda *_, **__: (_ for _ in ()).throw(Crash))
            run.commit(snapshot(1))  # whole: its objects are those of other versions

    commit(store, "other", 1)
    run = store.open_run("base", framework="torch")
    run.commit(snapshot(1))
    crash_before_the_row(run)
    store.delete_run("base")
    store.rebuild()
    assert [version.run for version in store.versions()] == ["other"]
    assert store.verify(full=True).ok

    again = store.open_run("base", framework="torch")  # of the same name, and not deleted
    again.commit(snapshot(1))
    crash_before_the_row(again)
    store.rebuild()
    assert [version.run for version in store.versions()] == ["other", "base", "base"]
    assert store.verify(full=True).ok


def test_a_deletion_that_a_kill_cut_short_is_finished_by_a_rebuild(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(store, "base", 2)
    commit(store, "other", 1)
    with pytest.raises(Crash), monkeypatch.context() as patch:
        patch.setattr(store._layout.history, "remove", lambda run: (_ for _ in ()).throw(Crash))
        store.delete_run("base")
    assert [version.run for version in store.versions()] == ["base", "base", "other"]
    store.rebuild()
    assert [version.run for version in store.versions()] == ["other"]
    assert len(list(store._layout.versions.ids())) == 1
    assert store.verify(full=True).ok


def test_the_last_run_may_be_deleted(store: VersionStore) -> None:
    commit(store, "base", 2)
    store.delete_run("base")
    assert store.versions() == []
    assert objects(store) == {}
    assert store.verify().ok
    store.rebuild()
    assert store.versions() == []


def test_a_run_that_an_alias_points_into_is_not_deleted(store: VersionStore) -> None:
    commit(store, "base", 2)
    store.promote("base/1", "production")
    with pytest.raises(
        BadName,
        match=r"promote another version, or remove the alias \(`mvc remove-alias production`\), first",
    ):
        store.delete_run("base")
    assert len(store.versions()) == 2


def test_a_run_with_a_damaged_version_can_be_deleted(store: VersionStore) -> None:
    versions = commit(store, "base", 2)
    store._layout.manifests.path_of(versions[0].weights.digest).unlink()
    store.delete_run("base")
    assert store.versions() == []


def test_a_label_used_again_keeps_its_own_patch(store: VersionStore) -> None:
    def begin(patch: bytes) -> None:
        run = store.open_run("base", framework="torch", record={"code": {"patch": store.put_patch(patch)}})
        run.commit(snapshot(1))

    begin(b"one")
    store.prune(keep_last=5)
    VersionStore(store.path).delete_run("base")
    begin(b"two")
    before = time.time() - 25 * 3600
    for path in (store.path / "objects").glob("*/*"):
        os.utime(path, (before, before))
    store.prune(keep_last=5)
    assert store.patch(store.get("base").code["patch"]) == b"two"


def test_many_versions_are_pruned_with_one_write_of_their_history(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(store, "base", 12)
    writes: list[object] = []
    real = history.AtomicStorage.write
    monkeypatch.setattr(
        history.AtomicStorage, "write", lambda self, data: (writes.append(self.path), real(self, data))[1]
    )
    store.prune(keep_last=2)
    assert len(writes) == 1
    assert [version.number for version in store.versions() if version.has_weights] == [11, 12]


def test_pruning_errors_are_the_packages_own(store: VersionStore) -> None:
    commit(store)
    with pytest.raises(MVCError):
        store.prune("nothing")
    with pytest.raises(MVCError):
        store.prune_ids(["f" * 64], what="weights", policy="x")


# --- rules ---


def test_an_alias_keeps_what_it_pointed_to_before(store: VersionStore) -> None:
    commit(store, "base", 5)
    for ref in ("base/2", "base/4"):
        store.promote(ref, "production")
    store.promote("base/1", "staging")
    plan = store.prune(keep_alias="production", dry_run=True)
    assert {store.get(each).number for each in plan.versions} == {3, 5}
    assert [why for _, why in plan.kept] == ["the alias staging points to it"]
    store.prune(keep_alias=["production", "staging"])
    assert [each.number for each in store.versions() if each.has_weights] == [1, 2, 4]
    assert store.get("base/5").pruned[0].policy == "keep_alias=production,staging"
    assert store.rollback("production").number == 2
    with pytest.raises(UnknownRef, match="no alias 'prodution'"):
        store.prune(keep_alias="prodution")


def test_a_time_may_be_told_in_any_way(store: VersionStore) -> None:
    commit(store, "base", 2)
    week = timedelta(days=7)
    for given in ("7d", "yesterday", week, datetime.now(timezone.utc) - week, "2001-01-01"):
        assert store.prune(older_than=given, dry_run=True).versions == ()
    later = datetime.now(timezone(timedelta(hours=5))) + week
    assert len(store.prune(older_than=later, dry_run=True).versions) == 2
    for wrong in ("soon", timedelta(days=999_999_999)):
        with pytest.raises(Misconfigured):
            store.prune(older_than=wrong)


def test_what_was_pruned_before_counts_for_no_rule(store: VersionStore) -> None:
    commit(store, "base", 5)  # the last one is the best
    store.prune("base/5", "base/4")
    store.prune(keep_best=1)
    assert [each.number for each in store.versions() if each.has_weights] == [3]
    assert store.prune(keep_best=1, keep_last=1).versions == ()
    store.prune(keep_last=1, what="state")
    assert store.get("base/3").has_training_state


def test_the_first_removal_of_a_host_tells_how_far_it_has_read(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    commit(store, "base", 3)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a host that never saw it"))
    told: list[tuple[int, int]] = []
    there = VersionStore(store.path)
    there.prune("base/1", progress=lambda done, whole: told.append((done, whole)))
    assert told and told == [(place, len(told)) for place in range(1, len(told) + 1)]
    before = len(told)
    there.prune("base/2", progress=lambda done, whole: told.append((done, whole)))
    assert len(told) == before  # it knows them now
