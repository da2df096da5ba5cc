"""What the rooms of the store do where hardly anybody comes, said so that each line is known to work."""

from __future__ import annotations

import errno
import json
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from store_kit import (
    Crash,
    bits,
    chunk,
    commit,
    edit,
    expected,
    f32,
    fingerprint,
    large,
    many,
    snapshot,
)
from torture_kit import Fault, disk

from mvc_callbacks import export, files, lineage, locks, reading, urls
from mvc_callbacks.canonical import digest_of, encode
from mvc_callbacks.errors import (
    CorruptHistory,
    CorruptObject,
    CorruptRecord,
    MissingObject,
    MVCError,
    MVCWarning,
    PrunedVersion,
    StoreLocked,
    UnknownRef,
    UnsafeFile,
    UnsupportedTensor,
)
from mvc_callbacks.locks import StoreLock
from mvc_callbacks.packs import SINGLE, pack_header
from mvc_callbacks.row_checks import check_row
from mvc_callbacks.rows import apply_event, row_of, version_of
from mvc_callbacks.snapshot import Snapshot
from mvc_callbacks.store import VersionStore
from mvc_callbacks.tensors import State, Tensor
from mvc_callbacks.writing import header_if_whole


def event(store: VersionStore, **fields: Any) -> str:
    """Write an event as another release, or a crash, may have left it."""
    return store._layout.events.write(fields)


# --- aliases ---


def test_an_alias_that_a_later_release_took_away_is_away_after_a_rebuild(store: VersionStore) -> None:
    first, second = commit(store, "base", 2)
    store.promote(first, "production")
    store.promote(second, "production")
    told = {"name": "production", "how": "remove", "why": "", "who": "somebody", "previous": second.id}
    event(store, event="alias", id=None, turn=3, time="2999-01-01T00:00:00.000000Z", **told)
    store.rebuild()
    assert store.aliases() == {}
    assert [move.id for move in store.alias_log("production")] == [first.id, second.id, None]
    assert store.verify().ok
    with pytest.raises(UnknownRef, match="no alias 'production'"):
        store.rollback("production")


def test_moves_in_another_order_than_they_were_made_are_told_by_verify(store: VersionStore) -> None:
    commit(store, "base", 2)
    for ref in ("base/1", "base/2", "base/1"):
        store.promote(ref, "production")

    def swap(value: Any) -> None:
        log = value["log"]
        log["1"], log["3"] = log["3"], log["1"]

    edit(store.path / "aliases.json", swap)
    assert any("no event says" in problem.text for problem in store.verify().problems)


def test_an_expected_version_that_is_no_longer_known_is_told_by_its_id(store: VersionStore) -> None:
    commit(store, "base", 1)
    commit(store, "gone", 1)
    store.promote("gone/1", "production")
    identity = store.get("gone/1").id
    store._layout.history.remove("gone")
    with pytest.raises(MVCError, match=f"points to {identity[:12]}, and base/1"):
        store.promote("base/1", "production", expect="base/1")


# --- refs ---


def test_best_of_a_metric_that_is_never_a_number_names_the_metrics_there_are(store: VersionStore) -> None:
    commit(store, "base", 1, metrics={"val_loss": float("nan"), "other": 1.0})
    with pytest.raises(UnknownRef, match="has the metric 'val_loss'; known metrics: other, val_loss"):
        store.get("best")


# --- rows ---

WRONG = {
    "notes": [{"id": "x"}],
    "flags": [1],
    "parents": ["x"],
    "data": {"train": "x"},
    "number": 0,
    "monitor": ["val_loss", "middle"],
}


@pytest.mark.parametrize("field", WRONG)
def test_a_row_with_a_field_of_a_wrong_type_is_no_row(store: VersionStore, field: str) -> None:
    version = commit(store, "base", 1, data={"train": fingerprint("a")})[0]
    row = row_of(version.id, store._layout.versions.read(version.id))
    check_row(row)
    assert version_of(row, None).id == version.id
    with pytest.raises(ValueError, match=rf"its ('{field}'|{field})"):
        check_row({**row, field: WRONG[field]})
    if field != "number":
        edit(chunk(store), lambda value: value["versions"]["1"].update({field: WRONG[field]}))
        with pytest.raises(CorruptHistory):
            store.versions()


def test_a_row_that_lacks_a_field_makes_no_version(store: VersionStore) -> None:
    version = commit(store, "base", 1)[0]
    row = row_of(version.id, store._layout.versions.read(version.id))
    del row["parents"]
    with pytest.raises(CorruptHistory, match="cannot be read"):
        version_of(row, None)


# --- commits ---


def test_a_tree_without_its_tensors_is_no_snapshot(store: VersionStore) -> None:
    run = store.open_run("base", framework="torch")
    with pytest.raises(ValueError, match="needs its tensors"):
        run.commit(Snapshot(State({"w": f32(1)}), tree={"a": 1}))
    assert run.commit(snapshot(1)).number == 2


def test_the_modules_additions_come_back_and_go_with_the_weights(store: VersionStore) -> None:
    shot = Snapshot(State({"w": f32(1)}), additions={"scale": 3})
    version, later = (store.open_run("base", framework="torch").commit(each) for each in (shot, snapshot(2)))
    assert store.additions(version) == {"scale": 3}
    assert store.additions(later) == {}
    assert store.verify(full=True).ok
    path = store._layout.objects.path_of(version.weights.additions or "", ".json")
    path.unlink()
    problem = store.verify().problems[0]
    assert (problem.kind, problem.tensors) == ("missing", ("the module's additions",))
    with pytest.raises(MissingObject):
        store.additions(version)
    store.prune(version.id)
    assert store.verify(full=True).ok
    with pytest.raises(PrunedVersion):
        store.additions(version.id)


def test_a_tree_that_is_too_large_to_be_one_is_refused_by_its_size(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = commit(store, "base", 1)[0]
    monkeypatch.setattr(reading, "_LARGEST_TREE", 10)
    with pytest.raises(CorruptObject, match="too many for a tree"):
        store.training_state(version)


def test_a_pending_fingerprint_that_is_told_later_is_believed(store: VersionStore) -> None:
    version = commit(store, "base", 1, data={"train": fingerprint("a", "pending")})[0]
    store.complete_fingerprint(version.id, "train", fingerprint("b"))
    assert store.get("base/1").data == {"train": fingerprint("b")}
    assert store.verify().ok
    before = store.get("base/1")
    shutil.rmtree(store.path / "history")
    store.rebuild()
    assert store.get("base/1").data == before.data


# --- folders with other names in them ---


def test_other_names_in_the_folders_of_a_store_are_nothing(store: VersionStore) -> None:
    commit(store, "base", 2)
    store.promote("base/1", "production")
    before = store.verify(full=True)
    for folder in ("objects", "manifests", "versions", "events", "runs"):
        (store.path / folder / ".DS_Store").write_bytes(b"x")
        (store.path / folder / "lost+found").mkdir()
        first = next(each for each in (store.path / folder).iterdir() if len(each.name) == 2)
        (first / "note.txt").write_bytes(b"x")
        (first / f"{'a' * 64}.tmp").write_bytes(b"x")
    assert store.verify(full=True) == before
    assert store.rebuild().problems == ()
    assert store.prune(keep_last=9).objects == 0
    assert len(store.versions()) == 2


# --- removals of what is damaged ---


def test_a_run_whose_records_are_gone_can_be_deleted(store: VersionStore) -> None:
    version = commit(store, "base", 1)[0]
    commit(store, "other", 1)
    store._layout.versions.path_of(version.id).unlink()
    store.delete_run("base")
    assert [each.run for each in store.versions()] == ["other"]
    assert store.verify(full=True).ok


def test_a_version_whose_manifest_is_gone_can_be_pruned(store: VersionStore) -> None:
    version, other = commit(store, "base", 2)
    record = store._layout.versions.read(version.id)
    for digest in (record["weights"]["digest"], record["training_state"]["digest"]):
        store._layout.manifests.path_of(digest).unlink()
    store.prune(version.id)
    assert not store.get(version.id).has_weights
    assert bits(store, other) == expected(snapshot(2))
    assert store.verify(full=True).ok


def test_a_patch_that_no_record_names_goes_although_a_run_record_is_missing(store: VersionStore) -> None:
    version = commit(store, "base", 1)[0]
    digest = store.put_patch(b"a patch")
    path = store._layout.objects.path_of(digest, ".patch")
    store._layout.runs.remove(store._layout.versions.read(version.id)["run"]["id"])
    os.utime(path, (0, 0))
    store.prune(keep_last=9)
    assert not path.exists()
    assert bits(store, version) == expected(snapshot(1))


# --- reading that fails ---


def test_an_object_that_the_disk_does_not_give_is_unreadable_and_stays(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(store, "base", 1)

    def refuse(path: Path) -> memoryview:
        raise OSError(errno.EIO, "the disk")

    monkeypatch.setattr(files, "map_file", refuse)
    for full in (False, True):
        kinds = {problem.kind for problem in store.verify(full=full).problems}
        assert kinds == {"unreadable"}
    monkeypatch.undo()
    assert store.verify(full=True).ok


def test_a_record_that_the_disk_does_not_give_is_a_problem_for_verify_and_stops_a_rebuild(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(store, "base", 1)
    store.promote("base/1", "production")
    real = files.read_file

    def refuse(path: Path, *, limit: int) -> bytes:
        if "events" in path.parts:
            raise OSError(errno.EIO, "the disk")
        return real(path, limit=limit)

    monkeypatch.setattr(files, "read_file", refuse)
    assert any("the disk" in problem.text for problem in store.verify().problems)
    with pytest.raises(OSError, match="the disk"):
        store.rebuild()
    monkeypatch.undo()
    assert store.verify().ok


def test_a_folder_of_records_that_is_a_link_is_told_by_verify(store: VersionStore, tmp_path: Path) -> None:
    version = commit(store, "base", 1)[0]
    folder = store._layout.versions.path_of(version.id).parent
    shutil.move(folder, tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    assert {problem.kind for problem in store.verify().problems} >= {"record"}


def test_a_record_of_another_kind_or_of_no_version_is_refused(store: VersionStore) -> None:
    commit(store, "base", 1)
    for told in ({"kind": "run", "format": 1}, {"kind": "version", "format": 1}):
        data = encode(told)
        digest = digest_of(data)
        path = store._layout.versions.path_of(digest)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    with pytest.raises(CorruptRecord):
        store._layout.versions.read(digest_of(encode({"kind": "run", "format": 1})))
    assert len(store.rebuild().problems) == 2
    assert len(store.versions()) == 1


def test_a_manifest_that_names_a_tensor_by_a_number_is_refused(store: VersionStore) -> None:
    version = commit(store, "base", 1)[0]
    edit(
        store._layout.manifests.path_of(version.weights.digest),
        lambda value: value["tensors"][0].update(name=1),
    )
    with pytest.raises(CorruptRecord, match="where text is expected"):
        store.tensors(version)


def test_the_entries_of_a_version_without_its_manifest_say_why(store: VersionStore) -> None:
    first, second = commit(store, "base", 2)
    store.prune(first.id)
    with pytest.raises(PrunedVersion):
        store.entries(first.id)
    store._layout.manifests.path_of(second.weights.digest).unlink()
    with pytest.raises(MissingObject):
        store.entries(second)


# --- locks ---


def test_a_lock_whose_holder_told_nothing_is_waited_for_all_the_same(tmp_path: Path) -> None:
    lock, other = StoreLock(tmp_path / "lock"), StoreLock(tmp_path / "lock", timeout=0.05)
    with lock("here"):
        (tmp_path / "lock").write_bytes(b"")
        with pytest.raises(StoreLocked, match="who holds it is not known"), other("there"):
            pass


def test_a_lock_that_the_disk_refuses_is_an_error_and_not_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = StoreLock(tmp_path / "lock")

    def refuse(descriptor: int) -> None:
        raise OSError(errno.EIO, "the disk")

    with monkeypatch.context() as patch:
        patch.setattr(locks, "_try_lock", refuse)
        with pytest.raises(OSError, match="the disk"), lock("here"):
            pass
    with lock("again") as works:
        assert works


def test_a_lock_in_a_folder_that_may_not_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), StoreLock(tmp_path / "missing" / "lock")("here"):
        pass


def test_a_lock_whose_file_goes_again_and_again_is_taken_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = StoreLock(tmp_path / "lock")
    real, taken = locks._try_lock, []

    def emptied(descriptor: int) -> None:
        real(descriptor)
        taken.append(descriptor)
        lock.path.unlink()

    monkeypatch.setattr(locks, "_try_lock", emptied)
    with lock("here") as works:
        assert works
    assert len(taken) == locks._TRIES


# --- files ---


def test_a_file_that_cannot_be_moved_aside_stays(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / "folder" / "in it").mkdir(parents=True)
    with pytest.raises(OSError):
        files.move(tmp_path / "a", tmp_path / "folder")
    assert not (tmp_path / "a").exists()  # a staged file that cannot be moved is removed
    (tmp_path / "b").write_bytes(b"x")
    with pytest.raises(OSError):
        files.rename(tmp_path / "b", tmp_path / "folder")
    assert (tmp_path / "b").exists()


# --- what is written for others ---


def test_a_folder_for_hugging_face_is_made_whole_or_not_at_all(tmp_path: Path) -> None:
    tensors = {"w": f32(1)}
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(UnsafeFile, match="name of a folder"):
        export.write_huggingface(tensors, tmp_path / "file", "card")
    with pytest.raises(FileNotFoundError):
        export.write_huggingface(tensors, tmp_path / "no" / "folder", "card")
    with pytest.raises(MVCError):
        export.write_huggingface({"__metadata__": f32(1)}, tmp_path / "new", "card")
    assert not (tmp_path / "new").exists()
    assert export.write_huggingface(tensors, tmp_path / "new", "card") > 0
    with pytest.raises(FileExistsError):
        export.write_huggingface(tensors, tmp_path / "new", "card")
    assert sorted(each.name for each in (tmp_path / "new").iterdir()) == ["README.md", "model.safetensors"]


def test_names_longer_than_safetensors_accepts_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "_LONGEST_HEADER", 100)
    with pytest.raises(UnsupportedTensor, match="more than safetensors accepts"):
        export.write_safetensors({"w" * 200: f32(1)}, tmp_path / "out.safetensors")
    assert list(tmp_path.iterdir()) == []


# --- where a model came from ---


class Part:
    def __init__(self, *parts: Part) -> None:
        self.parts = parts

    def state_dict(self) -> dict[str, int]:
        return {str(number): 0 for number in range(1 + sum(len(part.state_dict()) for part in self.parts))}

    def modules(self) -> list[Part]:
        return [self, *(each for part in self.parts for each in part.modules())]


def test_each_part_of_a_model_names_the_version_that_it_came_from() -> None:
    one, two, other = Part(), Part(), Part()
    whole = Part(one, two, other)
    assert lineage.parents(whole) == lineage.parents(object()) == ()
    for part, identity in ((one, "a" * 64), (two, "a" * 64), (other, "b" * 64)):
        lineage.remember(part, identity)
    found = {parent.id: (parent.how, parent.shared) for parent in lineage.parents(whole)}
    assert found == {"a" * 64: ("restore", "2/4"), "b" * 64: ("restore", "1/4")}
    lineage.remember(whole, "c" * 64)
    assert [parent.id for parent in lineage.parents(whole)] == ["c" * 64]
    lineage.forget(whole)
    assert lineage.parents(whole) == ()


def test_the_version_that_shares_most_tensors_is_the_parent(store: VersionStore) -> None:
    def telling(seed: int) -> Tensor:
        return f32(*(seed * 100 + place for place in range(64)))

    run = store.open_run("base", framework="torch")
    run.commit(Snapshot(State({"a": telling(1), "b": telling(2), "c": telling(3)})))
    commit(store, "other", 1)
    near = State({"a": telling(1), "b": telling(2), "c": telling(9)})
    parent = lineage.by_content(store, near)
    assert parent is not None
    assert (parent.id, parent.how, parent.shared) == (store.get("base/1").id, "content", "2/3")
    assert lineage.by_content(store, State({"x": telling(7)})) is None
    tied = telling(5)
    same = Snapshot(State({"x": tied, "y": tied}))
    version = store.open_run("tied", framework="torch").commit(same)
    parent = lineage.by_content(store, same.weights)
    assert parent is not None and (parent.id, parent.shared) == (version.id, "2/2")


# --- urls ---


@pytest.mark.skipif(os.name == "nt", reason="folders have other names there")
def test_a_url_of_two_slashes_is_below_the_working_folder() -> None:
    assert urls.parse("mvc://versions@latest") == (Path("versions").absolute(), "latest")


def test_threads_that_wait_for_one_lock_take_turns(tmp_path: Path) -> None:
    lock, order = StoreLock(tmp_path / "lock"), []

    def take(place: int) -> None:
        with lock(f"turn {place}"):
            order.append(place)
            order.append(place)

    threads = [threading.Thread(target=take, args=(place,)) for place in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert order[::2] == order[1::2]


# --- histories and rebuilds ---


def test_a_number_that_is_not_in_the_history_cannot_be_changed(store: VersionStore) -> None:
    commit(store, "base", 1)
    with pytest.raises(CorruptHistory, match="no version 9"):
        store._layout.history.update("base", [9], lambda row: None)


def test_a_run_that_is_healed_leaves_the_others_alone(store: VersionStore) -> None:
    commit(store, "other", 2)
    run = store.open_run("base", framework="torch")
    run.commit(snapshot(1))
    before = chunk(store, "other").read_bytes()
    chunk(store).write_bytes(b"")
    with pytest.warns(MVCWarning, match="made again"):
        run.commit(snapshot(2))
    assert chunk(store, "other").read_bytes() == before
    assert [version.number for version in store.versions("base")] == [1, 2]


def test_a_run_that_has_lost_its_records_and_its_history_goes_on(store: VersionStore) -> None:
    run = store.open_run("base", framework="torch")
    first = run.commit(snapshot(1))
    store._layout.versions.path_of(first.id).unlink()
    chunk(store).write_bytes(b"damaged")
    with pytest.warns(MVCWarning, match="made again"):
        second = run.commit(snapshot(2))
    assert chunk(store).with_name("0001.json.damaged").read_bytes() == b"damaged"
    assert bits(store, second) == expected(snapshot(2))


def test_an_event_that_says_nothing_new_changes_nothing(store: VersionStore) -> None:
    version = commit(store, "base", 1)[0]
    row = row_of(version.id, store._layout.versions.read(version.id))
    later = [
        {"event": "prune", "what": "state", "time": "1", "policy": "a"},
        {"event": "evaluation", "time": "1", "kind_of": "test", "metrics": {}, "data": {}},
        {"event": "note", "time": "1", "text": "a", "who": "b"},
        {"event": "fingerprint", "name": "train", "fingerprint": {}},
    ]
    for told in later:
        apply_event(row, "e" * 64, told)
    once = json.dumps(row)
    for told in (*later, {"event": "of a later release"}):
        apply_event(row, "e" * 64, told)
    assert json.dumps(row) == once


@pytest.mark.parametrize("writable", [True, False])
def test_a_store_that_is_pruned_all_the_time_is_verified_in_the_end(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch, writable: bool
) -> None:
    """Once more under the lock; who may not take it looks a few times."""
    version = commit(store, "base", 1)[0]
    store._layout.objects.path_of(
        store._layout.manifests.read(version.weights.digest).entries[0].object
    ).unlink()
    looked = []

    def move(done: int, of: int) -> None:
        if done == of:
            looked.append(done)
            store._layout.new_epoch()

    def refuse() -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    if not writable:
        monkeypatch.setattr(store._layout, "make_staging", refuse)
    report = store.verify(progress=move)
    assert len(looked) == (1 if writable else 3)
    assert [problem.kind for problem in report.problems] == ["missing"]


def test_who_may_not_take_the_lock_is_told_of_damage_after_one_look(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(store, "base", 1)
    next((store.path / "objects").rglob("*.safetensors")).unlink()

    def refuse() -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(store._layout, "make_staging", refuse)
    looked: list[int] = []
    report = store.verify(progress=lambda done, of: looked.append(done))
    assert looked.count(1) == 1
    assert [problem.kind for problem in report.problems] == ["missing"]


def test_a_dry_run_tells_what_a_sweep_would_free(store: VersionStore) -> None:
    commit(store, "base", 2)
    digest = store.put_patch(b"a patch that nobody names")
    os.utime(store._layout.objects.path_of(digest, ".patch"), (0, 0))
    plan = store.prune(keep_last=1, dry_run=True)
    done = store.prune(keep_last=1)
    assert (plan.versions, plan.objects, plan.freed_bytes) == (done.versions, done.objects, done.freed_bytes)
    assert plan.objects > 1


def test_a_save_whose_record_is_there_already_writes_it_once(store: VersionStore) -> None:
    commit(store, "base", 1)
    fields = {"event": "note", "versions": [], "text": "a", "who": "b", "time": "1"}
    assert event(store, **fields) == event(store, **fields)


def test_data_without_a_listing_of_files_can_be_given_to_a_commit(store: VersionStore) -> None:
    numpy = pytest.importorskip("numpy")
    torch = pytest.importorskip("torch")
    version = store.commit({"w": torch.ones(1)}, data=numpy.ones(3))
    assert version.data["train"].digest
    assert version.data["train"].listing is None


def test_an_evaluation_is_told_as_plain_values(store: VersionStore) -> None:
    commit(store, "base", 1)
    version = store.evaluate("base/1", "test", {"accuracy": 0.5}, {"test": fingerprint("a")})
    told = json.loads(json.dumps(version.evaluations[0].to_dict()))
    assert told["metrics"] == {"accuracy": 0.5}


# --- what a stranger may have written ---

STRANGE = [
    {"event": "evaluation", "kind_of": "test", "metrics": {}, "data": {"test": "text"}},
    {"event": "evaluation", "kind_of": "test", "metrics": {}, "data": {"test": None}},
    {"event": "evaluation", "kind_of": "test", "metrics": {}, "data": {"test": {"digest": 1}}},
    {"event": "fingerprint", "name": "train", "fingerprint": {"coverage": 1}},
]


@pytest.mark.parametrize("told", STRANGE, ids=lambda told: str(sorted(told.items())[1]))
def test_an_event_that_makes_no_row_is_told_and_left_out_by_a_rebuild(
    store: VersionStore, told: dict[str, Any]
) -> None:
    version = commit(store, "base", 1, data={"train": fingerprint("a", "pending")})[0]
    identity = event(store, versions=[version.id], time="2026-01-01T00:00:00Z", **told)
    before = store.versions()
    for _ in range(2):
        problems = store.rebuild().problems
        assert len(problems) == 1 and identity in problems[0]
        assert store.versions() == before
    assert store.verify(full=True).ok


def test_a_file_of_one_tensor_and_others_is_no_object(store: VersionStore) -> None:
    header, ordered = pack_header([(SINGLE, f32(1)), ("b" * 64, f32(2))])
    data = header + b"".join(bytes(tensor.data) for _, tensor in ordered)
    commit(store, "base", 1)
    path = store._layout.objects.path_of(digest_of(data))
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    assert header_if_whole(store._layout, digest_of(data)) is None


# --- what hardly happens ---


def test_equal_large_tensors_are_written_once(store: VersionStore) -> None:
    shot = Snapshot(State({"a": large(1), "b": large(1)}))
    version = store.open_run("base", framework="torch").commit(shot)
    assert len(list((store.path / "objects").glob("*/*"))) == 1
    assert bits(store, version) == expected(shot)


def test_a_save_tells_how_far_it_is(store: VersionStore) -> None:
    run = store.open_run("base", framework="torch")
    run.commit(snapshot(1))
    done, whole = run.progress
    assert 0 <= done <= whole


def test_small_chunks_are_put_together_and_large_ones_are_not_copied() -> None:
    big = bytes(files._SMALL)
    for chunks in ([b"a", big, big, b"b", b"c"], [bytes(files._SMALL - 1)] * 9, [big], [b"a"], []):
        told = list(files.gathered(chunks))
        assert b"".join(map(bytes, told)) == b"".join(chunks)
        assert sum(each is big for each in told) == sum(each is big for each in chunks)


def test_an_error_of_the_disk_when_a_file_is_opened_is_that_error(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    with disk(Fault(1, errno.EIO, kinds=frozenset({"open"}))), pytest.raises(OSError) as caught:
        files.read_file(tmp_path / "a", limit=10)
    assert caught.value.errno == errno.EIO


def test_a_store_that_another_makes_meanwhile_is_not_made_again(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(store, "base", 1)
    before = store.identity
    layout = VersionStore(store.path)._layout
    told = [False, True]
    monkeypatch.setattr(layout, "exists", lambda: told.pop(0))
    layout.open_for_writing()
    assert told == []
    assert store.identity == before


def test_many_small_tensors_are_checked_in_batches(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = store.open_run("base", framework="torch").commit(many(1))
    monkeypatch.setattr(reading, "_BATCH_BYTES", 8)
    told: list[tuple[int, int]] = []
    read = store.tensors(version, progress=lambda done, of: told.append((done, of)))
    assert {name: bytes(tensor.data) for name, tensor in read.items()} == expected(many(1))
    assert told[-1][0] == told[-1][1] > 0


def test_a_record_with_additions_and_no_state_that_a_crash_left_is_adopted(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = store.open_run("base", framework="torch")
    with pytest.raises(Crash), monkeypatch.context() as patch:
        patch.setattr(type(run), "_append", lambda *_: (_ for _ in ()).throw(Crash))
        run.commit(Snapshot(State({"w": f32(1)}), additions={"scale": 3}))
    assert store.versions() == []
    store.rebuild()
    assert store.additions("base/1") == {"scale": 3}


@pytest.mark.parametrize("told", [None, 1, "../../elsewhere", "/tmp", ""], ids=repr)
def test_a_store_whose_name_for_caches_is_no_uuid_is_refused(store: VersionStore, told: object) -> None:
    commit(store, "base", 1)
    edit(store.path / "format.json", lambda value: value.update(store=told))
    with pytest.raises(CorruptRecord, match="no uuid"):
        VersionStore(store.path).versions()


def test_nothing_is_pruned_while_a_row_names_what_is_no_digest(store: VersionStore) -> None:
    commit(store, "base", 2)
    edit(chunk(store), lambda value: value["versions"]["1"].update(id="not hex"))
    for dry_run in (True, False):
        with pytest.raises(CorruptHistory, match="mvc rebuild"):
            store.prune(keep_last=1, dry_run=dry_run)
    store.rebuild()
    assert store.verify(full=True).ok
