"""Ways to lose a version that was acknowledged, or to believe what is wrong: each was open once."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from forker import Forker
from store_kit import Crash, bits, chunk, commit, expected, large, snapshot
from torture_kit import TORTURE, Fault, check, disk, figure, shot

from mvc_callbacks import files, locks
from mvc_callbacks.commit import Run
from mvc_callbacks.errors import CorruptHistory, MVCError, PrunedVersion, SaveFailed, StoreLocked
from mvc_callbacks.locks import StoreLock
from mvc_callbacks.store import VersionStore


@pytest.fixture(scope="module")
def forker() -> Iterator[Forker]:
    with Forker("workers", Path(__file__).parent) as started:
        yield started


# --- removals that a crash cuts short ---

REMOVALS: dict[str, Callable[[VersionStore], object]] = {
    "prune": lambda store: store.prune("base/2"),
    "prune by rule": lambda store: store.prune(keep_last=0, run="base"),
    "delete": lambda store: store.delete_run("base"),
}


@pytest.mark.parametrize("lost", [False, True], ids=["history", "no history"])
@pytest.mark.parametrize("name", REMOVALS)
def test_bad_input_46_a_removal_that_was_cut_short_is_not_finished_under_an_alias(
    store: VersionStore, tmp_path: Path, name: str, lost: bool
) -> None:
    commit(store, "base", 3)
    commit(store, "other", 1)
    promoted = 0
    for at in range(1, 1000, 1 if TORTURE else 3):
        there = VersionStore(shutil.copytree(store.path, tmp_path / str(at)))
        wanted = there.get("base/2")
        cut = Fault(at, "kill")
        with disk(cut), contextlib.suppress(Crash):
            REMOVALS[name](there)
        if not cut.struck:
            break
        again = VersionStore(there.path)
        try:
            again.promote(wanted, "production")
        except MVCError:  # it is gone
            continue
        promoted += 1
        again.promote("other/1", "production")
        again.promote(wanted, "production")
        if lost:
            shutil.rmtree(there.path / "history")
            (there.path / "aliases.json").unlink()
        for _ in range(2):
            again.rebuild()
            again.prune(older_than="1980-01-01T00:00:00Z")  # sweeps
            assert bits(again, "production") == expected(snapshot(2))
            assert again.verify(full=True).ok
        shutil.rmtree(there.path)
    assert promoted > 1
    figure("removals cut short, promoted after it, and rebuilt", promoted)


def test_what_was_pruned_stays_so_through_a_rebuild_although_an_alias_pointed_to_it_once(
    store: VersionStore,
) -> None:
    commit(store, "base", 2)
    commit(store, "twin", 2)  # all objects stay where they are
    store.promote("base/1", "production")
    store.promote("base/2", "production")
    store.prune("base/1")
    for lost in (False, True):
        if lost:
            shutil.rmtree(store.path / "history")
        store.rebuild()
        with pytest.raises(PrunedVersion):
            store.tensors("base/1")


def test_an_alias_that_a_rebuild_moves_is_told_of(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = commit(store, "base", 2)
    store.promote(first, "production")
    assert store.rebuild().problems == ()
    with pytest.raises(Crash), monkeypatch.context() as patch:
        patch.setattr("mvc_callbacks.aliases.AliasTable.append", lambda *_: (_ for _ in ()).throw(Crash))
        store.promote(second, "production")
    assert store.aliases()["production"] == first.id
    problems = store.rebuild().problems
    assert store.aliases()["production"] == second.id
    assert len(problems) == 1
    assert f"points to {second.short_id}" in problems[0] and f"no longer to {first.short_id}" in problems[0]
    assert store.rebuild().problems == ()


# --- a history that is damaged, or gone in part ---


@pytest.mark.parametrize("links", [True, False], ids=["hard links", "no hard links"])
def test_bad_input_46_51_a_rebuild_that_is_killed_answers_all_or_refuses(
    store: VersionStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    ids = {version.id for version in commit(store, "base", 3)}
    store.promote("base/2", "production")
    for path in (chunk(store), store.path / "aliases.json"):
        path.write_bytes(path.read_bytes()[:-20])
    if not links:

        def refuse(*_: object) -> None:
            raise OSError(errno.EPERM, "no hard links")

        monkeypatch.setattr(os, "link", refuse)
    for at in range(1, 1000, 1 if TORTURE else 2):
        there = VersionStore(shutil.copytree(store.path, tmp_path / str(at)))
        cut = Fault(at, "kill")
        with disk(cut), contextlib.suppress(Crash):
            there.rebuild()
        if links:
            with contextlib.suppress(CorruptHistory):
                assert {version.id for version in there.versions()} == ids
            with contextlib.suppress(CorruptHistory):
                assert set(there.aliases()) == {"production"}
        there.rebuild()
        assert {version.id for version in there.versions()} == ids
        assert set(there.aliases()) == {"production"}
        assert len(list(there.path.rglob("*.damaged"))) == 2
        assert there.verify(full=True).ok
        shutil.rmtree(there.path)
        if not cut.struck:
            break
    assert at > 5


def test_bad_input_01_versions_that_the_history_has_lost_are_told(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mvc_callbacks.history.ROLL_OVER", 2)
    versions = commit(store, "base", 5)
    commit(store, "other", 1)
    assert store.verify().ok
    for name in ("0001.json", "0002.json", "0003.json"):
        chunk(store).with_name(name).unlink()
        report = VersionStore(store.path).verify()
        assert [problem.kind for problem in report.problems][:1] == ["history"]
        hurt = {identity for problem in report.problems for identity in problem.versions}
        assert versions[0].id in hurt and "mvc rebuild" in report.problems[0].text
    store.rebuild()
    assert {version.id for version in versions} <= {version.id for version in store.versions()}
    assert store.verify(full=True).ok


def test_a_parent_with_a_damaged_object_is_adopted_because_something_was_trained_from_it(
    store: VersionStore,
) -> None:
    first, second = commit(store, "base", 2)
    name = {entry.name: entry.object for entry in store._layout.manifests.read(first.weights.digest).entries}
    store._layout.objects.path_of(name["w"]).unlink()
    shutil.rmtree(store.path / "history")
    report = store.rebuild()
    assert report.left_out == ()
    assert [version.id for version in store.versions()] == [first.id, second.id]
    assert {identity for each in store.verify().problems for identity in each.versions} == {first.id}


def test_a_record_that_nothing_was_trained_from_is_no_loss(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = store.open_run("base", framework="torch")
    run.commit(snapshot(1))
    with pytest.raises(Crash), monkeypatch.context() as patch:
        patch.setattr(Run, "_append", lambda *_: (_ for _ in ()).throw(Crash))
        run.commit(snapshot(2))
    assert len(list(store._layout.versions.ids())) == 2
    assert store.verify(full=True).ok


# --- two who do something at once ---


def test_a_run_that_was_deleted_while_it_goes_on_takes_no_version_of_its_successor(
    store: VersionStore,
) -> None:
    old = store.open_run("base", framework="torch")
    for seed in (1, 2):
        old.commit(snapshot(seed))
    store.delete_run("base")
    new = VersionStore(store.path).open_run("base", framework="torch")
    assert new.label == "base"
    told = {new.commit(snapshot(seed)).id: expected(snapshot(seed)) for seed in (11, 12, 13)}
    with pytest.raises(SaveFailed, match="same label"):
        old.commit(snapshot(3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        later = old.commit(snapshot(4))
    assert (later.run, later.number) == ("base", 4)
    with pytest.raises(SaveFailed, match="same label"):
        new.commit(snapshot(14))
    check(store.path, {**told, later.id: expected(snapshot(4))})


def test_bad_input_51_of_two_who_want_one_label_without_locks_one_gets_it(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.open_run("base", framework="torch")
    history = store._layout.history
    monkeypatch.setattr(history, "runs", list)  # looked a moment before the other made it
    assert not history.reserve("base")
    assert history.reserve("other")


def test_bad_input_48_51_many_save_at_once_where_locks_do_not_work(forker: Forker, tmp_path: Path) -> None:
    path, count, savers = tmp_path / "store", 4, 4
    VersionStore(path).open_run("first", framework="torch").commit(shot(0))
    children = [
        forker.start("save_without_locks", tmp_path / f"out{place}", str(path), "run", place * 10, count)
        for place in range(savers)
    ]
    promised = {}
    for child in children:
        child.wait(120)
        assert ["done"] in child.lines()
        promised |= {line[1]: expected(shot(line[2])) for line in child.lines() if line[0] == "saved"}
    assert len(promised) == savers * count
    store = check(path, promised)
    assert len({version.run for version in store.versions()}) == savers + 1


def test_an_object_that_a_save_heals_while_verify_looks_is_not_moved_aside(store: VersionStore) -> None:
    shot_ = snapshot(1, more={"big": large(1)})
    version = store.open_run("base", framework="torch").commit(shot_)
    path = store._layout.objects.path_of(large(1).digest())
    path.write_bytes(path.read_bytes()[:-1])
    healed = []

    def heal(done: int, of: int) -> None:
        if done == of:
            healed.append(VersionStore(store.path).open_run("again", framework="torch").commit(shot_))

    report = store.verify(full=True, progress=heal)
    assert healed
    assert bits(store, version) == bits(store, healed[0]) == expected(shot_)
    assert not list(path.parent.glob("*.damaged"))
    assert report.ok and store.verify(full=True).ok


def test_a_prune_is_seen_by_a_save_in_flight_also_when_tmp_is_emptied_after_it(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(store, "old", 1)
    shutil.rmtree(store.path / "tmp")
    run = VersionStore(store.path).open_run("base", framework="torch")
    real = run._write
    done = []

    def write(given: object) -> object:
        written = real(given)  # type: ignore[arg-type]
        if not done:
            done.append(store.prune("old/1"))
            shutil.rmtree(store.path / "tmp")
            (store.path / "tmp").mkdir()
        return written

    monkeypatch.setattr(run, "_write", write)
    version = run.commit(snapshot(1))
    assert done[0].objects
    assert bits(store, version) == expected(snapshot(1))
    assert store.verify(full=True).ok


def test_a_lock_whose_file_is_no_longer_there_excludes_nobody_and_is_taken_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lock"
    lock, other = StoreLock(path, timeout=0.2), StoreLock(path, timeout=0.2)
    real, took = locks._try_lock, []

    def emptied(descriptor: int) -> None:
        real(descriptor)
        if not took:  # somebody empties tmp/, and another one makes the lock again and takes it
            took.append(descriptor)
            path.unlink()
            took.append(other("the other"))
            took[1].__enter__()

    monkeypatch.setattr(locks, "_try_lock", emptied)
    with pytest.raises(StoreLocked, match="the other"), lock("late"):
        pass
    took[1].__exit__(None, None, None)
    path.unlink()
    took.clear()
    monkeypatch.setattr(locks, "_try_lock", real)
    with lock("late") as works:
        assert works


def test_a_save_waits_longer_for_the_lock_than_a_person(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = store.open_run("base", framework="torch")
    waits: list[tuple[str, float]] = []
    real = StoreLock.__call__

    def note(self: StoreLock, purpose: str, *, patience: float = 1) -> object:
        waits.append((purpose, patience))
        return real(self, purpose, patience=patience)

    monkeypatch.setattr(StoreLock, "__call__", note)
    run.commit(snapshot(1))
    store.promote("base/1", "production")
    told = dict(waits)
    assert told["beginning a version of the run base"] == told["adding a version to the run base"] == 10
    assert told["moving the alias production"] == 1


# --- the room of files ---


def test_a_file_that_is_kept_beside_stays_in_its_place_until_it_is_replaced(tmp_path: Path) -> None:
    path, kept = tmp_path / "a", tmp_path / "a.damaged"
    path.write_bytes(b"old")
    for _ in range(2):  # the second time both names are of one file
        files.keep_beside(path, kept, tmp_path)
        assert path.read_bytes() == kept.read_bytes() == b"old"
    files.replace_file(path, b"new", tmp_path)
    assert (path.read_bytes(), kept.read_bytes()) == (b"new", b"old")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a", "a.damaged"]


def test_what_has_no_hard_link_is_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder").mkdir()
    files.keep_beside(tmp_path / "folder", tmp_path / "kept", tmp_path)
    assert (tmp_path / "kept").is_dir() and not (tmp_path / "folder").exists()
    (tmp_path / "a").write_bytes(b"old")

    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "no hard links")

    monkeypatch.setattr(os, "link", refuse)
    files.keep_beside(tmp_path / "a", tmp_path / "a.damaged", tmp_path)
    assert [each.name for each in tmp_path.iterdir() if each.name != "kept"] == ["a.damaged"]


def test_of_two_who_make_one_folder_one_has_made_it(tmp_path: Path) -> None:
    assert files.make_new_folder(tmp_path / "a")
    assert not files.make_new_folder(tmp_path / "a")


@pytest.mark.parametrize("pruned", [False, True], ids=["", "while somebody prunes"])
def test_a_version_that_a_rebuild_adopts_while_it_is_saved_keeps_the_name_that_it_was_given(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch, pruned: bool
) -> None:
    """Between its record and its row a rebuild may come, after which it is shown, and may be promoted."""
    commit(store, "base", 2)
    run = store.open_run("more", framework="torch")
    run.commit(shot(3))
    write = run._write_record

    def meanwhile(*args: Any) -> Any:
        written = write(*args)
        monkeypatch.undo()
        there = VersionStore(store.path)
        there.rebuild()
        there.promote("more/2", "production")
        if pruned:
            there.prune("base/1")
        return written

    monkeypatch.setattr(run, "_write_record", meanwhile)
    version = run.commit(shot(4))
    assert store.aliases() == {"production": version.id}
    assert store.get("production") == version == store.get("more/2")
    assert bits(store, "production") == expected(shot(4))
    assert run.commit(shot(5)).parents[0].id == version.id
    check(store.path, {version.id: expected(shot(4))})
