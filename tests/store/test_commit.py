"""Promises of saving: complete or not there, stored once, and in order."""

from __future__ import annotations

import contextlib
import copy
import errno
import json
import math
import os
import pickle
import shutil
import struct
import subprocess
import threading
import time
from pathlib import Path
from typing import Literal

import pytest
from safetensors.numpy import load as stock_load
from store_kit import (
    LOSS,
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
from mvc_callbacks import manifests, records, writing
from mvc_callbacks import objects as objects_module
from mvc_callbacks import store as store_module
from mvc_callbacks.errors import MVCError, SaveFailed, UnsafeFile
from mvc_callbacks.snapshot import Snapshot
from mvc_callbacks.store import VersionStore
from mvc_callbacks.tensors import State, Tensor
from mvc_callbacks.versions import Parent


def test_bad_input_38_a_version_says_what_it_was_given(store: VersionStore) -> None:
    run = store.open_run(
        "base", framework="torch", record={"code": {"commit": "c"}, "environment": {"os": "x"}}
    )
    first = run.commit(snapshot(1))
    version = run.commit(
        snapshot(2),
        epoch=3,
        step=40,
        metrics={"val_loss": 0.5, "nan": math.nan, "inf": -math.inf},
        monitor=LOSS,
        parents=(Parent(first.id, "content", "2/4"),),
        hyperparameters={"given": {"lr": 0.1}},
        data={"train": fingerprint("a")},
        flags=("chosen",),
        facts={"note": "text"},
    )
    again = VersionStore(store.path).get(version.id)
    assert (again.run, again.number, again.epoch, again.step) == ("base", 2, 3, 40)
    assert again.metrics["val_loss"] == 0.5
    assert math.isnan(again.metrics["nan"])
    assert again.metrics["inf"] == -math.inf
    assert again.monitor == LOSS
    assert again.parents == (Parent(first.id, "content", "2/4"),)
    assert again.hyperparameters == {"lr": 0.1}
    assert again.data == {"train": fingerprint("a")}
    assert again.flags == ("chosen",)
    assert again.details.record["note"] == "text"
    assert again.code == {"commit": "c"}
    assert again.environment == {"os": "x"}
    assert (again.weights.tensors, again.weights.bytes) == (4, 28)
    assert again.has_weights
    assert again.has_training_state
    assert repr(again) == repr(version)


def test_the_same_bits_come_back_in_another_store_object(store: VersionStore) -> None:
    version = commit(store, "base", 3)[1]
    there = VersionStore(store.path)
    assert bits(there, version.id) == expected(snapshot(2))
    tree, tensors = there.training_state(version.id)
    assert tree == {"momentum": {"$tensor": "momentum"}, "step": 2}
    assert bytes(tensors["momentum"].data) == struct.pack("<2f", 4, 2)


def test_every_object_has_the_name_that_sha256sum_gives_it(store: VersionStore) -> None:
    commit(store, "base", 3)
    store.put_listing([b"a\n", b"b\n"])
    store.put_patch(b"diff")
    store.open_run("big", framework="torch").commit(snapshot(1, more={"big": large(1)}))
    paths = sorted((store.path / "objects").glob("*/*"))
    assert len(paths) > 8
    for line in subprocess.check_output(["sha256sum", *paths], text=True).splitlines():
        digest, _, path = line.partition("  ")
        assert Path(path).name.split(".")[0] == digest
        assert Path(path).parent.name == digest[:2]


def test_every_record_has_the_name_that_sha256sum_gives_it(store: VersionStore) -> None:
    commit(store, "base", 2)
    store.promote("latest", "production")
    paths = [path for kind in ("versions", "runs", "events") for path in (store.path / kind).glob("*/*.json")]
    assert len(paths) == 4
    for line in subprocess.check_output(["sha256sum", *paths], text=True).splitlines():
        digest, _, path = line.partition("  ")
        assert Path(path).stem == digest


def test_stock_safetensors_opens_every_tensor_object(store: VersionStore) -> None:
    commit(store, "base", 2)
    store.open_run("big", framework="torch").commit(snapshot(1, more={"big": large(1)}))
    found = set()
    for path in (store.path / "objects").glob("*/*.safetensors"):
        for key, array in stock_load(path.read_bytes()).items():
            found.add(key if key != "tensor" else path.stem)
            assert array.dtype == "float32"
    wanted = {digest for version in store.versions() for _, _, digest in store.entries(version).values()}
    assert wanted <= found
    assert large(1).digest() in found


def test_what_did_not_change_is_stored_once(store: VersionStore) -> None:
    run = store.open_run("base", framework="torch")
    run.commit(snapshot(1, state=False, more={"big": large(1)}))
    before = objects(store)
    assert f"{large(1).digest()}.safetensors" in before
    second = run.commit(snapshot(2, state=False, more={"big": large(1)}))
    new = objects(store).keys() - before.keys()
    assert len(new) == 1  # the pack of what trains
    assert second.weights.stored_bytes == objects(store)[new.pop()] < 1000
    third = run.commit(snapshot(2, state=False, more={"big": large(1), "other": large(2)}))
    assert third.weights.stored_bytes > large(2).nbytes
    assert f"{large(2).digest()}.safetensors" in objects(store)


def test_frozen_parameters_and_buffers_have_packs_of_the_same_name_in_every_run(store: VersionStore) -> None:
    one = commit(store, "one", 2)
    before = objects(store)
    two = store.open_run("two", framework="torch").commit(snapshot(9, state=False))
    assert len(objects(store).keys() - before.keys()) == 1
    places = [
        {entry.name: entry.object for entry in store._layout.manifests.read(each.weights.digest).entries}
        for each in (*one, two)
    ]
    for name in ("frozen", "buffer"):
        assert len({each[name] for each in places}) == 1
    assert len({each["w"] for each in places}) == 3
    assert places[0]["frozen"] != places[0]["buffer"] != places[0]["w"]


def test_the_same_weights_in_another_run_cost_nothing(store: VersionStore) -> None:
    first = commit(store, "one", 1)[0]
    before = objects(store)
    second = commit(store, "two", 1)[0]
    assert objects(store) == before
    assert second.weights.stored_bytes == 0
    assert second.weights.digest == first.weights.digest
    assert second.id != first.id


def test_a_small_tensor_that_the_last_version_holds_is_referred_to_there(store: VersionStore) -> None:
    run = store.open_run("base", framework="torch")
    run.commit(many(1))
    version = run.commit(many(2))
    assert version.weights.stored_bytes < 200
    run.commit(many(1, 61))
    assert bits(store, "base/2") == expected(many(2))
    assert bits(store, "base/3") == expected(many(1, 61))


def test_a_pack_of_which_little_is_of_use_is_not_held_by_what_did_not_change(store: VersionStore) -> None:
    run = store.open_run("base", framework="torch")

    def shot(seed: float) -> Snapshot:
        return Snapshot(State({"moments": f32(*[seed] * 1000), "constant": f32(7)}))

    run.commit(shot(1))
    second = run.commit(shot(2))
    twin = VersionStore(store.path).open_run("twin", framework="torch").commit(shot(2))
    assert twin.weights.stored_bytes == 0
    store.prune("base/1")
    assert len(objects(store)) == 1
    assert bits(store, second) == bits(store, twin) == expected(shot(2))
    assert store.verify(full=True).ok


def test_what_lies_elsewhere_in_other_packs_is_not_kept_a_second_time(store: VersionStore) -> None:
    run = store.open_run("base", framework="torch")
    run.commit(many(1))
    run.commit(many(2))  # of two packs
    before = objects(store)
    twin = store.open_run("twin", framework="torch").commit(many(2))  # would have one
    assert objects(store) == before
    assert twin.weights.stored_bytes == 0
    assert list((store.path / "tmp").glob("*.staged")) == []
    assert bits(store, twin) == expected(many(2))


def test_segments_with_equal_tensors_make_the_same_packs_in_every_run(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "_PACK_BYTES", 64)
    monkeypatch.setattr(writing, "_BATCH_BYTES", 32)
    shot = Snapshot(State({f"{place}": f32(place % 7, place % 3) for place in range(60)}))
    first = store.open_run("one", framework="torch").commit(shot)
    before = objects(store)
    assert len(before) == 3  # of 21 different tensors, eight in each
    assert bits(store, first) == expected(shot)
    second = store.open_run("two", framework="torch").commit(shot)
    other = Snapshot(State({**shot.weights.tensors, "59": f32(100, 100)}))
    third = store.open_run("three", framework="torch").commit(other)
    assert second.weights.stored_bytes == 0
    assert len(objects(store).keys() - before.keys()) == 1  # the segments before it are the same
    assert bits(store, third) == expected(other)


def test_a_pack_is_not_left_behind_when_another_file_cannot_be_written(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = store.open_run("base", framework="torch")
    run.commit(snapshot(1))
    before = objects(store)
    put = type(store._layout.objects).put

    def full(folder: object, digest: str, chunks: object, size: int, *more: str, cached: bool = True) -> int:
        if size > 4 * 1024 * 1024:
            raise OSError(errno.ENOSPC, "no space left on device")
        return put(folder, digest, chunks, size, *more, cached=cached)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(type(store._layout.objects), "put", full)
        with pytest.raises(OSError, match="no space"):
            run.commit(snapshot(2, more={"large": large(3)}))
    assert list((store.path / "tmp").glob("*.staged")) == []
    assert objects(store) == before
    version = run.commit(snapshot(2, more={"large": large(3)}))
    assert bits(store, version) == expected(snapshot(2, more={"large": large(3)}))


@pytest.mark.parametrize("error", [OSError("the disk"), KeyboardInterrupt()])
def test_an_error_ends_a_save_without_beginning_what_was_waiting(
    error: BaseException, store: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = threading.Event()

    class Pool(writing.ThreadPoolExecutor):
        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
            super().shutdown(wait, cancel_futures=cancel_futures)
            if cancel_futures:
                stopped.set()

    begun = []

    def put(digest: str, *_: object, **__: object) -> int:
        begun.append(digest)
        if len(begun) == 1:
            raise error
        stopped.wait(20)  # only where nothing is stopped; the count below tells
        return 0

    monkeypatch.setattr(writing, "ThreadPoolExecutor", Pool)
    monkeypatch.setattr(writing, "_THREADS", 1)
    monkeypatch.setattr(store._layout.objects, "put", put)
    state = State({f"w{number}": large(number) for number in range(6)})
    with pytest.raises(type(error)):
        writing.write_state(store._layout, state, None)
    assert stopped.is_set()
    assert len(begun) <= 2
    assert not any(each.name.startswith("mvc-write") for each in threading.enumerate())


def test_a_save_does_not_fail_for_a_staged_file_that_cannot_be_removed(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = store.open_run("base", framework="torch")
    run.commit(many(1))
    run.commit(many(2))  # of two packs
    refused = []

    def refuse(path: Path) -> None:
        refused.append(path)
        raise OSError(errno.EIO, "the disk")

    with monkeypatch.context() as patch:
        patch.setattr(objects_module.files, "remove", refuse)
        twin = store.open_run("twin", framework="torch").commit(many(2))  # would have one
    assert refused[0].parent.name == "tmp"
    assert store.verify(full=True).ok
    assert bits(store, twin) == expected(many(2))


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="the system has no such call")
def test_beside_training_the_system_need_not_keep_what_was_written(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = []
    give_back = os.posix_fadvise

    def advise(descriptor: int, *how: int) -> None:
        told.append(os.fstat(descriptor).st_size)
        give_back(descriptor, *how)

    monkeypatch.setattr(os, "posix_fadvise", advise)
    run = store.open_run("base", framework="torch")
    run.commit(snapshot(1, more={"large": large(1)}))
    assert told == []
    run.cached = False
    before = objects(store)
    version = run.commit(snapshot(2, more={"large": large(2)}))
    written = [name for name in objects(store).keys() - before.keys() if name.endswith(".safetensors")]
    assert len(told) == len(written) == 3  # what trains, the large one, the momentum
    assert bits(store, version) == expected(snapshot(2, more={"large": large(2)}))

    def refuse(*_: int) -> None:
        raise OSError(errno.EINVAL, "not here")

    monkeypatch.setattr(os, "posix_fadvise", refuse)
    version = run.commit(snapshot(3))
    assert bits(store, version) == expected(snapshot(3))


def test_bad_input_26_tied_names_are_stored_once(store: VersionStore) -> None:
    tied = f32(1, 2, 3)
    weights = State({"a": tied, "b": tied}, tied=(("a", "b"),))
    version = store.open_run("base", framework="torch").commit(Snapshot(weights))
    assert version.details.record["weights"]["tied"] == [["a", "b"]]
    assert bits(store, version) == {"a": bytes(tied.data), "b": bytes(tied.data)}
    assert store.entries(version)["a"] == store.entries(version)["b"]


def test_bad_input_34_29_names_and_shapes_come_back_as_they_were(store: VersionStore) -> None:
    tensors = {
        "": f32(1),
        "__metadata__": f32(2),
        "a/b\0é\U0001f600": f32(3),
        "zero": Tensor("F32", (3, 0, 2), memoryview(b"")),
        "scalar": Tensor("I64", (), memoryview(bytes(8))),
        "complex": Tensor("C128", (1,), memoryview(bytes(range(16)))),
        "x" * 5000: f32(4),
    }
    version = store.open_run("base", framework="torch").commit(Snapshot(State(tensors)))
    told = store.tensors(version)
    assert {name: (each.dtype, each.shape, bytes(each.data)) for name, each in told.items()} == {
        name: (each.dtype, each.shape, bytes(each.data)) for name, each in tensors.items()
    }
    assert store.verify(full=True).ok


def test_a_state_without_a_tensor_is_a_state(store: VersionStore) -> None:
    version = store.open_run("base", framework="torch").commit(Snapshot(State({})))
    assert store.tensors(version) == {}
    assert store.verify(full=True).ok


def test_more_small_tensors_than_a_pack_may_hold_go_into_several(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "_LARGEST_PACK", 10)
    version = store.open_run("base", framework="torch").commit(many(1, 35))
    assert len(objects(store)) == 4
    assert bits(store, version) == expected(many(1, 35))


def test_bad_input_35_broken_weights_are_marked(store: VersionStore) -> None:
    shot = Snapshot(State({"w": f32(math.nan)}), find_nonfinite=lambda: True)
    version = store.open_run("base", framework="torch").commit(shot)
    assert version.flags == ("nonfinite",)
    assert version.weights.nonfinite


def test_weights_that_did_not_change_although_steps_passed_are_marked(store: VersionStore) -> None:
    run = store.open_run("base", framework="torch")
    assert run.commit(snapshot(1), step=1).flags == ()
    assert run.commit(snapshot(1), step=1).flags == ()
    assert run.commit(snapshot(1), step=2).flags == ("stale",)


@pytest.mark.parametrize(
    ("how", "step", "flags"),
    [("resume", 7, ()), ("resume", 8, ("stale",)), ("restore", 0, ()), ("restore", 1, ("stale",))],
)
def test_a_run_that_goes_on_and_trains_nothing_is_marked_from_its_first_version_on(
    store: VersionStore, how: Literal["resume", "restore"], step: int, flags: tuple[str, ...]
) -> None:
    base = store.open_run("base", framework="torch").commit(snapshot(1), step=7)
    parents = (Parent(base.id, how),)
    run = store.open_run("next", framework="torch")
    assert run.commit(snapshot(1), step=step, parents=parents).flags == flags
    other = store.open_run("other", framework="torch")
    assert other.commit(snapshot(2), step=9, parents=parents).flags == ()


def test_a_run_that_goes_on_from_pruned_weights_is_judged_by_their_digest(store: VersionStore) -> None:
    base = store.open_run("base", framework="torch").commit(snapshot(1), step=7)
    store.prune_ids([base.id], what="weights", policy="test")
    run = store.open_run("next", framework="torch")
    assert run.commit(snapshot(1), step=8, parents=(Parent(base.id, "resume"),)).flags == ("stale",)


# --- manifests ---


def manifest_file(store: VersionStore, digest: str) -> dict[str, object]:
    told: dict[str, object] = json.loads(store._layout.manifests.path_of(digest).read_bytes())
    return told


def test_a_manifest_that_differs_little_tells_the_difference_and_never_to_a_third(
    store: VersionStore,
) -> None:
    run = store.open_run("base", framework="torch")
    versions = [run.commit(many(number)) for number in range(8)]
    told = [manifest_file(store, version.weights.digest) for version in versions]
    assert "base" not in told[0]
    for each in told[1:]:
        assert each["base"] == versions[0].weights.digest
        assert [entry["name"] for entry in each["set"]] == ["head"]  # type: ignore[union-attr,index]
        assert each["drop"] == []
    for number, version in enumerate(versions):
        assert bits(VersionStore(store.path), version) == expected(many(number))


def test_a_manifest_tells_what_was_dropped_and_added(store: VersionStore) -> None:
    run = store.open_run("base", framework="torch")
    run.commit(many(1, 60))
    version = run.commit(many(1, 58))
    told = manifest_file(store, version.weights.digest)
    assert told["drop"] == ["layer.58", "layer.59"]
    assert bits(store, version) == expected(many(1, 58))


def test_another_run_may_go_on_from_a_difference(store: VersionStore) -> None:
    run = store.open_run("one", framework="torch")
    run.commit(many(1))
    run.commit(many(2))
    other = store.open_run("two", framework="torch")
    other.commit(many(2))  # its manifest is a difference already
    versions = [other.commit(many(number)) for number in range(3, 9)]
    for number, version in zip(range(3, 9), versions, strict=True):
        assert bits(store, version) == expected(many(number))


def test_the_next_version_is_whole_when_the_one_that_it_would_refer_to_was_pruned(
    store: VersionStore,
) -> None:
    run = store.open_run("base", framework="torch")
    for number in range(1, 7):
        version = run.commit(many(number))
        assert bits(store, version) == expected(many(number))
        run.prune([version.id], what="weights", policy="test")
    kept = run.commit(many(7))
    assert bits(store, kept) == expected(many(7))
    assert store.verify(full=True).ok


# --- numbers, labels, order ---


def test_numbers_have_gaps_after_a_failed_save(store: VersionStore, monkeypatch: pytest.MonkeyPatch) -> None:
    run = store.open_run("base", framework="torch")
    run.commit(snapshot(1))
    with fault(monkeypatch, 3, lambda: OSError(errno.ENOSPC, "full")), pytest.raises(OSError, match="full"):
        run.commit(snapshot(2))
    assert run.next_number == 3
    third = run.commit(snapshot(3))
    assert [version.number for version in store.versions()] == [1, 3]
    assert third.parent is not None
    assert third.parent.id == store.get("base/1").id
    with pytest.raises(ValueError, match="too late"):
        run.commit(snapshot(4), number=2)
    assert run.commit(snapshot(4), number=7).number == 7
    assert run.chain == [version.id for version in store.versions()]


def test_two_runs_asked_for_one_label_get_two(store: VersionStore) -> None:
    runs = [store.open_run("x", framework="torch") for _ in range(3)]
    assert [run.label for run in runs] == ["x", "x-2", "x-3"]
    assert store.open_run("X", framework="torch").label == "X-4"
    long = "a" * 63 + "z"
    labels = [store.open_run(long, framework="torch").label for _ in range(11)]
    assert len(set(labels)) == 11
    assert max(map(len, labels)) == 64
    runs[1].commit(snapshot(1))
    assert [(run.label, run.base) for run in store.runs()] == [("x-2", "x")]


def test_a_label_that_an_alias_has_is_taken_ignoring_case(store: VersionStore) -> None:
    commit(store)
    store.promote("latest", "Prod")
    assert store.open_run("prod", framework="torch").label == "prod-2"


def test_a_run_without_a_label_is_called_by_its_time(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "now", lambda: "2026-11-24T03:47:26.458959Z")
    labels = [store.open_run(framework="torch").label for _ in range(2)]
    assert labels == ["20261124T034726", "20261124T034726-2"]


def test_bad_input_19_a_label_that_is_none_is_refused_and_nothing_is_made(store: VersionStore) -> None:
    for label in ("../x", "/abs", "a\0", "CON", "latest", "abcd"):
        with pytest.raises(MVCError):
            store.open_run(label, framework="torch")
    assert not store.path.exists()


# --- faults ---


@pytest.mark.parametrize("dead", [False, True], ids=["error", "kill"])
def test_bad_input_42_46_whatever_operation_fails_every_acknowledged_version_is_whole(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch, dead: bool
) -> None:
    monkeypatch.setattr(writing, "_THREADS", 1)  # the same order each time
    commit(store, "base", 2)
    failed = 0
    for at in range(1, 200):
        label = f"run{at}"
        acknowledged = {version.id for version in store.versions()}
        error: BaseException | None = None
        with fault(
            monkeypatch, at, Crash if dead else lambda: OSError(errno.EIO, "broken"), dead=dead
        ) as trace:
            try:
                run = VersionStore(store.path).open_run(label, framework="torch")
                acknowledged.add(run.commit(snapshot(at), metrics={"val_loss": 1.0}, monitor=LOSS).id)
            except (OSError, Crash) as caught:
                error = caught
        there = VersionStore(store.path)
        shown = {version.id for version in there.versions()}
        assert acknowledged <= shown
        for version in there.versions():
            assert bits(there, version)
            there.training_state(version)
        assert there.verify().ok
        if not dead:
            assert list((store.path / "tmp").glob("*.staged")) == []
        there.rebuild()
        assert shown <= {version.id for version in there.versions()}
        if error is None and len(trace) < at:
            break
        failed += 1
    assert failed > 40
    assert VersionStore(store.path).verify(full=True).ok
    assert VersionStore(store.path).open_run("after", framework="torch").commit(snapshot(1)).number == 1


@pytest.mark.parametrize("dead", [False, True], ids=["error", "kill"])
def test_bad_input_42_46_a_run_goes_on_after_a_save_that_failed(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch, dead: bool
) -> None:
    monkeypatch.setattr(writing, "_THREADS", 1)
    run = store.open_run("base", framework="torch")
    kept = {run.commit(many(0)).id: many(0)}
    for at in range(1, 100):
        shot = many(at)
        with (
            fault(monkeypatch, at, Crash if dead else lambda: OSError(errno.EIO, "no"), dead=dead) as trace,
            contextlib.suppress(OSError, Crash),
        ):
            kept[run.commit(shot).id] = shot
        if len(trace) < at:
            break
    kept[run.commit(many(1000)).id] = many(1000)
    assert at > 15
    for there in (store, VersionStore(store.path)):
        for identity, each in kept.items():
            assert bits(there, identity) == expected(each)
    assert store.verify(full=True).ok
    assert store.get("latest").id == list(kept)[-1]


def test_latest_is_right_after_a_kill_at_any_operation(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "_THREADS", 1)
    commit(store, "base", 1)
    for at in range(1, 100):
        run = store.open_run(f"run{at}", framework="torch")
        with fault(monkeypatch, at, Crash, dead=True) as trace, contextlib.suppress(Crash):
            run.commit(snapshot(at))
        there = VersionStore(store.path)
        assert there.get("latest") == there.versions()[-1]
        if len(trace) < at:
            break


def test_old_staged_files_are_swept_and_young_ones_are_left(store: VersionStore) -> None:
    commit(store, "base", 1)
    old, young = (store.path / "tmp" / f"{digit * 32}.staged" for digit in "ab")
    for path in (old, young):
        path.write_bytes(b"x" * 100)
    before = time.time() - 25 * 3600
    os.utime(old, (before, before))
    store.open_run("next", framework="torch")
    assert not old.exists()
    assert young.exists()


def test_bad_input_45_a_folder_that_may_not_be_written_is_told_and_reading_works(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = commit(store, "base", 1)[0]

    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(args[0]))

    # Root may write everywhere, so the permissions of a real folder would prove nothing here.
    run = store.open_run("next", framework="torch")
    real = os.open
    monkeypatch.setattr(
        os,
        "open",
        lambda path, flags, *more, **kw: refuse(path) if flags & 3 else real(path, flags, *more, **kw),
    )
    for name in ("mkdir", "replace", "unlink", "rename"):
        monkeypatch.setattr(os, name, refuse)
    with pytest.raises(PermissionError):
        run.commit(snapshot(2))
    with pytest.raises(PermissionError):
        store.promote("latest", "production")
    there = VersionStore(store.path)
    assert there.get("latest") == version
    assert bits(there, version) == expected(snapshot(1))
    assert there.verify(full=True).ok
    assert there.prune(keep_last=0, dry_run=True).versions == (version.id,)


def test_a_record_that_could_not_be_read_again_is_not_written(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = store.open_run("base", framework="torch")
    monkeypatch.setattr(records, "LIMIT", 5000)
    with pytest.raises(SaveFailed, match="more than the 5000"):
        run.commit(snapshot(1), hyperparameters={"text": "x" * 6000})
    monkeypatch.setattr(commit_module, "LIMIT", 50)
    with pytest.raises(SaveFailed, match="training state"):
        run.commit(Snapshot(State({}), tree={"text": "x" * 100}, tree_tensors=State({})))
    with pytest.raises(MVCError):
        run.commit(snapshot(1), metrics={"\ud800": 1.0})
    assert store.versions() == []
    run.commit(snapshot(1))
    assert store.verify(full=True).ok


# --- the store as a folder ---


def test_bad_input_56_a_store_that_was_moved_or_copied_works(store: VersionStore, tmp_path: Path) -> None:
    commit(store, "base", 2)
    store.promote("best", "production")
    copied = VersionStore(shutil.copytree(store.path, tmp_path / "copy"))
    moved = VersionStore(shutil.move(store.path, tmp_path / "moved"))
    for there in (copied, moved):
        assert [version.number for version in there.versions()] == [1, 2]
        assert bits(there, "production") == expected(snapshot(2))
        assert there.verify(full=True).ok
        assert commit(there, "base", 1)[0].run == "base-2"
    assert copied.identity == moved.identity


def test_bad_input_56_a_copy_without_tmp_works(store: VersionStore) -> None:
    commit(store, "base", 2)
    shutil.rmtree(store.path / "tmp")
    there = VersionStore(store.path)
    assert there.get("latest").number == 2
    assert there.verify(full=True).ok
    assert there.prune(keep_last=0, dry_run=True).versions
    assert not (store.path / "tmp").exists()
    assert commit(there, "next", 1)[0].sequence == 3
    shutil.rmtree(store.path / "tmp")
    there.promote("latest", "production")
    shutil.rmtree(store.path / "tmp")
    assert there.prune("base/1").versions


def test_a_store_may_be_named_by_a_link(store: VersionStore, tmp_path: Path) -> None:
    commit(store, "base", 1)
    (tmp_path / "link").symlink_to(store.path)
    there = VersionStore(tmp_path / "link")
    assert bits(there, "latest") == expected(snapshot(1))
    assert commit(there, "base", 1)[0].run == "base-2"


@pytest.mark.parametrize("folder", ["objects", "manifests", "versions", "runs", "events", "history", "tmp"])
def test_bad_input_20_a_folder_of_the_store_that_is_a_link_is_refused(
    store: VersionStore, tmp_path: Path, folder: str
) -> None:
    commit(store, "base", 1)
    shutil.move(store.path / folder, tmp_path / "elsewhere")
    (store.path / folder).symlink_to(tmp_path / "elsewhere")
    there = VersionStore(store.path)
    for ask in (there.versions, lambda: there.get("latest"), lambda: there.open_run("x", framework="torch")):
        with pytest.raises(UnsafeFile):
            ask()


@pytest.mark.parametrize("folder", ["objects", "manifests", "versions"])
def test_bad_input_20_nothing_is_written_or_removed_through_a_linked_prefix(
    store: VersionStore, tmp_path: Path, folder: str
) -> None:
    version = commit(store, "base", 1)[0]
    outside = tmp_path / "outside"
    outside.mkdir()
    precious = outside / f"{'ab' * 32}.json"
    precious.write_bytes(b"precious")
    for prefix in {f"{number:02x}" for number in range(256)}:
        target = store.path / folder / prefix
        if not target.exists():
            target.symlink_to(outside)
    before = sorted(path.name for path in outside.iterdir())
    with pytest.raises(UnsafeFile):
        for number in range(20):
            store.open_run("next", framework="torch").commit(snapshot(number + 50))
    with pytest.raises(UnsafeFile):
        store.prune(version.id)
        store.prune(keep_last=0)
        store.rebuild()
    assert sorted(path.name for path in outside.iterdir()) == before
    assert precious.read_bytes() == b"precious"


def test_versions_and_stores_are_pickled_and_copied(store: VersionStore) -> None:
    version = commit(store, "base", 1, hyperparameters={"given": {"lr": 0.1}})[0]
    for make in (copy.deepcopy, copy.copy, lambda value: pickle.loads(pickle.dumps(value))):
        again = make(version)
        assert again == version
        assert again.hyperparameters == {"lr": 0.1}
        there = make(store)
        assert there == store
        assert hash(there) == hash(store)
        assert there.get("latest") == version
    plain = pickle.loads(pickle.dumps(version.without_loader()))
    assert plain == version
    assert plain.hyperparameters == {}


def test_a_constructor_touches_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert VersionStore().path == tmp_path / "model_versions"
    monkeypatch.setenv("MVC_STORE", str(tmp_path / "other"))
    assert VersionStore().path == tmp_path / "other"
    assert list(tmp_path.iterdir()) == []


def test_chunks_of_history_are_one_file_a_run(store: VersionStore) -> None:
    commit(store, "base", 2)
    assert [path.name for path in chunk(store).parent.iterdir()] == ["0001.json"]


def test_a_chain_of_manifests_without_end_is_refused(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = store.open_run("base", framework="torch").commit(many(1))
    path = store._layout.manifests.path_of(version.weights.digest)
    told = json.loads(path.read_bytes())
    path.write_text(json.dumps({**told, "base": version.weights.digest, "set": [], "drop": []}))
    with pytest.raises(MVCError, match="endless"):
        store.tensors(version)
    assert manifests.FORMAT == 1
