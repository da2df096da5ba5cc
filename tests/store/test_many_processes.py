"""Promises kept between processes: real ones, at once, and killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from store_kit import bits, commit, expected, snapshot

from mvc_callbacks.store import VersionStore

HERE = Path(__file__).parent
SAVE = """
import sys
sys.path[:0] = [sys.argv[1]]
from store_kit import many, snapshot
from mvc_callbacks.store import VersionStore
store = VersionStore(sys.argv[2])
start, count = int(sys.argv[4]), int(sys.argv[5])
sys.stdin.readline()
run = store.open_run(sys.argv[3], framework="torch")
for number in range(start, start + count):
    print(run.commit(snapshot(number)).id, number, flush=True)
"""
PRUNE = """
import sys
sys.path[:0] = [sys.argv[1]]
from mvc_callbacks.store import VersionStore
store = VersionStore(sys.argv[2])
sys.stdin.readline()
for _ in range(int(sys.argv[3])):
    store.prune(keep_last=3)
"""


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", "-c", script, str(HERE), *map(str, arguments)]
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")]),
    }
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
    )


def together(processes: Sequence[subprocess.Popen[str]]) -> list[str]:
    for process in processes:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    found = []
    for process in processes:
        out, error = process.communicate(timeout=120)
        assert process.returncode == 0, error
        found.append(out)
    return found


def test_bad_input_48_two_processes_that_save_at_once_into_a_new_store_are_both_complete(
    store: VersionStore,
) -> None:
    outputs = together([start(SAVE, store.path, "base", 0, 20), start(SAVE, store.path, "base", 10, 20)])
    told = {line.split()[0]: int(line.split()[1]) for out in outputs for line in out.splitlines()}
    assert len(told) == 40
    versions = store.versions()
    assert {version.id for version in versions} == set(told)
    assert {version.run for version in versions} == {"base", "base-2"}
    for label in ("base", "base-2"):
        assert [version.number for version in store.versions(label)] == list(range(1, 21))
    assert [version.sequence for version in versions] == list(range(1, 41))
    for identity, number in told.items():
        assert bits(store, identity) == expected(snapshot(number))
    assert store.verify(full=True).ok
    assert list((store.path / "tmp").glob("*.staged")) == []
    store.rebuild()
    assert store.versions() == versions


def test_bad_input_49_saves_beside_a_process_that_prunes_lose_nothing(store: VersionStore) -> None:
    commit(store, "old", 4)
    outputs = together(
        [
            start(SAVE, store.path, "one", 0, 12),
            start(SAVE, store.path, "two", 6, 12),
            start(PRUNE, store.path, 25),
        ]
    )
    told = {line.split()[0]: int(line.split()[1]) for out in outputs for line in out.splitlines()}
    assert len(told) == 24
    store.prune(keep_last=3)
    left = [version for version in store.versions() if version.has_weights]
    assert len(left) == 9
    for version in left:
        if version.id in told:
            assert bits(store, version) == expected(snapshot(told[version.id]))
            assert store.training_state(version)
    assert store.verify(full=True).ok


def test_bad_input_46_a_process_killed_at_any_moment_loses_no_version_that_it_told_of(
    store: VersionStore,
) -> None:
    chance = random.Random(7)
    told: dict[str, int] = {}
    for turn in range(8):
        process = start(SAVE, store.path, "base", turn * 100, 100)
        assert process.stdin
        assert process.stdout
        process.stdin.write("\n")
        process.stdin.flush()
        lines = [process.stdout.readline()]
        time.sleep(chance.uniform(0, 0.06))
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.read().splitlines()
        process.wait()
        for line in lines:
            if len(line.split()) == 2 and len(line.split()[0]) == 64:
                told[line.split()[0]] = int(line.split()[1])
        process.communicate()
        there = VersionStore(store.path)
        assert told.keys() <= {version.id for version in there.versions()}
        assert there.get("latest") == there.versions()[-1]
        assert there.verify(full=True).ok
    for identity, number in told.items():
        assert bits(store, identity) == expected(snapshot(number))
    store.rebuild()
    store.prune(keep_last=10_000)
    assert told.keys() <= {version.id for version in store.versions()}
    assert store.verify(full=True).ok


@pytest.mark.parametrize("framework", ["torch", "numpy", "lightning", "tensorflow", "keras"])
def test_the_store_imports_no_framework(store: VersionStore, framework: str) -> None:
    script = f"{SAVE}\nassert {framework!r} not in sys.modules"
    together([start(script, store.path, "base", 0, 1)])
