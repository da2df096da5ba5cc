"""Promises of rebuilding: records and events alone give the same answers."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from store_kit import (
    LOSS,
    Crash,
    answers,
    bits,
    chunk,
    commit,
    expected,
    fault,
    fingerprint,
    objects,
    snapshot,
)

from mvc_callbacks import commit as commit_module
from mvc_callbacks import history
from mvc_callbacks import store_aliases as store_module
from mvc_callbacks.commit import Run
from mvc_callbacks.store import VersionStore


def eventful(store: VersionStore) -> None:
    """Make a store to which everything has happened."""
    data = {"train": fingerprint("a", "pending"), "val": fingerprint("b")}
    one = commit(store, "one", 5, data=data)
    commit(store, "two", 3)
    store.complete_fingerprint(one[0].id, "train", fingerprint("c"))
    store.promote("one/2", "production")
    store.promote("two/2", "production", why="better")
    store.promote("one/1", "staging")
    store.rollback("production", why="worse")
    store.evaluate("one/2", "test", {"acc": 0.5, "nan": float("nan")}, {"test": fingerprint("d")})
    store.evaluate("one/2", "validate", {"acc": 0.25})
    store.prune("one/3")
    store.prune(keep_last=1, what="state")
    commit(store, "gone", 2)
    store.delete_run("gone")


def same(one: dict[str, Any], two: dict[str, Any]) -> bool:
    return repr(one) == repr(two)  # NaN is not equal to itself


@pytest.mark.parametrize("what", ["history", "aliases.json", "both", "nothing"])
def test_without_history_and_aliases_a_rebuild_gives_the_same_answers(store: VersionStore, what: str) -> None:
    eventful(store)
    before = answers(store)
    data = chunk(store, "two").read_bytes()
    if what in ("history", "both"):
        shutil.rmtree(store.path / "history")
    if what in ("aliases.json", "both"):
        (store.path / "aliases.json").unlink()
    there = VersionStore(store.path)
    report = there.rebuild()
    assert report.to_dict() == {"versions": 8, "runs": 2, "aliases": 2, "left_out": [], "problems": []}
    assert same(answers(there), before)
    assert chunk(store, "two").read_bytes() == data
    assert there.verify(full=True).ok
    assert same(answers(store), before)


def test_bad_input_53_clocks_that_went_back_change_no_answer(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    hours = iter(range(99, 0, -1))

    def backwards() -> str:
        return f"2026-01-01T{next(hours):02d}:00:00.000000Z"

    monkeypatch.setattr(commit_module, "now", backwards)
    monkeypatch.setattr(store_module, "now", backwards)
    commit(store, "one", 3)
    commit(store, "two", 2)
    for ref in ("one/1", "one/2", "two/1"):
        store.promote(ref, "production")
    store.rollback("production")
    before = answers(store)
    assert [(version.run, version.number) for version in store.versions()] == [
        ("one", 1), ("one", 2), ("one", 3), ("two", 1), ("two", 2),
    ]  # fmt: skip
    shutil.rmtree(store.path / "history")
    (store.path / "aliases.json").unlink()
    store.rebuild()
    after = answers(store)
    assert after["aliases"] == before["aliases"]
    assert after["versions"] == before["versions"]
    assert after["log"] == before["log"]


def test_a_long_run_is_made_again_in_its_files(store: VersionStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "ROLL_OVER", 3)
    commit(store, "base", 8)
    before = answers(store)
    chunk(store).with_name("0002.json").unlink()
    assert len(store.versions()) == 5
    store.rebuild()
    assert answers(store) == before
    assert len(list(chunk(store).parent.iterdir())) == 3


def crash_before_append(store: VersionStore, run: Run, monkeypatch: pytest.MonkeyPatch, seed: int) -> str:
    with pytest.raises(Crash), monkeypatch.context() as patch:
        patch.setattr(Run, "_append", lambda *_: (_ for _ in ()).throw(Crash))
        run.commit(snapshot(seed), metrics={"val_loss": 1.0}, monitor=LOSS)
    known = {version.id for version in store.versions()}
    return next(identity for identity in store._layout.versions.ids() if identity not in known)


def test_a_record_left_by_a_crash_is_adopted_when_its_objects_verify(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = store.open_run("base", framework="torch")
    run.commit(snapshot(1))
    orphan = crash_before_append(store, run, monkeypatch, 2)
    assert store.verify().ok
    assert store.rebuild().versions == 2
    assert bits(store, orphan) == expected(snapshot(2))
    run.commit(snapshot(3))
    assert [version.number for version in store.versions()] == [1, 2, 3]


@pytest.mark.parametrize("how", ["missing", "flipped", "no manifest", "no tree"])
def test_a_record_left_by_a_crash_is_left_out_when_one_of_its_objects_does_not_verify(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    run = store.open_run("base", framework="torch")
    run.commit(snapshot(1))
    before = set((store.path / "objects").glob("*/*"))
    orphan = crash_before_append(store, run, monkeypatch, 2)
    fresh = sorted(set((store.path / "objects").glob("*/*")) - before)
    path = next(path for path in fresh if (path.suffix == ".json") == (how == "no tree"))
    if how == "flipped":
        path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    elif how == "no manifest":
        weights = store._layout.versions.read(orphan)["weights"]["digest"]
        store._layout.manifests.path_of(weights).unlink()
    else:
        path.unlink()
    report = store.rebuild()
    assert report.versions == 1
    assert [identity for identity, _ in report.left_out] == [orphan]
    assert [version.number for version in store.versions()] == [1]
    if how == "flipped":  # nothing but reading every byte finds it; then the next save heals it
        assert not store.verify(full=True).problems
        path.unlink()
    assert run.commit(snapshot(2)).number == 3
    assert store.verify(full=True).ok


def test_an_acknowledged_version_with_a_damaged_object_stays(store: VersionStore) -> None:
    commit(store, "base", 2)
    before = answers(store)
    for path in (store.path / "objects").glob("*/*.safetensors"):
        path.unlink()
    assert store.rebuild().versions == 2
    assert answers(store) == before
    assert not store.verify().ok


def test_of_two_records_with_one_number_the_acknowledged_one_stays(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = store.open_run("base", framework="torch")
    run.commit(snapshot(1))
    monkeypatch.setattr(commit_module, "now", lambda: "2999-01-01T00:00:00.000000Z")
    orphan = crash_before_append(store, run, monkeypatch, 2)
    monkeypatch.setattr(commit_module, "now", lambda: "2026-01-01T00:00:00.000000Z")
    run._tried = 1  # as releases might that count failed saves otherwise
    kept = run.commit(snapshot(3))
    assert kept.number == 2
    report = store.rebuild()
    assert store.get("base/2") == kept
    assert [identity for identity, _ in report.left_out] == [orphan]
    assert report.versions == 2


def test_a_rebuild_that_a_kill_cut_short_loses_nothing(
    store: VersionStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    eventful(store)
    before = answers(store)
    os.truncate(chunk(store, "one"), 100)
    for path in list((store.path / "objects").glob("*/*.safetensors"))[:1]:
        path.unlink()
    for at in range(1, 60):
        there = VersionStore(shutil.copytree(store.path, tmp_path / str(at)))
        with fault(monkeypatch, at, Crash, dead=True) as trace, contextlib.suppress(Crash):
            there.rebuild()
        there = VersionStore(there.path)
        there.rebuild()
        assert {version.id for version in there.versions("two")} == {
            version.id for version in before["versions"] if version.run == "two"
        }
        assert there.aliases() == before["aliases"]
        assert there.alias_log() == before["log"]
        if len(trace) < at:
            break
    assert at > 8


def test_what_cannot_be_believed_is_told_and_hurts_nothing_else(store: VersionStore) -> None:
    commit(store, "base", 2)
    store.promote("latest", "production")
    before = answers(store)
    versions, events = store._layout.versions, store._layout.events
    good = versions.read(store.get("latest").id)
    plain = {name: value for name, value in good.items() if name not in ("kind", "format")}
    for change in (
        {"number": "1"}, {"number": 0}, {"sequence": None}, {"metrics": []}, {"run": None}, {"created": 5},
        {"run": {"label": "../../x", "id": "f" * 64}}, {"weights": {}}, {"data": 5},
        {"monitor": ["a", "sideways"]},
    ):  # fmt: skip
        versions.write({**plain, **change})
    for event in (
        {"event": "prune"}, {"event": "prune", "versions": [5], "what": "weights", "time": "", "policy": ""},
        {"event": "alias", "name": 5}, {"event": "delete", "versions": None}, {"event": "later"}, {},
        {"event": ["prune"]},
        {"event": "fingerprint", "versions": [good["run"]["id"]], "name": "x", "fingerprint": {}, "time": ""},
    ):  # fmt: skip
        events.write(event)
    (store.path / "versions" / "zz").mkdir()
    (store.path / "versions" / "zz" / f"{'z' * 64}.json").write_bytes(b"{}")
    (store.path / "events" / "00").mkdir(exist_ok=True)
    (store.path / "events" / "00" / f"{'0' * 64}.json").write_bytes(b"junk")
    report = store.rebuild()
    assert len(report.problems) >= 17
    assert answers(store) == before


def test_a_version_without_a_record_is_kept_beside_and_told(store: VersionStore) -> None:
    first, second = commit(store, "base", 2)
    store._layout.versions.path_of(first.id).unlink()
    report = store.rebuild()
    assert first.id[:12] in report.problems[0]
    assert [version.id for version in store.versions()] == [second.id]
    assert first.id.encode() in chunk(store).with_name("0001.json.damaged").read_bytes()


def test_damaged_aliases_are_made_again_and_kept_beside(store: VersionStore) -> None:
    eventful(store)
    before = answers(store)
    path = store.path / "aliases.json"
    path.write_bytes(path.read_bytes()[:-9])
    assert store.rebuild().problems
    assert same(answers(store), before)
    assert path.with_name("aliases.json.damaged").exists()


def test_a_rebuild_writes_no_object(store: VersionStore) -> None:
    commit(store, "base", 2)
    before = objects(store)
    store.rebuild()
    assert objects(store) == before


def test_a_rebuild_tells_how_far_it_is(store: VersionStore) -> None:
    commit(store, "base", 3)
    told: list[tuple[int, int]] = []
    store.rebuild(progress=lambda done, whole: told.append((done, whole)))
    assert told == [(1, 3), (2, 3), (3, 3)]
