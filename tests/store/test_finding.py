"""Promises of finding a version by what a person types."""

from __future__ import annotations

import json
import math
import warnings
from typing import Any

import pytest
from store_kit import LOSS, chunk, commit, edit, fingerprint, snapshot

from mvc_callbacks import commit as commit_module
from mvc_callbacks import refs
from mvc_callbacks.errors import (
    AmbiguousRef,
    BadName,
    CorruptHistory,
    CorruptRecord,
    MissingObject,
    MVCWarning,
    StoreNotFound,
    UnknownRef,
)
from mvc_callbacks.finding import Finder
from mvc_callbacks.history import Row
from mvc_callbacks.snapshot import Snapshot
from mvc_callbacks.store import VersionStore
from mvc_callbacks.tensors import State
from mvc_callbacks.versions import Monitor, Parent


def scored(
    store: VersionStore, label: str, *losses: float | None, mode: str = "min", name: str = "val_loss"
) -> None:
    run = store.open_run(label, framework="torch")
    for place, loss in enumerate(losses):
        metrics = {} if loss is None else {name: loss}
        run.commit(snapshot(place), metrics=metrics, monitor=Monitor(name, mode))  # type: ignore[arg-type]


def place(store: VersionStore, ref: str) -> str:
    version = store.get(ref)
    return f"{version.run}/{version.number}"


def test_every_form_of_a_ref_finds_its_version(store: VersionStore) -> None:
    one, two = commit(store, "one", 3), commit(store, "two", 2)
    store.promote("one/2", "production")
    for ref, found in {
        "latest": two[1],
        "two": two[1],
        "one": one[2],
        "ONE": one[2],
        "one/latest": one[2],
        "one/2": one[1],
        "one/best": one[2],
        "best": one[2],
        "best:val_loss:max": one[0],
        "production": one[1],
        "Production": one[1],
        "production~1": one[0],
        "one~2": one[0],
        one[1].id: one[1],
        one[1].short_id: one[1],
        one[1].id.upper(): one[1],
    }.items():
        assert store.get(ref) == found, ref


def test_latest_is_the_newest_by_sequence_and_not_by_the_clock(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(store, "one", 2)
    monkeypatch.setattr(commit_module, "now", lambda: "1970-01-01T00:00:00.000000Z")  # BAD_INPUT 53
    commit(store, "two", 1)
    assert place(store, "latest") == "two/1"
    assert [version.run for version in store.versions()] == ["one", "one", "two"]
    (store.path / "tmp" / "shared.json").unlink()
    assert place(store, "latest") == "two/1"
    assert [version.sequence for version in store.versions()] == [1, 2, 3]


def test_sequences_go_on_when_what_writers_share_is_lost(store: VersionStore) -> None:
    commit(store, "one", 3)
    (store.path / "tmp" / "shared.json").unlink()
    run = store.open_run("two", framework="torch")
    assert run.commit(snapshot(1)).sequence == 4
    (store.path / "tmp" / "shared.json").write_bytes(b"")
    assert run.commit(snapshot(2)).sequence == 5
    assert [version.sequence for version in store.versions()] == [1, 2, 3, 4, 5]
    assert place(store, "latest") == "two/2"


def test_of_interleaved_runs_the_later_version_has_the_larger_sequence(store: VersionStore) -> None:
    one, two = store.open_run("one", framework="torch"), store.open_run("two", framework="torch")
    for number in range(3):
        one.commit(snapshot(number))
        two.commit(snapshot(number))
    assert [version.run for version in store.versions()] == ["one", "two"] * 3
    assert [version.sequence for version in store.versions()] == [1, 2, 3, 4, 5, 6]


def test_a_version_added_while_another_was_written_gets_the_larger_sequence(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = store.open_run("first", framework="torch"), store.open_run("second", framework="torch")
    real = type(first)._in_order

    def overtaken(self, identity, record, shared):  # type: ignore[no-untyped-def]
        monkeypatch.undo()
        with store._layout.lock("test"):
            pass
        return real(self, identity, record, store._layout.shared())

    write = type(first)._write_record

    def slow(self, *args):  # type: ignore[no-untyped-def]
        told = write(self, *args)
        monkeypatch.setattr(type(first), "_write_record", write)
        second.commit(snapshot(2))
        return told

    monkeypatch.setattr(type(first), "_in_order", overtaken)
    monkeypatch.setattr(type(first), "_write_record", slow)
    late = first.commit(snapshot(1))
    assert (late.sequence, store.get("second").sequence) == (2, 1)
    assert store.get("latest") == late
    records = [path.stem for path in (store.path / "versions").glob("*/*.json")]
    assert sorted(records) == sorted(version.id for version in store.versions())


def test_bad_input_38_nan_never_is_the_best(store: VersionStore) -> None:
    scored(store, "base", math.nan, 0.5, math.nan)
    assert place(store, "best") == "base/2"
    scored(store, "up", math.nan, 0.5, mode="max", name="acc")
    assert place(store, "up/best") == "up/2"


def test_infinities_are_compared(store: VersionStore) -> None:
    scored(store, "base", math.inf, 3.0, -math.inf)
    assert place(store, "best") == "base/3"
    assert place(store, "best:val_loss:max") == "base/1"


def test_the_earliest_wins_a_tie(store: VersionStore) -> None:
    scored(store, "one", 0.5, 0.25, 0.25)
    scored(store, "two", 0.25)
    assert place(store, "best") == "one/2"


def test_the_best_has_weights(store: VersionStore) -> None:
    scored(store, "base", 0.5, 0.1, 0.2)
    store.prune("base/2")
    assert place(store, "best") == "base/3"
    store.prune("base/3", what="state")
    assert place(store, "best") == "base/3"
    store.prune("base/1", "base/3")
    with pytest.raises(UnknownRef, match="no version with weights"):
        store.get("best")


def test_versions_that_watched_different_metrics_make_best_ambiguous(store: VersionStore) -> None:
    scored(store, "one", 0.5)
    scored(store, "two", 0.9, 0.8, mode="max", name="acc")
    with pytest.raises(AmbiguousRef) as caught:
        store.get("best")
    assert str(caught.value).index("best:acc:max") < str(caught.value).index("best:val_loss:min")
    assert place(store, "best:acc") == place(store, "best:acc:max") == "two/1"
    assert place(store, "one/best") == "one/1"
    assert place(store, "two/best") == "two/1"


def test_a_metric_that_nobody_watched_needs_a_mode(store: VersionStore) -> None:
    run = store.open_run("base", framework="torch")
    for acc in (0.5, 0.9):
        run.commit(snapshot(acc), metrics={"val/acc": acc})
    with pytest.raises(AmbiguousRef, match=":min' or ':max"):
        store.get("best:val/acc")
    assert place(store, "best:val/acc:max") == "base/2"
    with pytest.raises(UnknownRef, match="val/acc"):
        store.get("best")
    with pytest.raises(UnknownRef, match="known metrics: val/acc"):
        store.get("best:f1:max")


def test_a_metric_watched_both_ways_needs_a_mode(store: VersionStore) -> None:
    scored(store, "one", 0.5)
    scored(store, "two", 0.6, mode="max")
    with pytest.raises(AmbiguousRef):
        store.get("best:val_loss")


def test_best_warns_where_versions_were_validated_on_different_data(store: VersionStore) -> None:
    run = store.open_run("base", framework="torch")
    for place_, digit in enumerate("aab"):
        data = {"train": fingerprint(str(place_)), "val": fingerprint(digit)}
        run.commit(snapshot(place_), metrics={"val_loss": place_ + 1.0}, monitor=LOSS, data=data)
    with pytest.warns(MVCWarning, match="different data") as caught:
        assert store.get("best").number == 1
    assert caught[0].filename == __file__
    store.prune("base/3")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert store.get("best").number == 1


def test_an_unknown_ref_lists_what_there_is(store: VersionStore) -> None:
    commit(store, "one", 2)
    commit(store, "two")
    store.promote("one", "production")
    with pytest.raises(UnknownRef, match=r"there are: production, two, one"):
        store.get("three")
    with pytest.raises(UnknownRef, match="its newest is one/2"):
        store.get("one/3")
    with pytest.raises(UnknownRef, match="has no version 0"):
        store.get("one/0")
    with pytest.raises(UnknownRef, match="mvc log"):
        store.get("0000000000")
    with pytest.raises(UnknownRef, match="has no parent; it goes up 1 at most"):
        store.get("one~2")


def test_a_run_without_a_version_says_so(store: VersionStore) -> None:
    store.open_run("empty", framework="torch")
    with pytest.raises(UnknownRef, match="no version yet"):
        store.get("empty")
    with pytest.raises(UnknownRef, match="no version yet"):
        store.get("latest")
    assert store.versions() == store.runs() == []


def test_bad_input_69_an_ambiguous_prefix_lists_its_candidates(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refs, "SHORTEST_PREFIX", 2)  # of four digits it would take hundreds of versions
    run = store.open_run("base", framework="torch")
    seen: dict[str, str] = {}
    while (identity := run.commit(Snapshot(State({}))).id)[:2] not in seen:
        seen[identity[:2]] = identity
    with pytest.raises(AmbiguousRef, match="give more digits") as caught:
        store.get(identity[:2])
    assert identity[:12] in str(caught.value)
    assert seen[identity[:2]][:12] in str(caught.value)
    assert store.get(identity[:16]).id == identity


def test_a_record_that_no_history_names_is_no_version(store: VersionStore) -> None:
    commit(store)
    orphan = store._layout.versions.write({"run": {"label": "base", "id": "f" * 64}, "number": 1})
    with pytest.raises(UnknownRef):
        store.get(orphan)
    with pytest.raises(UnknownRef):
        store.get(orphan[:8])


def test_reading_never_makes_a_store_and_names_the_absolute_path(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.path.parent.mkdir(exist_ok=True)
    monkeypatch.chdir(store.path.parent)
    there = VersionStore("store")
    asks = [
        there.versions, there.runs, there.aliases, there.alias_log, there.verify, there.rebuild,
        lambda: there.get("latest"), lambda: there.tensors("latest"), lambda: there.promote("latest", "x"),
        lambda: there.rollback("x"), lambda: there.prune("latest"),
        lambda: there.prune(keep_last=1, dry_run=True),
        lambda: there.delete_run("x"), lambda: there.evaluate("latest", "test", {}), lambda: there.identity,
        lambda: there.complete_fingerprint("f" * 64, "train", fingerprint("a")),
    ]  # fmt: skip
    for ask in asks:
        with pytest.raises(StoreNotFound) as caught:
            ask()
        assert str(store.path) in str(caught.value)
    assert not there.exists()
    assert there.find_by_weights("f" * 64) is None
    assert there.newest_of("base") is None
    assert not store.path.exists()


def test_a_version_whose_record_is_gone_or_damaged_is_not_believed_and_others_are(
    store: VersionStore,
) -> None:
    first, second = commit(store, "base", 2)
    path = store.path / "versions" / first.id[:2] / f"{first.id}.json"
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"epoch":0', b'"epoch":1'))
    with pytest.raises(CorruptRecord, match="changed"):
        store.get("base/1")
    path.unlink()
    with pytest.raises(MissingObject):
        store.get("base/1")
    assert store.get("base/2") == second
    assert len(store.versions()) == 2
    assert [run.versions for run in store.runs()] == [2]


def test_a_parent_that_was_deleted_says_so(store: VersionStore) -> None:
    first = commit(store, "one")[0]
    run = store.open_run("two", framework="torch")
    run.commit(snapshot(2), parents=(Parent(first.id, "restore"),))
    assert store.get("two~1") == first
    store.delete_run("one")
    with pytest.raises(UnknownRef, match="was deleted"):
        store.get("two~1")
    assert store.verify().ok


def test_newest_of_a_label_is_the_newest_of_all_runs_that_asked_for_it(store: VersionStore) -> None:
    commit(store, "base", 2)
    last = commit(store, "base", 1)[0]
    commit(store, "base-line", 1)
    assert last.run == "base-2"
    assert store.newest_of("Base") == last


def test_weights_are_found_by_their_digest(store: VersionStore) -> None:
    commit(store, "one", 2)
    again = commit(store, "two", 1)[0]
    assert store.find_by_weights(again.weights.digest) == again
    assert store.find_by_weights("f" * 64) is None


def test_a_malicious_record_leads_nowhere(store: VersionStore) -> None:
    commit(store)
    for label, number in (("../../x", 1), ("base", "1"), ("base", 1.5), (None, None)):
        evil = store._layout.versions.write({"run": {"label": label, "id": "f" * 64}, "number": number})
        with pytest.raises((UnknownRef, BadName)):
            store.get(evil)


def test_a_version_that_stands_twice_pruned_and_not_is_refused_as_the_best_and_not_looked_for_for_ever(
    store: VersionStore,
) -> None:
    """Somebody's history may name one version in two runs."""
    commit(store, "one", 2)
    store.prune("one/2")
    commit(store, "two", 3)
    row = json.loads(chunk(store, "one").read_bytes())["versions"]["2"]
    again = {**row, "run": "two", "number": 3, "pruned": [], "metrics": {"val_loss": 0.0}}

    def put(told: Any) -> None:
        told["versions"]["3"] = again

    edit(chunk(store, "two"), put)
    with pytest.raises(CorruptHistory, match=r"stands twice in the history.*mvc rebuild"):
        store.get("best")
    assert not store.verify().ok
    store.rebuild()
    assert place(store, "best") == "two/3"


def test_the_best_that_somebody_prunes_meanwhile_is_looked_for_again(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(store, "one", 3)
    by_id = Finder.by_id

    def prune_first(finder: Finder, identity: str, text: str | None = None) -> Row:
        monkeypatch.undo()
        VersionStore(store.path).prune(identity)
        return by_id(finder, identity, text)

    monkeypatch.setattr(Finder, "by_id", prune_first)
    assert place(store, "best") == "one/2"
