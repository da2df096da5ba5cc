"""Saves beside prunes, in every order that a scheduler can put their operations in, not only by chance."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from store_kit import bits, expected
from torture_kit import TORTURE, check, disk, figure, shot, stride

from mvc_callbacks import locks, verifying, writing
from mvc_callbacks.errors import MVCError
from mvc_callbacks.layout import Layout
from mvc_callbacks.store import VersionStore
from mvc_callbacks.verifying import Report

_PATIENCE = 60


class _AtOnce:
    """A pool without threads: the scheduler decides what runs."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __enter__(self) -> _AtOnce:
        return self

    def __exit__(self, *_: object) -> None: ...

    def submit(self, what: Callable[..., Any], *args: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(what(*args))
        return done

    def map(self, what: Callable[..., Any], *args: Any) -> Iterator[Any]:
        return map(what, *args)


class Scheduler:
    """Lets one of several threads run at a time, and changes over only where the plan says so.

    Args:
        plan: Pairs of a thread and the number of operations that it may do; what is left when the plan is at
            its end runs in the order of the threads.
    """

    def __init__(self, plan: list[tuple[int, int]]) -> None:
        self._plan = list(plan)
        self._turn = threading.Condition()
        self._names: dict[int, int] = {}
        self._done: set[int] = set()
        self._waiting: set[int] = set()
        self._count = 0
        self.operations = [0, 0]

    def _current(self) -> int | None:
        left = [each for each in (0, 1) if each not in self._done]
        if not left:
            return None
        able = [each for each in left if each not in self._waiting] or left
        while self._plan:
            thread, count = self._plan[0]
            if thread in able and self._count < count:
                return thread
            self._plan.pop(0)
            self._count = 0
        return able[0]

    def _pass(self, thread: int, *, waits: bool) -> None:
        """Wait for one's turn, and take it."""
        with self._turn:
            if waits:
                self._waiting.add(thread)  # for the lock: the other one has to go on
            else:
                self._waiting.clear()
            self._turn.notify_all()
            assert self._turn.wait_for(lambda: self._current() == thread, _PATIENCE), "nobody's turn"
            self._waiting.discard(thread)
            self._count += 1
            self.operations[thread] += not waits
            self._turn.notify_all()

    def operation(self, name: str, args: tuple[Any, ...], real: Callable[..., Any]) -> Any:
        """Do an operation of the disk in one's turn."""
        thread = self._names.get(threading.get_ident())
        if thread is not None:
            self._pass(thread, waits=False)
        return real(*args)

    def pause(self, seconds: float) -> None:
        """Stand in for the pause of who waits for the lock."""
        thread = self._names.get(threading.get_ident())
        if thread is None:
            time.sleep(seconds)
        else:
            self._pass(thread, waits=True)

    def run(self, *works: Callable[[], None]) -> None:
        """Do two things at once, as planned."""
        errors: list[BaseException] = []

        def begin(thread: int, work: Callable[[], None]) -> None:
            self._names[threading.get_ident()] = thread
            try:
                work()
            except BaseException as error:
                errors.append(error)
            finally:
                with self._turn:
                    self._done.add(thread)
                    self._waiting.clear()
                    self._turn.notify_all()

        threads = [
            threading.Thread(target=begin, args=(place, work), daemon=True)
            for place, work in enumerate(works)
        ]
        for each in threads:
            each.start()
        for each in threads:
            each.join(_PATIENCE * 2)
            assert not each.is_alive()
        if errors:
            raise errors[0]


@pytest.fixture(autouse=True)
def _one_thread_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "LARGE", 32)
    monkeypatch.setattr(writing, "ThreadPoolExecutor", _AtOnce)
    monkeypatch.setattr(verifying, "ThreadPoolExecutor", _AtOnce)


class _Clock:
    """Stands where `time` stands in the room of locks."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.sleep = scheduler.pause
        self.monotonic = time.monotonic
        self.strftime = time.strftime
        self.gmtime = time.gmtime


def _play(plan: list[tuple[int, int]], base: Path, path: Path, monkeypatch: pytest.MonkeyPatch) -> Scheduler:
    """Save in one run what is being pruned in another; whatever the order, both must come out."""
    shutil.copytree(base, path)
    saving, pruning = VersionStore(path), VersionStore(path)
    run = saving.open_run("saves", framework="torch")
    victims = [version.id for version in pruning.versions("victim")]
    saved: dict[str, dict[str, bytes]] = {}

    def save() -> None:
        for seed in (1, 2):
            saved[run.commit(shot(seed)).id] = expected(shot(seed))

    def prune() -> None:
        for identity in victims:
            pruning.prune(identity)

    scheduler = Scheduler(plan)
    with monkeypatch.context() as patch, disk(scheduler.operation):
        patch.setattr(locks, "time", _Clock(scheduler))
        scheduler.run(save, prune)
    store = check(path, saved)
    assert all(not store.get(each).has_weights for each in victims)
    for identity, each in saved.items():
        assert bits(store, identity) == each
    shutil.rmtree(path)
    return scheduler


def test_bad_input_49_a_save_beside_a_prune_is_whole_whatever_the_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = VersionStore(tmp_path / "base")
    run = base.open_run("victim", framework="torch")
    for seed in (1, 2):
        run.commit(shot(seed))
    alone = _play([], base.path, tmp_path / "alone", monkeypatch)
    saves, prunes = alone.operations
    assert saves > 50 < prunes
    step = 5 + stride() // 3 if TORTURE else 37
    tried = 0
    for first in range(0, saves, step):
        for second in [*range(1, prunes, step), 10_000]:
            # The save is stopped once, the prune goes so far, the save goes on; then the other way round.
            _play(
                [(0, first), (1, second), (0, 10_000)], base.path, tmp_path / f"{first}-{second}", monkeypatch
            )
            tried += 1
    for first in range(1, prunes, step * 2):
        for second in range(1, saves, step):
            plan = [(1, first), (0, second), (1, 10_000)]
            _play(plan, base.path, tmp_path / f"r{first}-{second}", monkeypatch)
            tried += 1
    for length in range(1, 40 if TORTURE else 4):  # and turn by turn
        plan = [(place % 2, length) for place in range(1000)]
        _play(plan, base.path, tmp_path / f"turns{length}", monkeypatch)
        tried += 1
    figure("interleavings of a save and a prune", tried)


def _verify_beside(
    plan: list[tuple[int, int]], base: Path, path: Path, monkeypatch: pytest.MonkeyPatch, full: bool
) -> Scheduler:
    """Verify what is being pruned; whatever the order, nothing is told that is not so."""
    shutil.copytree(base, path)
    there, pruning = VersionStore(path), VersionStore(path)
    victims = [version.id for version in pruning.versions("victim")]
    reports: list[Report] = []

    def prune() -> None:
        for identity in victims:
            pruning.prune(identity)

    scheduler = Scheduler(plan)
    with monkeypatch.context() as patch, disk(scheduler.operation):
        patch.setattr(locks, "time", _Clock(scheduler))
        scheduler.run(lambda: reports.append(there.verify(full=full)), prune)
    assert reports[0].ok, reports[0].problems
    shutil.rmtree(path)
    return scheduler


@pytest.mark.parametrize("full", [False, True], ids=["quick", "full"])
def test_a_verification_beside_a_prune_tells_nothing_that_is_not_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: bool
) -> None:
    base = VersionStore(tmp_path / "base")
    run = base.open_run("victim", framework="torch")
    for seed in (1, 2):
        run.commit(shot(seed))
    base.open_run("other", framework="torch").commit(shot(3))
    alone = _verify_beside([], base.path, tmp_path / "alone", monkeypatch, full)
    verifies, prunes = alone.operations
    step = 3 + stride() // 3 if TORTURE else 23
    tried = 0
    for first in range(1, prunes, step):  # the prune is stopped once, the verification goes so far
        for second in [*range(1, verifies, 2 * step), 10_000]:
            plan = [(1, first), (0, second), (1, 10_000)]
            _verify_beside(plan, base.path, tmp_path / f"{first}-{second}", monkeypatch, full)
            tried += 1
    for first in range(1, verifies, step):
        plan = [(0, first), (1, prunes // 2), (0, 10_000)]
        _verify_beside(plan, base.path, tmp_path / f"r{first}", monkeypatch, full)
        tried += 1
    figure("interleavings of a verification and a prune", tried)


def test_the_scheduler_sees_a_prune_that_does_not_tell_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scheduler that never finds anything proves nothing."""
    base = VersionStore(tmp_path / "base")
    base.open_run("victim", framework="torch").commit(shot(1))
    monkeypatch.setattr(Layout, "new_epoch", lambda layout: None)
    with pytest.raises((AssertionError, MVCError)):
        for first in range(1, 60, 2):
            plan = [(0, first), (1, 10_000), (0, 10_000)]
            _play(plan, base.path, tmp_path / str(first), monkeypatch)
