"""Promises of aliases: they move, go back, and tell of it."""

from __future__ import annotations

import contextlib
import errno
import json

import pytest
from store_kit import Crash, answers, bits, commit, expected, fault, snapshot

from mvc_callbacks.aliases import AliasTable
from mvc_callbacks.errors import AliasMoved, BadName, CorruptHistory, MVCWarning, UnknownRef
from mvc_callbacks.store import VersionStore


def number(store: VersionStore, name: str = "production") -> int:
    return store.get(name).number


def test_an_alias_is_promoted_and_rolled_back_step_by_step(store: VersionStore) -> None:
    commit(store, "base", 4)
    for each in (1, 2, 3):
        store.promote(f"base/{each}", "production", why=f"try {each}")
    assert store.rollback("production", why="bad").number == 2
    assert store.rollback("production").number == 1
    with pytest.raises(UnknownRef, match="nothing to roll back to"):
        store.rollback("production")
    store.promote("base/4", "production")
    assert number(store) == 4
    assert store.rollback("production").number == 1
    log = store.alias_log("production")
    assert [(move.how, move.why) for move in log[:4]] == [
        ("promote", "try 1"), ("promote", "try 2"), ("promote", "try 3"), ("rollback", "bad"),
    ]  # fmt: skip
    assert log[3].previous == store.get("base/3").id
    assert all("@" in move.who for move in log)
    assert bits(store, "production") == expected(snapshot(1))


def test_each_alias_has_its_own_log(store: VersionStore) -> None:
    commit(store, "base", 2)
    store.promote("base/1", "staging")
    store.promote("base/2", "production")
    assert store.aliases() == {"production": store.get("base/2").id, "staging": store.get("base/1").id}
    assert [move.name for move in store.alias_log("staging")] == ["staging"]
    assert [move.name for move in store.alias_log()] == ["staging", "production"]


def test_a_name_is_unique_ignoring_case_among_aliases_and_runs(store: VersionStore) -> None:
    commit(store, "base", 1)
    store.promote("latest", "production")
    for name in ("Production", "BASE", "base"):
        with pytest.raises(BadName, match="taken"):
            store.promote("latest", name)
    store.promote("latest", "production")
    assert list(store.aliases()) == ["production"]


@pytest.mark.parametrize("name", ["latest", "best", "abcd", "../x", "a/b", "CON", "", "a" * 65])
def test_bad_input_19_a_name_that_is_none_is_refused(store: VersionStore, name: str) -> None:
    commit(store, "base", 1)
    with pytest.raises(BadName):
        store.promote("latest", name)
    assert store.aliases() == {}


def test_an_unknown_alias_cannot_be_rolled_back(store: VersionStore) -> None:
    commit(store, "base", 1)
    with pytest.raises(UnknownRef, match="no alias 'production'"):
        store.rollback("production")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b'{"aliases":{"1":{"name":5,"id":5}}}',
        b'{"aliases":{"x":{}}}',
        b'{"log":{"1":{}}}',
        b'{"log":{"1":{"name":{},"id":null,"previous":null,"time":"","how":"","why":"","who":""}}}',
        b'{"log":{"1":{"name":"a","id":null,"previous":7,"time":"","how":"","why":"","who":""}}}',
    ],
)
def test_damaged_aliases_are_refused_and_rebuilt(store: VersionStore, data: bytes) -> None:
    commit(store, "base", 2)
    store.promote("base/1", "production")
    before = answers(store)
    (store.path / "aliases.json").write_bytes(data)
    with pytest.raises(CorruptHistory, match="mvc rebuild"):
        store.alias_log()
    with pytest.raises(CorruptHistory):
        store.promote("base/2", "production")
    assert not store.verify().ok
    store.rebuild()
    assert answers(store) == before


def test_lost_aliases_are_made_again_before_one_moves(store: VersionStore) -> None:
    commit(store, "base", 3)
    store.promote("base/1", "production")
    store.promote("base/2", "production")
    (store.path / "aliases.json").unlink()
    with pytest.raises(UnknownRef, match=r"aliases\.json is missing"):
        store.get("production")
    with pytest.warns(MVCWarning, match="made again"):
        store.promote("base/3", "production")
    assert [move.id for move in store.alias_log()] == [store.get(f"base/{each}").id for each in (1, 2, 3)]
    assert store.rollback("production").number == 2
    (store.path / "aliases.json").unlink()
    store.rebuild()
    assert number(store) == 2


@pytest.mark.parametrize("dead", [False, True], ids=["error", "kill"])
def test_bad_input_42_46_an_alias_is_where_it_was_or_where_it_should_be(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch, dead: bool
) -> None:
    commit(store, "base", 2)
    store.promote("base/1", "production")
    for at in range(1, 30):
        before = number(store)
        with (
            fault(monkeypatch, at, Crash if dead else lambda: OSError(errno.EIO, "no"), dead=dead) as trace,
            contextlib.suppress(OSError, Crash),
        ):
            VersionStore(store.path).promote(f"base/{3 - before}", "production")
            assert number(store) == 3 - before
        assert number(store) in (before, 3 - before)
        assert store.verify().ok
        assert json.loads((store.path / "aliases.json").read_bytes())["aliases"]
        if len(trace) < at:
            break
    assert at > 5


def test_two_stores_objects_move_one_alias_in_turn(store: VersionStore) -> None:
    commit(store, "base", 2)
    there = VersionStore(store.path)
    for _ in range(3):
        store.promote("base/1", "production")
        there.promote("base/2", "production")
    assert len(store.alias_log()) == 6
    assert store.rollback("production").number == 1


def test_a_removed_alias_is_gone_its_log_stays_and_a_rebuild_says_the_same(store: VersionStore) -> None:
    commit(store, "base", 3)
    for each in (1, 2):
        store.promote(f"base/{each}", "production")
    store.promote("base/3", "staging")
    move = store.remove_alias("production", why="nobody serves it")
    assert (move.id, move.previous, move.how) == (None, store.get("base/2").id, "remove")
    assert store.alias_log("production")[-1] == move
    assert list(store.aliases()) == ["staging"]
    with pytest.raises(UnknownRef):
        store.get("production")
    for ask in (store.rollback, store.remove_alias):
        with pytest.raises(UnknownRef, match="no alias 'production'"):
            ask("production")
    before = answers(store)
    assert store.verify(full=True).ok
    (store.path / "aliases.json").unlink()
    report = store.rebuild()
    assert (report.aliases, report.problems) == (1, ())
    assert answers(store) == before
    assert store.verify(full=True).ok
    assert store.prune("base/2").versions == (store.get("base/2").id,)  # nothing protects it any more


def test_a_name_that_is_used_again_begins_anew(store: VersionStore) -> None:
    commit(store, "base", 2)
    store.promote("base/1", "production")
    store.remove_alias("production")
    assert store.open_run("production", framework="torch").label == "production"  # the name is free
    store.promote("base/1", "live")
    store.remove_alias("live")
    store.promote("base/2", "live", expect="-")
    with pytest.raises(UnknownRef, match="nothing to roll back to"):
        store.rollback("live")
    assert [(each.how, each.id and store.get(each.id).number) for each in store.alias_log("live")] == [
        ("promote", 1), ("remove", None), ("promote", 2),
    ]  # fmt: skip
    store.rebuild()
    assert number(store, "live") == 2


def test_an_alias_is_removed_only_from_where_it_was_expected(store: VersionStore) -> None:
    commit(store, "base", 2)
    store.promote("base/1", "production")
    for wrong in ("base/2", "-"):
        with pytest.raises(AliasMoved):
            store.remove_alias("production", expect=wrong)
    store.remove_alias("production", expect="base/1")
    with pytest.raises(AliasMoved, match="does not exist"):
        store.remove_alias("production", expect="base/1")
    assert len(store.alias_log()) == 2


@pytest.mark.parametrize("dead", [False, True], ids=["error", "kill"])
def test_bad_input_42_46_an_alias_that_is_removed_is_there_or_not(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch, dead: bool
) -> None:
    version = commit(store, "base", 1)[0]
    for at in range(1, 30):
        if "production" not in store.aliases():
            store.promote("base/1", "production")
        with (
            fault(monkeypatch, at, Crash if dead else lambda: OSError(errno.EIO, "no"), dead=dead) as trace,
            contextlib.suppress(OSError, Crash),
        ):
            VersionStore(store.path).remove_alias("production")
            assert store.aliases() == {}
        assert store.aliases() in ({}, {"production": version.id})
        assert store.verify().ok
        if len(trace) < at:
            break
    assert at > 5


def test_a_removal_that_a_crash_cut_short_is_finished_and_told_by_a_rebuild(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = commit(store, "base", 1)[0]
    store.promote("base/1", "production")

    def crash(*_: object) -> None:
        raise Crash

    with monkeypatch.context() as patch, pytest.raises(Crash):
        patch.setattr(AliasTable, "append", crash)
        store.remove_alias("production")
    assert store.aliases() == {"production": version.id}
    report = store.rebuild()
    assert store.aliases() == {}
    (problem,) = report.problems
    assert "the alias production is removed" in problem and version.short_id in problem
