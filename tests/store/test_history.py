"""Promises of the history: stock TinyDB reads it, its cost does not grow, and damage is noticed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from store_kit import answers, bits, chunk, commit, edit, expected, fingerprint, snapshot
from tinydb import TinyDB, where

from mvc_callbacks import history
from mvc_callbacks.errors import CorruptHistory, MVCWarning, UnsafeFile
from mvc_callbacks.store import VersionStore


def test_stock_tinydb_opens_every_history_file_and_the_aliases(store: VersionStore) -> None:
    versions = [*commit(store, "one", 3, data={"train": fingerprint("a")}), *commit(store, "two", 2)]
    store.promote("best", "production")
    found = []
    for path in sorted((store.path / "history").glob("*/*.json")):
        with TinyDB(path, access_mode="r") as database:
            assert database.tables() <= {"versions", "fingerprints"}
            found += [document["id"] for document in database.table("versions").all()]
    assert sorted(found) == sorted(version.id for version in versions)
    with TinyDB(store.path / "aliases.json", access_mode="r") as database:
        assert database.table("aliases").get(where("name") == "production")["id"] == store.get("best").id
        assert len(database.table("log")) == 1


def test_a_row_is_slim(store: VersionStore) -> None:
    commit(store, "base", 20, data={"train": fingerprint("a"), "val": fingerprint("b")})
    assert chunk(store).stat().st_size < 20 * 1100


def test_fingerprints_are_told_once_for_all_versions_of_a_run(store: VersionStore) -> None:
    commit(store, "base", 5, data={"train": fingerprint("a"), "val": fingerprint("b")})
    assert chunk(store).read_bytes().count(b"a" * 64) == 1
    assert store.get("base/4").data == {"train": fingerprint("a"), "val": fingerprint("b")}


def test_a_run_rolls_over_to_a_new_file_and_the_old_one_is_not_touched(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "ROLL_OVER", 3)
    run = store.open_run("base", framework="torch")
    for number in range(1, 4):
        run.commit(snapshot(number))
    before = chunk(store).stat().st_ino
    for number in range(4, 9):
        run.commit(snapshot(number))
    assert sorted(path.name for path in chunk(store).parent.iterdir()) == [
        "0001.json",
        "0002.json",
        "0003.json",
    ]
    assert chunk(store).stat().st_ino == before
    assert [version.number for version in store.versions()] == list(range(1, 9))
    assert [store.get(f"base/{number}").number for number in (1, 3, 4, 8)] == [1, 3, 4, 8]
    assert store.get("latest").number == 8


def test_what_a_version_costs_does_not_grow_with_the_store(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "ROLL_OVER", 5)
    reads: list[Path] = []
    real = history.AtomicStorage.read
    monkeypatch.setattr(history.AtomicStorage, "read", lambda self: (reads.append(self.path), real(self))[1])

    def count(call: Callable[[], Any]) -> int:
        reads.clear()
        call()
        return len(reads)

    run = store.open_run("base", framework="torch")
    costs = []
    for number in range(1, 23):
        costs.append(count(lambda number=number: run.commit(snapshot(number, state=False))))  # type: ignore[misc]
    assert max(costs) <= 3
    versions = store.versions()
    for ref in (versions[2].id, versions[20].short_id, "latest", "base", "base/2", "latest~1"):
        assert count(lambda ref=ref: store.get(ref)) <= 4, ref  # type: ignore[misc]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "01_empty": lambda data: b"",
    "01_null": lambda data: b"null",
    "02_truncated": lambda data: data[:-20],
    "03_root_of_wrong_type": lambda data: b"[1]",
    "03_table_of_wrong_type": lambda data: b'{"versions":[]}',
    "03_row_of_wrong_type": lambda data: b'{"versions":{"1":7}}',
    "04_wrong_document_id": lambda data: data.replace(b'"1":{', b'"x":{', 1),
    "04_document_id_with_zero": lambda data: data.replace(b'"2":{"created', b'"02":{"created', 1),
    "04_document_id_of_another": lambda data: data.replace(b'"2":{"created', b'"9":{"created', 1),
    "05_duplicate_key": lambda data: data.replace(b'"epoch":0', b'"epoch":0,"epoch":0', 1),
    "07_bare_nan": lambda data: data.replace(b'"epoch":0', b'"epoch":NaN', 1),
    "07_infinity": lambda data: data.replace(b'"epoch":0', b'"epoch":Infinity', 1),
    "07_1e999": lambda data: data.replace(b'"epoch":0', b'"epoch":1e999', 1),
    "08_nested": lambda data: b"[" * 100_000,
    "08_nested_inside": lambda data: data.replace(b'"epoch":0', b'"epoch":' + b"[" * 100_000, 1),
    "09_long_integer": lambda data: data.replace(b'"epoch":0', b'"epoch":' + b"9" * 5000, 1),
    "10_bom": lambda data: b"\xef\xbb\xbf" + data,
    "10_bad_utf8": lambda data: data.replace(b'"run":"base"', b'"run":"\xff"', 1),
    "10_lone_surrogate": lambda data: data.replace(b'"framework":"torch"', b'"framework":"\\ud800"', 1),
    "03_field_of_wrong_type": lambda data: data.replace(b'"sequence":1', b'"sequence":"1"', 1),
    "03_missing_field": lambda data: data.replace(b'"sequence":1,', b"", 1),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_bad_input_01_02_03_04_05_07_08_09_10_a_damaged_history_is_refused_told_and_made_again(
    store: VersionStore, name: str
) -> None:
    commit(store, "base", 3)
    before = answers(store)
    path = chunk(store)
    damaged = DAMAGE[name](path.read_bytes())
    assert damaged != path.read_bytes()
    path.write_bytes(damaged)
    for ask in (
        store.versions,
        lambda: store.get("base/1"),
        lambda: store.get("latest"),
        lambda: store.prune("base"),
    ):
        with pytest.raises(CorruptHistory, match="mvc rebuild"):
            ask()
    assert path.read_bytes() == damaged
    assert any(problem.kind == "history" for problem in store.verify().problems)
    report = store.rebuild()
    assert report.versions == 3
    assert report.problems
    assert path.with_name("0001.json.damaged").read_bytes() == damaged
    assert answers(store) == before
    assert store.verify(full=True).ok


@pytest.mark.parametrize("name", DAMAGE)
def test_bad_input_01_02_03_04_05_07_08_09_10_a_history_damaged_while_a_run_goes_on_never_restarts_at_1(
    store: VersionStore, name: str
) -> None:
    run = store.open_run("base", framework="torch")
    ids = [run.commit(snapshot(number), epoch=number - 1).id for number in (1, 2)]
    damaged = DAMAGE[name](chunk(store).read_bytes())
    chunk(store).write_bytes(damaged)
    with pytest.warns(MVCWarning, match="damaged"):
        ids.append(run.commit(snapshot(3)).id)
    assert [version.id for version in store.versions()] == ids
    assert [version.number for version in store.versions()] == [1, 2, 3]
    assert chunk(store).with_name("0001.json.damaged").read_bytes() == damaged
    assert store.verify(full=True).ok


def test_bad_input_01_a_history_file_removed_while_a_run_goes_on_is_made_again(store: VersionStore) -> None:
    run = store.open_run("base", framework="torch")
    ids = [run.commit(snapshot(number)).id for number in (1, 2)]
    chunk(store).unlink()
    with pytest.warns(MVCWarning, match="damaged"):
        ids.append(run.commit(snapshot(3)).id)
    assert [version.id for version in store.versions()] == ids


@pytest.mark.parametrize("whole", [True, False])
def test_bad_input_01_a_history_that_is_gone_is_an_error_and_the_next_run_makes_it_again(
    store: VersionStore, whole: bool
) -> None:
    commit(store, "base", 2)
    before = answers(store)
    shutil.rmtree(store.path / "history")
    if not whole:
        (store.path / "history").mkdir()
    with pytest.raises(CorruptHistory, match="mvc rebuild"):
        store.versions()
    with pytest.raises(CorruptHistory, match="mvc rebuild"):
        store.get("latest")
    assert not store.verify().ok
    with pytest.warns(MVCWarning, match="made again"):
        assert store.open_run("base", framework="torch").label == "base-2"
    assert answers(store) == before


def test_bad_input_06_two_rows_of_one_version_are_reported(store: VersionStore) -> None:
    commit(store, "base", 2)

    def double(value: Any) -> None:
        value["versions"]["3"] = {**value["versions"]["2"], "number": 3}

    edit(chunk(store), double)
    assert any("twice" in problem.text for problem in store.verify().problems)
    with pytest.raises(CorruptHistory, match="mvc rebuild"):
        store.get("base/3")
    store.rebuild()
    assert [version.number for version in store.versions()] == [1, 2]
    assert store.verify().ok


def test_bad_input_11_a_history_of_2_gb_is_refused_at_once(store: VersionStore) -> None:
    commit(store, "base", 1)
    before = answers(store)
    with chunk(store).open("r+b") as file:
        file.truncate(2 << 30)
    with pytest.raises(CorruptHistory, match="more than"):
        store.versions()
    store.rebuild()
    assert answers(store) == before


def test_bad_input_12_a_missing_parent_is_reported_and_the_version_is_read(store: VersionStore) -> None:
    first, second = commit(store, "base", 2)
    (store.path / "versions" / first.id[:2] / f"{first.id}.json").unlink()
    edit(chunk(store), lambda value: value["versions"].pop("1") and None)
    assert [problem.kind for problem in store.verify().problems] == ["lineage"]
    assert bits(store, second.id) == expected(snapshot(2))


def test_bad_input_12_a_parent_in_a_cycle_is_no_endless_walk(store: VersionStore) -> None:
    first, second = commit(store, "base", 2)
    edit(
        chunk(store),
        lambda value: value["versions"]["1"]["parents"].append(
            {"id": second.id, "how": "run", "shared": None}
        ),
    )
    with pytest.raises(CorruptHistory, match="mvc rebuild"):
        store.get("latest~900000000")
    assert not store.verify().ok
    assert bits(store, second.id) == expected(snapshot(2))
    assert first.id != second.id


@pytest.mark.parametrize(
    "change",
    [
        {"metrics": {"val_loss": 0.0}},
        {"epoch": 7},
        {"created": "1999-01-01T00:00:00.000000Z"},
        {"monitor": ["val_loss", "max"]},
        {"flags": ["good"]},
        {"parents": []},
        {"data": {}},
    ],
    ids=str,
)
def test_bad_input_14_an_edit_with_stock_tinydb_is_detected_by_the_record(
    store: VersionStore, change: dict[str, Any]
) -> None:
    commit(store, "base", 2, data={"train": fingerprint("a")})
    before = answers(store)
    with TinyDB(chunk(store)) as database:
        database.table("versions").update(change, where("number") == 2)
    for ref in ("base/2", "latest", before["versions"][1].id):
        with pytest.raises(CorruptHistory, match="mvc rebuild"):
            store.get(ref)
    assert store.get("base/1").number == 1
    assert any(problem.kind == "history" for problem in store.verify().problems)
    store.rebuild()
    assert answers(store) == before


@pytest.mark.parametrize(
    "change",
    [
        {"pruned": [{"what": "weights", "time": "2026-01-01T00:00:00.000000Z", "policy": "a joke"}]},
        {
            "evaluations": [
                {"id": "f" * 64, "time": "", "kind_of": "test", "metrics": {"acc": 1.0}, "data": {}}
            ]
        },
    ],
    ids=str,
)
def test_bad_input_14_what_no_event_tells_is_detected_by_verify(
    store: VersionStore, change: dict[str, Any]
) -> None:
    commit(store, "base", 2)
    before = answers(store)
    with TinyDB(chunk(store)) as database:
        database.table("versions").update(change, where("number") == 2)
    assert any("events" in problem.text for problem in store.verify().problems)
    store.rebuild()
    assert answers(store) == before


def test_bad_input_14_a_fingerprint_edited_with_stock_tinydb_is_detected(store: VersionStore) -> None:
    commit(store, "base", 1, data={"train": fingerprint("a")})
    edit(chunk(store), lambda value: value["fingerprints"]["1"].update(digest="b" * 64))
    with pytest.raises(CorruptHistory):
        store.get("latest")


def test_bad_input_20_a_linked_history_folder_is_refused(store: VersionStore, tmp_path: Path) -> None:
    commit(store, "base", 1)
    shutil.move(chunk(store).parent, tmp_path / "elsewhere")
    chunk(store).parent.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UnsafeFile):
        VersionStore(store.path).versions()


@pytest.mark.parametrize("kind", ["link", "folder"])
def test_bad_input_18_a_history_file_that_is_no_file_is_refused_and_kept_beside(
    store: VersionStore, tmp_path: Path, kind: str
) -> None:
    commit(store, "base", 2)
    before = answers(store)
    shutil.move(chunk(store), tmp_path / "elsewhere")
    if kind == "link":
        chunk(store).symlink_to(tmp_path / "elsewhere")
    else:
        chunk(store).mkdir()
    with pytest.raises(CorruptHistory):
        store.versions()
    store.rebuild()
    assert answers(store) == before


def test_junk_beside_the_runs_is_not_a_run(store: VersionStore) -> None:
    commit(store, "base", 1)
    (store.path / "history" / "Thumbs.db").write_bytes(b"junk")
    (store.path / "history" / ".DS_Store").write_bytes(b"junk")
    assert [run.label for run in store.runs()] == ["base"]
    assert store.get("latest").run == "base"


def test_two_fingerprints_never_take_the_same_number(store: VersionStore) -> None:
    run = store.open_run("base", framework="torch")
    run.commit(snapshot(1), data={"train": fingerprint("a")})
    run.commit(snapshot(2), data={"train": fingerprint("b")})

    def renumber(value: Any) -> None:
        value["fingerprints"] = {"1": value["fingerprints"]["1"], "3": value["fingerprints"]["2"]}
        value["versions"]["2"]["data"] = {"train": 3}

    edit(chunk(store), renumber)
    run.commit(snapshot(3), data={"train": fingerprint("c")})
    assert [version.data["train"].digest for version in store.versions()] == ["a" * 64, "b" * 64, "c" * 64]
    assert json.loads(chunk(store).read_bytes())["fingerprints"].keys() == {"1", "3", "4"}
