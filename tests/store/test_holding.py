"""Promises of what a version names beside its tensors: it is there when the version counts, however late."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from store_kit import commit, snapshot

from mvc_callbacks import holding
from mvc_callbacks.errors import MissingObject
from mvc_callbacks.store import VersionStore
from mvc_callbacks.versions import Fingerprint


def two_days_pass_and_somebody_sweeps(store: VersionStore) -> None:
    before = time.time() - 2 * 24 * 3600
    for path in (store.path / "objects").glob("*/*"):
        os.utime(path, (before, before))
    VersionStore(store.path).prune(older_than="1980-01-01T00:00:00Z")
    assert not [path for path in (store.path / "objects").glob("*/*") if path.suffix in (".jsonl", ".patch")]


def told(listing: str, digit: str = "a") -> dict[str, Fingerprint]:
    return {"train": Fingerprint(digit * 64, "files", listing=listing)}


def test_a_run_that_pauses_two_days_before_its_first_version_has_its_listing_and_its_patch(
    store: VersionStore,
) -> None:
    listing, patch = store.put_listing([b"one\n", b"two\n"]), store.put_patch(b"patch")
    run = store.open_run("base", framework="torch", record={"code": {"patch": patch}})
    two_days_pass_and_somebody_sweeps(store)
    with pytest.raises(MissingObject):
        store.listing(listing)
    run.commit(snapshot(1), data=told(listing))
    assert store.listing(listing) == b"one\ntwo\n"
    assert store.patch(patch) == b"patch"
    assert store.verify(full=True).ok


def test_an_evaluation_and_a_late_fingerprint_have_their_listings_too(store: VersionStore) -> None:
    version = commit(store, "base", 1, data={"train": Fingerprint(None, "pending")})[0]
    late, measured = store.put_listing([b"late\n"]), store.put_listing([b"measured\n"])
    two_days_pass_and_somebody_sweeps(store)
    store.complete_fingerprint(version.id, "train", told(late)["train"])
    store.evaluate(version.id, "test", {"accuracy": 0.5}, data=told(measured, "b"))
    assert (store.listing(late), store.listing(measured)) == (b"late\n", b"measured\n")
    assert store.verify(full=True).ok


@pytest.mark.parametrize("when", ["before", "while it is saved"])
def test_a_run_that_was_deleted_and_goes_on_has_its_record_its_listing_and_its_patch(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    listing, patch = store.put_listing([b"one\n"]), store.put_patch(b"patch")
    run = store.open_run("base", framework="torch", record={"code": {"patch": patch}})
    run.commit(snapshot(1), data=told(listing))

    def delete() -> None:
        before = time.time() - 2 * 24 * 3600
        for path in (store.path / "objects").glob("*/*"):
            os.utime(path, (before, before))
        VersionStore(store.path).delete_run("base")

    write = run._write_record

    def write_and_delete(*args: Any) -> tuple[str, Mapping[str, Any]]:
        written = write(*args)
        monkeypatch.undo()
        delete()
        return written

    if when == "before":
        delete()
    else:
        monkeypatch.setattr(run, "_write_record", write_and_delete)
    with pytest.warns(match="made again from the records"):
        version = run.commit(snapshot(2), data=told(listing))
    assert version.details.code == {"patch": patch}
    assert (store.listing(listing), store.patch(patch)) == (b"one\n", b"patch")
    assert store.verify(full=True).ok


def test_no_more_files_are_held_open_than_a_process_may_have(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holding, "_MOST", 3)
    folder = Path("/proc/self/fd")
    before = len(list(folder.iterdir())) if folder.is_dir() else 0
    listings = [store.put_listing([b"%d\n" % place]) for place in range(10)]
    assert store.put_listing([b"7\n"]) == listings[7]  # the last that is needed goes last
    if folder.is_dir():
        assert len(list(folder.iterdir())) == before + 3
    two_days_pass_and_somebody_sweeps(store)
    run = store.open_run("base", framework="torch")
    run.commit(snapshot(1), data=told(listings[7]))
    assert store.listing(listings[7]) == b"7\n"
    run.commit(
        snapshot(2), data=told(listings[0])
    )  # not held any more: the version counts, and verify tells it
    (problem,) = store.verify().problems
    assert (problem.kind, problem.tensors) == ("missing", ("data listing",))


def test_a_process_that_may_open_no_more_files_stores_a_listing_all_the_same(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:
        raise OSError(24, "Too many open files", str(path))

    monkeypatch.setattr(holding, "OpenFile", refuse)
    listing = store.put_listing([b"one\n"])
    commit(store, "base", 1, data=told(listing))
    assert store.listing(listing) == b"one\n"
    assert store.verify(full=True).ok
