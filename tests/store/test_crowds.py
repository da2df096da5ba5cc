"""Real processes: killed at any moment, and many at once in one store."""

from __future__ import annotations

import random
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from forker import Child, Forker
from store_kit import bits, expected
from torture_kit import Small, age, check, figure, scale, shot, small_store, staged

from mvc_callbacks import writing
from mvc_callbacks.errors import StoreLocked
from mvc_callbacks.store import VersionStore


@pytest.fixture(autouse=True)
def _small_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "LARGE", 32)


@pytest.fixture(scope="module")
def forker() -> Iterator[Forker]:
    with Forker("workers", Path(__file__).parent) as started:
        yield started


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "LARGE", 32)
        return small_store(tmp_path_factory.mktemp("small") / "store")


def _acknowledged(child: Child) -> dict[str, dict[str, bytes]]:
    return {line[1]: expected(shot(line[2])) for line in child.lines() if line[0] == "saved"}


def _kill(child: Child, dice: random.Random, longest: float) -> None:
    child.wait_for_line(60)
    time.sleep(dice.random() * longest)
    child.kill()


def test_bad_input_46_runs_that_are_killed_lose_nothing_acknowledged(
    small: Small, forker: Forker, tmp_path: Path
) -> None:
    dice, kills, saved = random.Random(46), scale(28, 560), 0
    a_store = 7
    for first in range(0, kills, a_store):
        path = tmp_path / f"store{first}"
        small.copy(path)
        promised = dict(small.promised)
        for turn in range(a_store):
            # Every second one saves what the one before it was about to save.
            child = forker.start(
                "save", tmp_path / f"out{first}-{turn}", str(path), "killed", turn // 2 * 10, 1000
            )
            _kill(child, dice, 0.08)
            promised |= _acknowledged(child)
            store = check(path, promised)
            saved += len(_acknowledged(child))
        before = {version.id for version in store.versions()}
        store.rebuild()
        assert before <= {version.id for version in store.versions()}
        age(path / "tmp")
        store.open_run("after", framework="torch").commit(shot(0))
        assert staged(path / "tmp") == []
        check(path, promised)
        shutil.rmtree(path)
    figure("processes killed while saving", -(-kills // a_store) * a_store)
    figure("versions acknowledged by killed processes", saved)


COMMANDS: dict[str, tuple[str, ...]] = {
    "log": ("log",),
    "promote": ("promote", "base/4", "production"),
    "rollback": ("rollback", "production"),
    "remove-alias": ("remove-alias", "production"),
    "prune": ("prune", "--keep-last", "1"),
    "prune one": ("prune", "base/3"),
    "delete": ("delete", "--run", "base"),
    "rebuild": ("rebuild",),
    "verify": ("verify", "--full"),
    "export": ("export", "other/1", "{beside}"),
}


def test_bad_input_46_commands_that_are_killed_lose_nothing(
    small: Small, forker: Forker, tmp_path: Path
) -> None:
    dice, kills, done = random.Random(47), scale(len(COMMANDS) * 2 + 2, 340), 0
    names = list(COMMANDS)
    for turn in range(kills):
        name = names[turn % len(names)]
        path, beside = tmp_path / f"store{turn}", tmp_path / f"exported{turn}"
        store = small.copy(path)
        gone: frozenset[str] = frozenset()
        if name in ("prune", "prune one", "delete"):
            gone = frozenset(version.id for version in store.versions())
        args = [each.format(beside=beside) for each in COMMANDS[name]]
        child = forker.start("command", tmp_path / f"out{turn}", str(path), *args)
        _kill(child, dice, 0.08)
        done += ["done", 0] in child.lines()
        after = check(path, small.promised, maybe_gone=gone)
        moved = {store.get("base/2").id, store.get("base/4").id, store.get("other/1").id} if not gone else {}
        assert not moved or after.aliases().get("production") in moved or name == "remove-alias"
        if name == "export" and beside.exists():
            from mvc_callbacks.packs import parse_header

            data = beside.read_bytes()
            assert parse_header(data, len(data))
        shutil.rmtree(path)
    figure("processes killed in a command", kills)
    figure("commands that were done before they were killed", done)


def test_every_command_that_is_killed_gets_through_when_it_is_not(
    small: Small, forker: Forker, tmp_path: Path
) -> None:
    """A command that fails at its arguments would be killed for nothing."""
    children = {}
    for name, args in COMMANDS.items():
        small.copy(tmp_path / name)
        told = [each.format(beside=tmp_path / "exported") for each in args]
        children[name] = forker.start("command", tmp_path / f"out {name}", str(tmp_path / name), *told)
    for name, child in children.items():
        child.wait(60)
        assert ["done", 0] in child.lines(), name


def test_bad_input_48_49_many_save_beside_one_that_prunes_and_one_that_verifies(
    forker: Forker, tmp_path: Path
) -> None:
    count, savers = scale(4, 200), 8
    path = tmp_path / "store"
    VersionStore(path).open_run("victim", framework="torch").commit(shot(0))
    # Savers share seeds, so that each finds objects of others; what victims save is pruned all the time.
    runs = [(f"{'victim' if place % 4 == 3 else 'run'}{place}", place % 3 * count) for place in range(savers)]
    children = [
        forker.start("save", tmp_path / f"out{place}", str(path), label, first, count)
        for place, (label, first) in enumerate(runs)
    ]
    others = [forker.start(name, tmp_path / f"out-{name}", str(path), 3000.0) for name in ("prune", "verify")]
    for child in children:
        child.wait(3000)
        assert ["done"] in child.lines()
    (tmp_path / "stop").touch()
    for child in others:
        child.wait(120)
        assert child.lines()[-1][0] == "done"
        assert [line for line in child.lines() if line[0] == "problem"] == []
    store = VersionStore(path)
    pruned = {identity for line in others[0].lines() if line[0] == "pruning" for identity in line[1]}
    told = [line for child in children for line in child.lines() if line[0] == "saved"]
    assert len({line[1] for line in told}) == savers * count
    assert {line[1] for line in told} <= {version.id for version in store.versions()}
    restored = 0
    for version in store.versions():
        assert version.has_weights or version.id in pruned
    for _, identity, seed in told:
        if store.get(identity).has_weights:
            assert bits(store, identity) == expected(shot(seed))
            restored += 1
    assert restored >= savers * count * 3 // 4
    assert store.verify(full=True).ok
    sequences = [version.sequence for version in store.versions()]
    assert len(set(sequences)) == len(sequences)
    figure("versions saved at once by 8 processes", len(told))
    figure("versions pruned meanwhile", len(pruned))
    figure("verifications meanwhile", others[1].lines()[-1][1])


def test_bad_input_52_two_hosts_over_a_slow_folder_save_beside_each_other(
    forker: Forker, tmp_path: Path
) -> None:
    path, count = tmp_path / "store", scale(2, 20)
    children = [
        forker.start("save_slowly", tmp_path / host, str(path), "run", 0, count, host) for host in "ab"
    ]
    for child in children:
        child.wait(900)
        assert ["done"] in child.lines()
    promised = {**_acknowledged(children[0]), **_acknowledged(children[1])}
    store = check(path, promised)
    assert len(promised) == 2 * count == len(store.versions())
    assert {version.run for version in store.versions()} == {"run", "run-2"}
    figure("versions of two hosts with 5 ms a metadata operation", len(promised))


def test_bad_input_50_52_a_lock_of_another_host_is_waited_for_and_not_broken(
    forker: Forker, tmp_path: Path
) -> None:
    store = VersionStore(tmp_path / "store")
    store.open_run("base", framework="torch").commit(shot(1))
    child = forker.start("hold", tmp_path / "out", str(store.path))
    child.wait_for_line(60)
    store._layout.lock.timeout = 0.3
    began = time.monotonic()
    with pytest.raises(StoreLocked, match=rf"process {child.pid} on .* \(holding on to it\)"):
        store.promote("base/1", "production")
    assert time.monotonic() - began < 5
    assert bits(store, "base/1") == expected(shot(1))  # reading needs no lock
    child.kill()
    store.promote("base/1", "production")


def test_bad_input_56_a_copy_made_while_it_is_written_has_what_was_acknowledged(
    forker: Forker, tmp_path: Path
) -> None:
    copies, a_store = scale(4, 60), 4  # a store that grows for minutes takes minutes to copy
    for turn in range(copies):
        path, target = tmp_path / f"store{turn // a_store}", tmp_path / f"copy{turn}"
        if turn % a_store == 0:
            VersionStore(path).open_run("base", framework="torch").commit(shot(0))
            child = forker.start("save", tmp_path / f"out{turn}", str(path), "run", 1, 100_000)
            child.wait_for_line(60)
        time.sleep(0.05)
        promised = _acknowledged(child)
        try:
            shutil.copytree(path, target)
        except shutil.Error as error:  # a staged file, or a replaced one, went meanwhile
            assert all("tmp" in each[0] for each in error.args[0]), error
        if turn % a_store == a_store - 1 or turn == copies - 1:
            child.kill()
        copy = VersionStore(target)
        assert promised.keys() <= {version.id for version in copy.versions()}
        report = copy.verify(full=True)
        hurt = {identity for problem in report.problems for identity in problem.versions}
        for version in copy.versions():
            if version.id in promised:
                assert bits(copy, version) == promised[version.id]
                assert version.id not in hurt
            elif version.id not in hurt:
                assert bits(copy, version)
        shutil.rmtree(target)
    figure("stores copied while they were written", copies)


def test_bad_input_48_54_threads_of_one_process_save_beside_each_other(tmp_path: Path) -> None:
    promised: dict[str, dict[str, bytes]] = {}

    def save(place: int) -> None:
        run = VersionStore(tmp_path / "store").open_run("run", framework="torch")
        for seed in range(3):
            promised[run.commit(shot(place + seed)).id] = expected(shot(place + seed))

    threads = [threading.Thread(target=save, args=(place,)) for place in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    assert len(promised) == 12
    check(tmp_path / "store", promised)
