"""Promises of watching an alias, and of the example that serves what it names."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from neutral_store import make_store

from mvc_callbacks.errors import BadName
from mvc_callbacks.store import VersionStore
from mvc_callbacks.watching import watch

SERVE = Path(__file__).parent.parent / "examples" / "serve.py"


def test_a_watcher_sees_where_the_alias_is_and_each_move_once(tmp_path: Path) -> None:
    store, versions = make_store(tmp_path / "store")
    seconds = 0.0
    moves = {2: versions[0], 3: versions[1], 5: versions[1], 7: versions[0]}

    def sleep(duration: float) -> None:
        nonlocal seconds
        seconds += duration
        if int(seconds) in moves:
            store.promote(moves.pop(int(seconds)), "production")

    seen = watch(store, "production", timeout=10, sleep=sleep, clock=lambda: seconds)
    assert [version.number for version in seen] == [1, 2, 1]
    assert seconds == 17  # ten seconds after the last move


def test_a_watcher_with_no_time_looks_once_and_needs_no_store(tmp_path: Path) -> None:
    assert list(VersionStore(tmp_path / "none").watch("production", timeout=0)) == []
    assert list(tmp_path.iterdir()) == []
    store, versions = make_store(tmp_path / "store")
    store.promote(versions[3], "production")
    assert list(store.watch("production", timeout=0)) == [versions[3]]


def test_a_name_that_no_alias_can_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadName):
        next(VersionStore(tmp_path / "none").watch("latest"))


def test_the_example_serves_another_version_when_the_alias_moves(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    store = VersionStore(tmp_path / "store")
    for value in (1.0, 2.0):
        state = {"weight": torch.full((1, 4), value), "bias": torch.zeros(1)}
        store.commit(state, run="linear")
    server = subprocess.Popen(
        [sys.executable, SERVE, "--store", store.path, "--port", "0"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline().split()[-1])

        def ask() -> Any:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/?x=1,1,1,1", timeout=20) as told:
                return json.load(told)

        for number in (1, 2):
            store.promote(f"linear/{number}", "production")
            assert server.stdout.readline() == f"serving linear/{number}\n"
            assert ask() == {"version": f"linear/{number}", "y": 4.0 * number}
        store.rollback("production")
        assert server.stdout.readline() == "serving linear/1\n"
        assert ask()["y"] == 4.0
    finally:
        server.kill()
        server.communicate()
