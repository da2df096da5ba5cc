"""Caches of the host that fail while they are used: every answer stays what it was, and nothing is lost."""

from __future__ import annotations

import gc
import logging
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from store_kit import bits, chunk, commit, edit, expected, snapshot

from mvc_callbacks import history, needs, summaries, totals
from mvc_callbacks.manifests import Manifest, ManifestFolder
from mvc_callbacks.store import VersionStore


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, which believes folders and files at once."""
    monkeypatch.setattr(summaries, "YOUNG", 0)
    monkeypatch.setattr(needs, "YOUNG", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def database(cache: Path, name: str) -> sqlite3.Connection:
    """Open a database of the cache, as another program may."""
    [path] = cache.rglob(f"{name}-1-*.sqlite")
    return sqlite3.connect(path, isolation_level=None, timeout=0)


def whole(store: VersionStore) -> None:
    assert store.verify(full=True).ok
    for version in store.versions():
        if version.has_weights:
            assert bits(store, version) == expected(snapshot(version.number))


# --- what versions need ---


def test_a_removal_goes_on_where_the_tables_of_what_is_needed_are_gone(
    store: VersionStore, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    commit(store, "base", 4)
    store.prune("base/1")
    other = database(cache, "needs")
    other.execute("DROP TABLE manifests")
    other.close()
    with caplog.at_level(logging.INFO):
        store.prune("base/2")
    assert "what versions need cannot be remembered: no such table: manifests" in caplog.text
    assert [version.has_weights for version in store.versions()] == [False, False, True, True]
    whole(store)


def test_a_removal_whose_answer_cannot_be_kept_goes_on_and_asks_anew(
    store: VersionStore, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(needs, "_PATIENCE", 1)
    commit(store, "base", 4)
    store.prune("base/1")
    other = database(cache, "needs")
    other.execute("BEGIN")
    other.execute("SELECT * FROM chunks").fetchall()  # somebody reads, and nobody can write to the end
    with caplog.at_level(logging.INFO):
        store.prune("base/2")
    assert "what versions need cannot be remembered: database is locked" in caplog.text
    other.close()
    store.prune("base/3")
    assert [version.has_weights for version in store.versions()] == [False, False, False, True]
    whole(store)


@pytest.mark.parametrize("what", ["in use", "gone"])
def test_a_save_that_cannot_note_its_manifests_goes_on(
    what: str, store: VersionStore, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(needs, "_NOTED", 1)
    run = store.open_run("base", framework="torch")
    run.commit(snapshot(1))
    other = database(cache, "needs")
    other.execute("BEGIN EXCLUSIVE" if what == "in use" else "DROP TABLE manifests")
    run.commit(snapshot(2))
    other.close()
    run.commit(snapshot(3))
    store.prune("base/1")
    whole(store)


def test_a_short_run_that_ends_where_the_cache_is_no_database_leaves_it_to_the_next(
    store: VersionStore, cache: Path
) -> None:
    commit(store, "base", 3)
    store.prune("base/1")
    [path] = cache.rglob("needs-1-*.sqlite")
    path.write_bytes(b"garbage" * 1000)
    run = VersionStore(store.path).open_run("short", framework="torch")
    run.commit(snapshot(1))
    del run
    gc.collect()
    assert not path.exists()  # a damaged one is removed
    VersionStore(store.path).prune("base/2")
    assert path.exists()
    whole(store)


def test_a_manifest_that_is_written_anew_while_it_is_read_is_read_again(
    store: VersionStore, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(store, "base", 3)
    real, reads = ManifestFolder.read, []

    def read(self: ManifestFolder, digest: str, **how: Any) -> Manifest:
        told = real(self, digest, **how)
        reads.append(digest)
        if reads == [digest]:
            path = self.path_of(digest)
            data = path.read_bytes()
            path.unlink()
            path.write_bytes(data)
        return told

    monkeypatch.setattr(ManifestFolder, "read", read)
    VersionStore(store.path).prune("base/1")
    assert reads[0] == reads[1] != reads[2]
    whole(store)


# --- what all versions come to ---


def test_a_long_run_is_summed_up_by_its_databases(
    store: VersionStore, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "ROLL_OVER", 1)
    commit(store, "long", 7)
    assert len(list((store.path / "history" / "long").glob("*.json"))) == 7
    found = VersionStore(store.path).overview("long", newest=2)
    assert [version.number for version in found.newest] == [7, 6]
    assert found.versions == 7 and store.get("long/best").number == 7


@pytest.mark.parametrize("table", ["folders", "summaries"])
@pytest.mark.parametrize("how", ["gone", "read only"])
def test_sums_that_cannot_be_recalled_or_remembered_are_made_anew(
    table: str, how: str, store: VersionStore, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(8):
        commit(store, f"run-{number}", 1)
    before = VersionStore(store.path).overview(newest=3)
    other = database(cache, "summaries")
    if how == "gone":
        other.execute(f"DROP TABLE {table}")
        other.execute(f"CREATE VIEW {table} AS SELECT 1 AS run")
    else:
        other.execute(f"CREATE TRIGGER no BEFORE INSERT ON {table} BEGIN SELECT RAISE(FAIL, 'full'); END")
    other.close()
    commit(store, "run-8", 1)
    with caplog.at_level(logging.INFO):
        found = VersionStore(store.path).overview(newest=3)
    assert (found.versions, found.newest[0].run) == (9, "run-8")
    assert found.newest[1].id == before.newest[0].id
    assert "what the history comes to cannot be remembered" in caplog.text
    assert ("cannot be recalled" in caplog.text) == (how == "gone")


def test_a_history_that_changes_while_it_is_summed_up_is_summed_up_again(
    store: VersionStore, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(6):
        commit(store, f"run-{number}", 1)
    run = store.open_run("busy", framework="torch")
    run.commit(snapshot(1))
    real, more = summaries.Summary.of, [snapshot(2)]

    def of(rows: Any) -> Any:
        told = real(rows)
        if more and rows[0]["run"] == "busy":
            run.commit(more.pop())
        return told

    with monkeypatch.context() as patch:
        patch.setattr(summaries.Summary, "of", staticmethod(of))
        assert VersionStore(store.path).overview().versions == 7
    assert VersionStore(store.path).overview().versions == 8


def test_runs_that_came_since_are_in_the_sum_of_all(store: VersionStore, cache: Path) -> None:
    for number in range(6):
        commit(store, f"run-{number}", 1)
    assert VersionStore(store.path).overview().versions == 6
    assert list(cache.rglob("totals-1-*.json"))
    commit(store, "another", 1)
    assert VersionStore(store.path).overview().versions == 7


def test_a_history_that_somebody_writes_over_in_its_place_is_read_again(
    store: VersionStore, cache: Path
) -> None:
    for number in range(6):
        commit(store, f"run-{number}", 1)
    assert VersionStore(store.path).overview().versions == 6
    edit(chunk(store, "run-3"), lambda value: {"versions": {}})
    assert VersionStore(store.path).overview().versions == 5


def test_where_there_is_no_home_folder_nothing_is_remembered(
    store: VersionStore, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(name: str) -> Path:
        raise RuntimeError("Could not determine home directory.")

    for room in (totals, summaries, needs):
        monkeypatch.setattr(room, "cache_folder", fails)
    for number in range(8):
        commit(store, f"run-{number}", 2)
    for _ in range(2):
        assert VersionStore(store.path).overview(newest=1).versions == 16
    VersionStore(store.path).prune("run-0/1")
    assert not cache.exists()
    whole(store)
