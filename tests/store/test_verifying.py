"""Promises of verifying and reading: what is damaged is named with what it hurts, and never believed."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from store_kit import bits, chunk, commit, edit, expected, f32, large, many, objects, snapshot

from mvc_callbacks.errors import (
    CorruptObject,
    CorruptRecord,
    MissingObject,
    MVCError,
    UnsafeFile,
    UnsupportedFormat,
)
from mvc_callbacks.rows import row_of
from mvc_callbacks.snapshot import Snapshot
from mvc_callbacks.store import VersionStore
from mvc_callbacks.tensors import State, weights_digest
from mvc_callbacks.versions import Fingerprint, Version


def object_of(store: VersionStore, version: Version, name: str) -> Path:
    manifest = store._layout.manifests.read(version.weights.digest)
    place = next(entry.object for entry in manifest.entries if entry.name == name)
    return store._layout.objects.path_of(place)


def three(store: VersionStore) -> list[Version]:
    """Two versions of one run share their frozen parameters with one of another; one has others."""
    run = store.open_run("base", framework="torch")
    versions = [run.commit(snapshot(1, more={"big": large(1)})), run.commit(snapshot(2))]
    other = store.open_run("other", framework="torch")
    return [*versions, other.commit(Snapshot(State({"w": f32(1)})))]


def test_a_store_without_damage_is_fine(store: VersionStore) -> None:
    three(store)
    store.promote("latest", "production")
    quick, full = store.verify(), store.verify(full=True)
    assert quick.ok
    assert full.ok
    assert quick.versions == full.versions == 3
    assert quick.objects == full.objects == len(objects(store))
    assert (quick.bytes, full.bytes) == (0, sum(objects(store).values()))
    assert full.to_dict()["ok"] is True


def flip(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


CHANGES: dict[str, Callable[[bytes], bytes]] = {
    "15_flipped_bit": flip,
    "17_truncated": lambda data: data[:-1],
    "17_zeroed": lambda data: bytes(len(data)),
    "17_empty": lambda data: b"",
    "24_pickle": lambda data: pickle.dumps({"tensor": [1, 2]}),
    "21_header_of_2_63": lambda data: (2**63).to_bytes(8, "little") + data[8:],
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("tensor", ["frozen", "big"])
def test_bad_input_15_17_21_24_damage_names_the_versions_that_it_hurts_and_the_file_is_kept(
    store: VersionStore, name: str, tensor: str
) -> None:
    first, second, other = three(store)
    path = object_of(store, first, tensor)
    damaged = CHANGES[name](path.read_bytes())
    path.write_bytes(damaged)
    with pytest.raises(CorruptObject) as caught:
        store.tensors(first)
    assert str(path) in str(caught.value)
    assert "base/1" in str(caught.value)
    assert ("base/2" in str(caught.value)) == (tensor == "frozen")
    assert "other/1" not in str(caught.value)
    assert path.read_bytes() == damaged
    assert bits(store, other) == {"w": bytes(f32(1).data)}
    if tensor == "big":
        assert bits(store, second) == expected(snapshot(2))
    if name != "15_flipped_bit":  # without reading every byte
        assert [problem.kind for problem in store.verify().problems] == ["damaged"]
    report = store.verify(full=True)
    assert [problem.kind for problem in report.problems] == ["damaged"]
    hurt = {first.id, second.id} if tensor == "frozen" else {first.id}
    assert set(report.problems[0].versions) == hurt
    assert report.problems[0].tensors == (tensor,)
    assert path.with_name(f"{path.name}.damaged").read_bytes() == damaged
    assert not path.exists()
    commit_again(store)
    assert bits(store, first) == expected(snapshot(1, more={"big": large(1)}))
    assert store.verify(full=True).ok


def commit_again(store: VersionStore) -> None:
    VersionStore(store.path).open_run("again", framework="torch").commit(snapshot(1, more={"big": large(1)}))


@pytest.mark.parametrize("name", [name for name in CHANGES if name != "15_flipped_bit"])
@pytest.mark.parametrize("tensor", ["frozen", "big"])
@pytest.mark.parametrize("same_run", [True, False])
def test_bad_input_17_the_next_save_of_a_cut_or_zeroed_tensor_heals_it(
    store: VersionStore, name: str, tensor: str, same_run: bool
) -> None:
    shot = snapshot(1, more={"big": large(1)})
    run = store.open_run("base", framework="torch")
    version = run.commit(shot)
    path = object_of(store, version, tensor)
    path.write_bytes(CHANGES[name](path.read_bytes()))
    run = run if same_run else VersionStore(store.path).open_run("next", framework="torch")
    other = snapshot(2, more={"big": large(1)})
    assert bits(store, run.commit(other)) == expected(other)
    assert bits(store, run.commit(shot)) == bits(store, version) == expected(shot)
    assert store.verify(full=True).ok


def test_bad_input_16_a_missing_object_hurts_only_its_own_versions(store: VersionStore) -> None:
    first, second, _ = three(store)
    object_of(store, first, "w").unlink()
    with pytest.raises(MissingObject, match="it hurts base/1; other"):
        store.tensors(first)
    assert bits(store, second) == expected(snapshot(2))
    problems = store.verify().problems
    assert [(problem.kind, problem.versions) for problem in problems] == [("missing", (first.id,))]
    assert set(problems[0].tensors) == {"w", "b"}
    commit_again(store)
    assert store.verify(full=True).ok
    assert bits(store, first) == expected(snapshot(1, more={"big": large(1)}))


@pytest.mark.parametrize("kind", ["link", "fifo", "folder", "device"])
def test_bad_input_18_an_object_that_is_no_file_is_refused_without_waiting(
    store: VersionStore, tmp_path: Path, kind: str
) -> None:
    first, second, _ = three(store)
    path = object_of(store, first, "w")
    shutil.move(path, tmp_path / "elsewhere")
    if kind == "link":
        path.symlink_to(tmp_path / "elsewhere")
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(UnsafeFile):
        store.tensors(first)
    assert not store.verify().ok
    assert not store.verify(full=True).ok
    assert bits(store, second) == expected(snapshot(2))


def test_bad_input_19_a_digest_that_leads_out_of_the_store_is_refused(store: VersionStore) -> None:
    version = commit(store, "base", 1)[0]
    path = store._layout.manifests.path_of(version.weights.digest)

    def lead_out(value: Any) -> None:
        value["objects"][0] = "../" * 20 + "etc/passwd"

    edit(path, lead_out)
    with pytest.raises(CorruptRecord):
        store.tensors(version)
    for ask in (store.listing, store.patch):
        with pytest.raises(MVCError):
            ask("../../secret")


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value["tensors"][0].update(shape=[7]),
        lambda value: value["tensors"][0].update(dtype="I32"),
        lambda value: value["tensors"][0].update(dtype="F31"),
        lambda value: value["tensors"][0].update(name="other"),
        lambda value: value["tensors"][0].update(shape=[-1]),
        lambda value: value["tensors"][0].update(shape=[True]),
        lambda value: value["tensors"][0].update(shape=[2**70]),
        lambda value: value["tensors"].append(value["tensors"][0]),
        lambda value: value["tensors"].pop(),
        lambda value: value["tensors"].__setitem__(0, 7),
        lambda value: value["tensors"][0].update(digest="x"),
        lambda value: value["tensors"][0].update(parts=[{"in": -1}]),
        lambda value: value["tensors"][0].update(parts=[{"in": 99}]),
        lambda value: value.update(tensors=None),
        lambda value: value.update(kind="version"),
        lambda value: value.update(base="f" * 63),
        lambda value: [],
    ],
)
def test_bad_input_23_a_manifest_that_lies_is_refused(
    store: VersionStore, change: Callable[[Any], Any]
) -> None:
    version = commit(store, "base", 1)[0]
    edit(store._layout.manifests.path_of(version.weights.digest), change)
    with pytest.raises(CorruptRecord, match="manifests"):
        store.tensors(version)
    assert [problem.kind for problem in store.verify().problems] == ["damaged"]
    VersionStore(store.path).open_run("next", framework="torch").commit(snapshot(1))
    assert bits(store, version) == expected(snapshot(1))


def test_bad_input_23_a_manifest_that_sends_to_another_tensors_object_is_refused(store: VersionStore) -> None:
    version = commit(store, "base", 1)[0]

    def swap(value: Any) -> None:
        value["objects"].reverse()

    edit(store._layout.manifests.path_of(version.weights.digest), swap)
    with pytest.raises(CorruptObject, match="does not hold the tensor"):
        store.tensors(version)


def test_several_parts_to_a_tensor_are_of_a_newer_release(store: VersionStore) -> None:
    version = commit(store, "base", 1)[0]
    path = store._layout.manifests.path_of(version.weights.digest)
    edit(path, lambda value: value["tensors"][0].update(parts=[{"in": 0}, {"in": 1}]))
    with pytest.raises(UnsupportedFormat, match="upgrade"):
        store.tensors(version)


def test_a_pack_with_a_key_that_lies_is_refused_though_its_name_is_right(store: VersionStore) -> None:
    """An attacker who may write the store can give a pack the right name; the tensor digests still tell."""
    version = commit(store, "base", 1)[0]
    path = object_of(store, version, "w")
    data = path.read_bytes()
    evil = data[:-4] + b"\0\0\0\0"
    digest = hashlib.sha256(evil).hexdigest()
    target = store._layout.objects.path_of(digest)
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(evil)
    manifest = store._layout.manifests.path_of(version.weights.digest)
    manifest.write_text(manifest.read_text().replace(path.stem, digest))
    with pytest.raises(CorruptObject, match="not what its key says"):
        store.tensors(version)
    assert any(problem.kind == "damaged" for problem in store.verify(full=True).problems)


def test_bad_input_25_a_read_only_file_is_hashed_too(store: VersionStore) -> None:
    first = three(store)[0]
    path = object_of(store, first, "w")
    path.write_bytes(flip(path.read_bytes()))
    path.chmod(0o444)
    with pytest.raises(CorruptObject):
        store.tensors(first)


def test_without_verifying_a_flipped_bit_is_not_looked_for(store: VersionStore) -> None:
    first = three(store)[0]
    path = object_of(store, first, "w")
    path.write_bytes(flip(path.read_bytes()))
    assert store.tensors(first, verify=False).keys() == expected(snapshot(1, more={"big": large(1)})).keys()


def test_a_damaged_training_state_does_not_hurt_the_weights(store: VersionStore) -> None:
    version = commit(store, "base", 1)[0]
    assert version.training_state is not None
    path = store._layout.objects.path_of(version.training_state.tree, ".json")
    path.write_bytes(path.read_bytes().replace(b"1", b"2"))
    with pytest.raises(CorruptObject):
        store.training_state(version)
    assert bits(store, version) == expected(snapshot(1))
    problem = store.verify(full=True).problems[0]
    assert problem.tensors == ("training state",)
    with pytest.raises(MissingObject):
        store.training_state(version)


def test_a_missing_or_changed_record_is_reported(store: VersionStore) -> None:
    first, second = commit(store, "base", 2)
    path = store._layout.versions.path_of(first.id)
    path.write_bytes(path.read_bytes() + b" ")
    store._layout.versions.path_of(second.id).unlink()
    kinds = [(problem.kind, problem.versions) for problem in store.verify().problems]
    assert kinds == sorted([("record", (first.id,)), ("record", (second.id,))], key=lambda each: each[1])


def test_a_missing_run_record_is_reported_and_the_weights_are_read(store: VersionStore) -> None:
    version = commit(store, "base", 1)[0]
    next((store.path / "runs").glob("*/*.json")).unlink()
    assert [problem.kind for problem in store.verify().problems] == ["missing"]
    there = VersionStore(store.path)
    assert bits(there, version) == expected(snapshot(1))
    assert there.get("latest").environment == {}
    assert [run.base for run in there.runs()] == ["base"]


def test_a_missing_listing_and_patch_are_reported(store: VersionStore) -> None:
    listing, patch = store.put_listing([b"one\n"]), store.put_patch(b"patch")
    run = store.open_run("base", framework="torch", record={"code": {"patch": patch}})
    run.commit(snapshot(1), data={"train": Fingerprint("a" * 64, "files", listing=listing)})
    for path in (*(store.path / "objects").glob("*/*.jsonl"), *(store.path / "objects").glob("*/*.patch")):
        path.unlink()
    assert [problem.tensors for problem in store.verify().problems] in (
        [("data listing",), ("code patch",)],
        [("code patch",), ("data listing",)],
    )


def test_an_alias_that_leads_nowhere_is_reported(store: VersionStore) -> None:
    commit(store, "base", 1)
    store.promote("latest", "production")
    edit(store.path / "aliases.json", lambda value: value["aliases"]["1"].update(id="f" * 64))
    assert "lineage" in {problem.kind for problem in store.verify().problems}


def test_a_damaged_object_that_cannot_be_moved_aside_is_reported_and_stays(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = three(store)[0]
    path = object_of(store, first, "w")
    path.write_bytes(flip(path.read_bytes()))

    def refuse(*args: object) -> None:
        raise PermissionError(13, "read-only")

    monkeypatch.setattr(os, "replace", refuse)
    problem = store.verify(full=True).problems[0]
    assert "could not be moved aside" in problem.text
    assert path.exists()


def test_what_a_prune_takes_while_verify_looks_is_not_missing(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(store, "base", 3)
    there = VersionStore(store.path)
    real = there._layout.events.all
    done = []

    def prune_first(problems: list[str]) -> Any:
        if not done:
            done.append(store.prune("base/1"))
        return real(problems)

    monkeypatch.setattr(there._layout.events, "all", prune_first)
    assert there.verify(full=True).ok
    assert done


def test_progress_is_told(store: VersionStore) -> None:
    three(store)
    told: list[tuple[int, int]] = []
    store.verify(full=True, progress=lambda done, of: told.append((done, of)))
    assert told == [(place, len(told)) for place in range(1, len(told) + 1)]


def test_each_flipped_byte_of_a_small_store_is_detected_or_harmless(store: VersionStore) -> None:
    """Answers are the same as before, or an error of the package says that something is wrong."""
    version = store.open_run("r", framework="torch").commit(
        Snapshot(State({"w": f32(1)})), metrics={"m": 1.0}
    )
    want = (repr(version), bits(store, version))
    for path in sorted(path for path in store.path.rglob("*") if path.is_file() and path.name != "lock"):
        data = path.read_bytes()
        for at in range(0, len(data), 7):
            path.write_bytes(data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :])
            there = VersionStore(store.path)
            try:
                found = there.get("latest")
                got = (repr(found), bits(there, found))
            except MVCError:
                continue
            assert got == want, (path, at)
        path.write_bytes(data)
    assert VersionStore(store.path).verify(full=True).ok


def test_a_base_manifest_that_is_gone_is_reported_for_all_that_refer_to_it(store: VersionStore) -> None:
    run = store.open_run("base", framework="torch")
    versions = [run.commit(many(number)) for number in range(3)]
    store._layout.manifests.path_of(versions[0].weights.digest).unlink()
    report = store.verify()
    assert {identity for problem in report.problems for identity in problem.versions} == {
        version.id for version in versions
    }
    run.commit(many(0))
    assert store.verify(full=True).ok


def test_json_of_a_report_is_plain(store: VersionStore) -> None:
    first = three(store)[0]
    object_of(store, first, "w").unlink()
    assert json.loads(json.dumps(store.verify().to_dict()))["problems"][0]["kind"] == "missing"
    assert chunk(store).exists()


def point_elsewhere(told: dict[str, Any]) -> None:
    """Let a manifest look for what trains in the pack of another group."""
    for each in told["tensors"]:
        if each["name"] in ("w", "b"):
            each["parts"] = [{"in": (each["parts"][0]["in"] + 1) % len(told["objects"])}]


def test_a_manifest_that_looks_for_a_tensor_where_it_is_not_is_told_and_healed(store: VersionStore) -> None:
    """Where a tensor lies is no part of a weights digest: a stranger, or a flipped digit, may lie."""
    first, second, _ = three(store)
    edit(store._layout.manifests.path_of(first.weights.digest), point_elsewhere)
    with pytest.raises(CorruptObject, match="does not hold the tensor"):
        store.tensors(first)
    before = objects(store)
    for full in (False, True):
        (problem,) = store.verify(full=full).problems
        assert (problem.kind, problem.what) == ("damaged", f"manifests/{first.weights.digest}")
        assert problem.versions == (first.id,)
        assert problem.tensors == ("w", "b")
        assert "saving the same tensors again heals it" in problem.text
    assert objects(store) == before  # the packs are what they should be
    assert bits(store, second) == expected(snapshot(2))
    commit_again(store)
    assert bits(store, first) == expected(snapshot(1, more={"big": large(1)}))
    assert store.verify(full=True).ok


def test_a_save_beside_a_prune_relies_on_no_manifest_that_looks_where_its_tensors_are_not(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A prune went on meanwhile, so everything is looked at again before the version counts."""
    commit(store, "base", 2)
    run = store.open_run("more", framework="torch")
    write = run._write_record

    def meanwhile(*args: Any) -> Any:
        told = write(*args)
        monkeypatch.undo()
        edit(store._layout.manifests.path_of(told[1]["weights"]["digest"]), point_elsewhere)
        VersionStore(store.path).prune("base/1")
        return told

    monkeypatch.setattr(run, "_write_record", meanwhile)
    version = run.commit(snapshot(5))
    assert bits(store, version) == expected(snapshot(5))


def test_a_manifest_that_tells_another_form_hurts_nobody_else(store: VersionStore) -> None:
    """A stranger's manifest agrees with its own digest, and takes floats of a pack for whole numbers."""
    first, second, _ = three(store)
    layout = store._layout
    told = layout.manifests.read(first.weights.digest)
    entries = tuple(replace(each, dtype="I32") if each.name == "frozen" else each for each in told.entries)
    digest = weights_digest((each.name, each.dtype, each.shape, each.digest) for each in entries)
    layout.manifests.write(replace(told, digest=digest, entries=entries))
    record = {**layout.versions.read(first.id), "number": 3, "sequence": 9}
    record["weights"] = {**record["weights"], "digest": digest}
    strange = layout.versions.write(record)
    layout.history.append("base", row_of(strange, layout.versions.read(strange)))
    with pytest.raises(CorruptObject, match="the manifest says I32"):
        store.tensors(strange)
    for full in (False, True):
        (problem,) = store.verify(full=full).problems
        assert (problem.kind, problem.what) == ("damaged", f"manifests/{digest}")
        assert (problem.versions, problem.tensors) == ((strange,), ("frozen",))
    assert bits(store, first) == expected(snapshot(1, more={"big": large(1)}))
    assert bits(store, second) == expected(snapshot(2))
