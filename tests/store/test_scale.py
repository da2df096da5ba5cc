"""A large store answers as a small one does, and reads no more for it."""

from __future__ import annotations

import io
import itertools
import json
import math
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from store_kit import bits, chunk, commit, edit, expected, many, snapshot

from benchmarks import big
from mvc_callbacks import history, manifests, needs, progress, summaries
from mvc_callbacks.canonical import encode
from mvc_callbacks.errors import CorruptRecord, UnknownRef
from mvc_callbacks.manifests import Entry, Manifest, ManifestFolder
from mvc_callbacks.render_tables import best_of
from mvc_callbacks.store import VersionStore
from mvc_callbacks.tensors import weights_digest
from mvc_callbacks.versions import Monitor


def counted(monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> list[Any]:
    """Count the calls of a method."""
    calls: list[Any] = []
    real: Callable[..., Any] = getattr(owner, name)

    def count(self: Any, *given: Any, **more: Any) -> Any:
        calls.append(given)
        return real(self, *given, **more)

    monkeypatch.setattr(owner, name, count)
    return calls


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Believe folders and files at once, which otherwise takes two seconds."""
    monkeypatch.setattr(summaries, "YOUNG", 0)
    monkeypatch.setattr(needs, "YOUNG", 0)


def runs(store: VersionStore, count: int, each: int = 3) -> None:
    for number in range(count):
        commit(store, f"run-{number}", each)


def test_the_newest_and_the_best_are_found_without_reading_the_other_databases(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch, settled: None
) -> None:
    runs(store, 12)
    VersionStore(store.path).overview()  # the first one on a host reads them all
    reads = counted(monkeypatch, history.AtomicStorage, "read")
    fresh = VersionStore(store.path)
    found = fresh.overview(newest=2)
    assert [f"{each.run}/{each.number}" for each in found.newest] == ["run-11/3", "run-11/2"]
    assert found.versions == 36
    assert len(reads) == 1
    assert fresh.get("best").number == 3
    assert len(reads) <= 3


def test_the_cost_of_looking_does_not_grow_with_the_store(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch, settled: None
) -> None:
    costs = []
    for number in range(8, 40, 8):
        runs(VersionStore(store.path), 0)
        for at in range(number - 8, number):
            commit(store, f"run-{at}", 1)
        VersionStore(store.path).overview()
        with monkeypatch.context() as patch:
            reads = counted(patch, history.AtomicStorage, "read")
            fresh = VersionStore(store.path)
            fresh.overview(newest=1)
            fresh.get("best")
            fresh.get("latest")
            costs.append(len(reads))
    assert len(set(costs)) == 1


def test_while_nothing_changed_one_file_answers_for_all_databases(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch, settled: None
) -> None:
    runs(store, 12)
    store.open_run("empty", framework="torch")  # as a fit leaves it that saved nothing
    before = VersionStore(store.path).overview(newest=4)
    looks = counted(monkeypatch, summaries.Summaries, "of")
    assert VersionStore(store.path).overview(newest=4)[1:] == before[1:]
    assert VersionStore(store.path).get("best").number == 3
    assert VersionStore(store.path).newest_runs(2) == store.newest_runs(2)
    assert not looks
    store.note("run-4/2", "the number of versions is the same")
    VersionStore(store.path).overview()
    assert len(looks) == 1


def test_a_long_first_look_is_shown_to_who_waits_at_a_terminal(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch, settled: None
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    runs(store, 12, 1)
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    monkeypatch.setattr(progress, "PATIENCE", 0)
    store.overview()  # a library does not write to a terminal by itself
    assert terminal.getvalue() == ""
    commit(store, "another", 1)
    asked = VersionStore(store.path)
    asked.show_on_terminal()
    asked.overview()
    assert "reading the history [####################]" in terminal.getvalue()


@pytest.mark.parametrize("seed", range(6))
def test_summaries_answer_as_all_versions_do(store: VersionStore, seed: int) -> None:
    rng = random.Random(seed)
    values = [0.5, 0.25, -1.0, math.nan, math.inf, -math.inf, 3]
    for run in range(7):
        opened = store.open_run(f"run-{run}", framework="torch")
        for number in range(1, rng.randint(2, 5)):
            metrics = {name: rng.choice(values) for name in ("a", "b") if rng.random() < 0.8}
            monitor = rng.choice([None, Monitor("a", "min"), Monitor("b", "max")])
            opened.commit(snapshot(run * 10 + number, state=False), metrics=metrics, monitor=monitor)
    gone = rng.sample([each.id for each in store.versions()], 3)
    store.prune_ids(gone, what="weights", policy="test")
    every = store.versions()
    for asked in (store, VersionStore(store.path), VersionStore(store.path)):
        found = asked.overview(newest=5)
        assert dict(found.best) == best_of(every)
        assert [each.id for each in found.newest] == [each.id for each in every[::-1][:5]]
        assert found.versions == len(every)
        assert set(found.metrics) == {name for each in every for name in each.metrics}
        in_run = asked.overview("run-3", newest=2)
        assert [each.id for each in in_run.newest] == [each.id for each in asked.versions("run-3")[::-1][:2]]


def test_what_changed_since_is_noticed(store: VersionStore) -> None:
    runs(store, 8, 2)
    assert VersionStore(store.path).get("best").number == 2
    best = store.get("run-5/2")
    [better] = commit(store, "better", 1, metrics={"val_loss": 0.001})
    assert VersionStore(store.path).get("best").id == better.id
    store.prune("better/1")
    assert VersionStore(store.path).get("best").id == store.get("run-0/2").id
    store.delete_run("run-0")
    assert VersionStore(store.path).get("best").id == store.get("run-1/2").id
    assert VersionStore(store.path).get("run-5/best").id == best.id
    edit(chunk(store, "run-1"), lambda value: {"versions": {}})
    assert VersionStore(store.path).get("best").id == store.get("run-2/2").id


@pytest.mark.parametrize(
    "damage", [b"", b"no database" * 500, b"SQLite format 3\0" + bytes(5000), b"[]", b'{"runs": {}}']
)
def test_a_damaged_cache_changes_no_answer(
    store: VersionStore, damage: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settled: None
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    runs(store, 8, 2)
    store.prune("run-7/1")
    before = VersionStore(store.path).overview(newest=3)
    caches = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert sorted(path.name.partition("-")[0] for path in caches) == ["needs", "summaries", "totals"]
    for path in caches:
        path.write_bytes(damage)
    assert VersionStore(store.path).overview(newest=3)[1:] == before[1:]
    VersionStore(store.path).prune("run-0/1")
    assert bits(store, "run-0/2") == expected(snapshot(2))
    assert VersionStore(store.path).verify(full=True).ok


def test_a_folder_for_caches_is_not_needed(
    store: VersionStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    runs(store, 8, 2)
    assert store.overview(newest=1).versions == 16
    assert store.get("best").number == 2
    store.prune("run-0/1")
    assert bits(store, "run-1/1") == expected(snapshot(1))


def test_a_removal_reads_the_manifests_of_what_it_removes_and_no_others(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = store.open_run("base", framework="torch")
    for number in range(32):
        run.commit(many(number))
    fresh = VersionStore(store.path)
    reads = counted(monkeypatch, ManifestFolder, "read")
    fresh.prune("base/7")
    assert len(reads) == 1
    assert bits(store, "base/8") == expected(many(7))
    assert store.verify(full=True).ok


def test_a_host_that_never_saw_a_store_reads_every_manifest_once(
    store: VersionStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = store.open_run("base", framework="torch")
    for number in range(20):
        run.commit(many(number))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another host"))
    reads = counted(monkeypatch, ManifestFolder, "read")
    VersionStore(store.path).prune("base/7")
    assert len({digest for (digest,) in reads}) == 20
    reads.clear()
    VersionStore(store.path).prune("base/8")
    assert len(reads) == 1
    assert store.verify(full=True).ok


def test_a_removal_looks_at_times_alone_where_nothing_changed_and_sees_what_others_did(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch, settled: None
) -> None:
    runs(store, 12)
    run = store.open_run("mine", framework="torch")
    mine = [run.commit(snapshot(number + 50)) for number in range(5)]
    run.prune([mine[0].id], what="weights", policy="first")
    run.prune([mine[1].id], what="weights", policy="settled")
    stamped: list[str] = []
    real = needs.stamp_of
    monkeypatch.setattr(needs, "stamp_of", lambda path, **how: (stamped.append(path), real(path, **how))[1])
    run.prune([mine[2].id], what="weights", policy="third")
    history_root = str(store._layout.history.root)
    looked = [path for path in stamped if path.startswith(history_root)]
    assert {Path(path).relative_to(history_root).parts[0] for path in looked} == {"mine"}
    other = VersionStore(store.path)
    other.open_run("another", framework="torch").commit(snapshot(53))  # the weights of the next to go
    run.prune([mine[3].id], what="weights", policy="shared")
    assert not store.get("mine/4").has_weights
    assert bits(store, "another/1") == expected(snapshot(53))
    other.prune("run-3/1")  # another connection: what is kept here is asked for again
    run.prune([mine[4].id], what="weights", policy="last")
    assert store.verify(full=True).ok


def test_a_short_run_notes_its_manifests_when_it_ends(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "from store_kit import commit; from mvc_callbacks import VersionStore\n"
        "commit(VersionStore(sys.argv[1]), 'base', 5)"
    )
    here = str(Path(__file__).parent)
    subprocess.run([sys.executable, "-c", code, str(store.path), here], check=True, timeout=60)
    reads = counted(monkeypatch, ManifestFolder, "read")
    store.prune("base/1")
    assert len({digest for (digest,) in reads}) == 2  # weights and training state of what goes


def test_an_adapter_beside_thousands_of_frozen_tensors_is_told_in_few_bytes_and_read_in_two_steps(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred versions of 3 000 frozen tensors and 60 small trained ones: under 20 KB each, told once."""

    def told() -> int:
        folders = (store.path / name for name in ("manifests", "versions", "runs"))
        found = (path for folder in folders for path in folder.rglob("*.json"))
        return sum(path.stat().st_size for path in found)

    run = store.open_run("lora", framework="torch")
    sizes = [0]
    for number in range(5):
        big.commit(run, f"lora {number}", tensors=3060, size=64, frozen=3000)
        sizes.append(told())
    first, *later = [after - before for before, after in itertools.pairwise(sizes)]
    assert (first + 99 * max(later)) / 100 < 20_000
    reads = counted(monkeypatch, ManifestFolder, "_read")
    tensors = VersionStore(store.path).tensors("lora/5")
    assert len(reads) == 2  # what differs from the first version's, and the first version's
    assert {name: bytes(each.data) for name, each in tensors.items()} == {
        name: bytes(each.data) for name, each in big.state(3060, 64, "lora 4", 3000).tensors.items()
    }


@pytest.mark.parametrize("seed", range(20))
def test_many_manifests_that_refer_to_one_are_believed_as_each_alone_is(
    store: VersionStore, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their digest is told from kept pieces of the base: the same entries, and the same refusals."""
    choice = random.Random(seed)
    store.open_run("any", framework="torch")
    folder = store._layout.manifests

    def entry(name: str) -> Entry:
        digest = f"{choice.getrandbits(256):064x}"
        shape = tuple(choice.randrange(9) for _ in range(choice.randrange(4)))
        pack = digest if choice.random() < 0.5 else f"{choice.randrange(9):064x}"
        return Entry(name, choice.choice(["F32", "BF16", "C128"]), shape, digest, pack)

    def manifest(entries: dict[str, Entry]) -> Manifest:
        told = ((each.name, each.dtype, each.shape, each.digest) for each in entries.values())
        return Manifest(weights_digest(told), tuple(entries.values()))

    names = [f'{place} \u00e9\ud7ff\U0001f600 "quoted"' for place in range(300)]
    choice.shuffle(names)
    first = {name: entry(name) for name in names}
    folder.write(manifest(first))
    base = folder.read(manifest(first).digest)
    told = counted(monkeypatch, manifests._Checked, "resolve")
    for _ in range(5):
        other = dict(first)
        for name in choice.sample(names, 5):
            other[name] = entry(name)
        for name in choice.sample(names, choice.randrange(3)):
            del other[name]
        for place in range(choice.randrange(3)):
            other[f"{place} new"] = entry(f"{place} new")
        written = folder.write(manifest(other), base)
        assert written.base == base.digest
        found = folder.read(written.digest, bases={base.digest: base})
        assert found == folder.read(written.digest)
        assert set(found.entries) == set(other.values())
    assert len(told) == 5
    path = folder.path_of(written.digest)
    whole = json.loads(path.read_bytes())
    one = whole["set"][0]
    for wrong in (
        {"set": [{**one, "digest": "0" * 64}, *whole["set"][1:]]},
        {"set": [{**one, "shape": [77]}, *whole["set"][1:]]},
        {"set": [{**one, "dtype": "F31"}, *whole["set"][1:]]},
        {"set": [one, *whole["set"]]},
        {"set": whole["set"][1:]},
        {"drop": [*whole["drop"], next(each for each in names if each in first and each != one["name"])]},
    ):
        path.write_bytes(encode({**whole, **wrong}))
        with pytest.raises(CorruptRecord):
            folder.read(written.digest, bases={base.digest: base})


def test_weights_are_found_without_parsing_what_does_not_name_them(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch, settled: None
) -> None:
    for number in range(12):
        run = store.open_run(f"run-{number}", framework="torch")
        for _ in range(2):
            run.commit(snapshot(number))
    store.overview()
    reads = counted(monkeypatch, history.AtomicStorage, "read")
    assert store.find_by_weights("f" * 64) is None
    digest = store.get("run-4").weights.digest
    other = store.get("run-11").weights.digest
    store._layout.manifests.remove(other)
    reads.clear()
    found = store.find_by_weights(digest)
    assert found is not None
    assert (found.run, found.number) == ("run-4", 2)
    assert len(reads) == 1
    assert store.find_by_weights(other) is None  # its weights are gone
    newest = store.open_run("newest", framework="torch").commit(snapshot(4))
    store.overview()
    reads.clear()
    assert store.find_by_weights(digest) == newest
    assert len(reads) == 1  # no older database is opened


def test_a_deletion_on_a_host_that_never_saw_the_store_tells_how_far_it_is(
    store: VersionStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = store.open_run("base", framework="torch")
    for number in range(20):
        run.commit(many(number))
    commit(store, "other", 1)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another host"))
    told: list[tuple[int, int]] = []
    VersionStore(store.path).delete_run("other", progress=lambda *each: told.append(each))
    assert [done for done, _ in told] == list(range(1, len(told) + 1))
    assert told[-1][0] == told[-1][1] >= 20
    assert store.verify(full=True).ok


def test_a_manifest_that_was_replaced_keeps_what_it_names_now(store: VersionStore) -> None:
    """Two states share a tensor's pack only since another save wrote the first one's manifest anew."""
    first = commit(store, "first", 1)[0]
    second = commit(store, "second", 1, metrics={"val_loss": 9.0})[0]
    folder = store._layout.manifests
    told = folder.read(first.weights.digest)
    other = store.open_run("other", framework="torch")
    third = other.commit(snapshot(5))
    kept = VersionStore(store.path)
    kept.prune("second/1")  # everything is known now
    # The same tensors, where the third version's frozen ones lie too: what a healing save does.
    shared = {entry.digest: entry.object for entry in folder.read(third.weights.digest).entries}
    entries = tuple(replace(each, object=shared.get(each.digest, each.object)) for each in told.entries)
    folder.write(Manifest(told.digest, entries))
    VersionStore(store.path).prune("other/1")
    assert bits(store, first) == expected(snapshot(1))
    assert second.id != third.id


def test_what_a_user_changes_in_a_version_is_not_written(store: VersionStore) -> None:
    run = store.open_run("base", framework="torch")
    version = run.commit(snapshot(1), metrics={"val_loss": 1.0})
    version.metrics["val_loss"] = 0.0  # type: ignore[index]
    store.get("base/1").metrics["val_loss"] = 0.0  # type: ignore[index]
    run.commit(snapshot(2), metrics={"val_loss": 2.0})
    assert store.get("base/1").metrics == {"val_loss": 1.0}
    assert VersionStore(store.path).get("base/1").metrics == {"val_loss": 1.0}


def test_a_history_that_somebody_else_changed_is_read_again_before_it_is_written(store: VersionStore) -> None:
    run = store.open_run("base", framework="torch")
    run.commit(snapshot(1))
    VersionStore(store.path).note("base/1", "looked at")
    run.commit(snapshot(2))
    assert [note.text for note in store.get("base/1").notes] == ["looked at"]


def test_rows_that_are_not_told_again_are_the_bytes_that_telling_all_gives(store: VersionStore) -> None:
    commit(store, "base", 4)
    store.note("base/2", "a note")
    store.prune("base/1")
    data = chunk(store).read_bytes()
    tables = history.parse(data, chunk(store))
    assert history.encode(tables) == data


def test_a_ref_to_nothing_in_a_large_store_tells_what_there_is(store: VersionStore) -> None:
    runs(store, 8, 1)
    with pytest.raises(UnknownRef, match="known metrics: val_loss"):
        store.get("best:nothing:max")
