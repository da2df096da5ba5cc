"""The saver and side work: order, errors that wait, and nothing left behind."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from mvc_callbacks import saver as saver_room
from mvc_callbacks.saver import Saver, SideWork


@pytest.mark.parametrize("background", [True, False])
def test_jobs_run_in_order(background: bool) -> None:
    saver, done = Saver(background=background), []
    for number in range(20):
        saver.submit(lambda number=number: done.append(number))  # type: ignore[misc]
    saver.wait()
    assert done == list(range(20))
    assert saver.idle


@pytest.mark.skipif(sys.platform != "linux", reason="priorities are of whole processes")
def test_training_has_the_cores_before_work_beside_it() -> None:
    def told() -> None:
        with ThreadPoolExecutor(1) as pool:  # hashing and writing are done by threads that a job starts
            seen.append(pool.submit(_priority).result())

    seen: list[int] = []
    own = _priority()
    saver = Saver()
    saver.submit(told)
    saver.wait()
    SideWork(lambda _: told(), name="beside").wait("it")
    assert seen == [min(own + 10, 19)] * 2
    assert _priority() == own
    Saver(background=False).submit(told)
    assert seen[2] == own


def _priority() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


@pytest.mark.parametrize("background", [True, False])
def test_the_first_error_waits_to_be_taken_and_later_jobs_run(background: bool) -> None:
    saver, done = Saver(background=background), []

    def fail() -> None:
        raise OSError(f"error {len(done)}")

    for job in (fail, lambda: done.append(1), fail):
        saver.submit(job)
    saver.wait()
    assert done == [1]
    assert str(saver.take_error()) == "error 0"
    assert saver.take_error() is None


def test_submitting_does_not_wait_and_no_thread_is_left() -> None:
    saver, go = Saver(), threading.Event()
    saver.submit(go.wait)  # type: ignore[arg-type]
    assert not saver.idle
    go.set()
    saver.wait()
    time.sleep(0.05)
    assert "mvc-saver" not in {thread.name for thread in threading.enumerate()}


def test_ctrl_c_in_a_save_at_once_is_not_kept_for_later() -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    saver = Saver(background=False)
    with pytest.raises(KeyboardInterrupt):
        saver.submit(interrupted)
    assert saver.take_error() is None


def test_a_long_wait_says_what_for(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mvc_callbacks.saver.PATIENCE", 0.01)
    saver = Saver()
    with caplog.at_level("INFO"):
        saver.submit(lambda: time.sleep(0.1))
        saver.wait("the disk")
        SideWork(lambda cancelled: time.sleep(0.1), name="side").wait("the data")
    assert [record.message for record in caplog.records if "waiting" in record.message] == [
        "waiting for the disk",
        "waiting for the data",
    ]


EXIT = """
import threading, time
from concurrent.futures import ThreadPoolExecutor
from mvc_callbacks.saver import Saver

def job():
    time.sleep(0.3)
    with ThreadPoolExecutor(2) as pool:  # refused once the interpreter has begun to go down
        print(sum(pool.map(abs, range(-3, 0))), flush=True)

saver = Saver()
saver.submit(job)
saver.submit(lambda: print("last", flush=True))
"""


def test_an_interpreter_that_exits_waits_for_the_jobs() -> None:
    done = subprocess.run(
        [sys.executable, "-c", EXIT], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.split() == ["6", "last"], done.stderr


def test_side_work_can_be_cancelled_and_hides_no_error(caplog: pytest.LogCaptureFixture) -> None:
    def until(cancelled: Callable[[], bool]) -> None:
        while not cancelled():
            time.sleep(0.01)
        raise ValueError("stopped")

    work = SideWork(until, name="mvc-test")
    assert not work.done
    work.cancel()
    work.wait("it")
    assert work.done
    assert "mvc-test ended with an error" in caplog.text


def test_where_no_thread_starts_any_more_a_job_runs_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    saver, ran = Saver(), []
    saver.submit(lambda: ran.append(threading.current_thread()))
    assert ran == [threading.main_thread()] and saver.idle


def test_an_interpreter_that_goes_down_already_or_has_no_such_hook_saves_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def late(hook: Callable[[], None]) -> None:
        raise RuntimeError("can't register atexit after shutdown")

    for change in (
        lambda patch: patch.setattr(threading, "_register_atexit", late),
        lambda patch: patch.delattr(threading, "_register_atexit"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(saver_room, "_registered_in", None)
            change(patch)
            saver, done = Saver(), []
            saver.submit(lambda done=done: done.append(1))  # type: ignore[misc]
            saver.wait()
        assert done == [1]


def test_savers_are_waited_for_in_the_process_that_made_them_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    saver, go, done = Saver(), threading.Event(), []
    saver.submit(lambda: done.append(go.wait()))
    with monkeypatch.context() as patch:
        patch.setattr(saver_room, "_registered_in", os.getpid() + 1)  # as a forked worker sees it
        saver_room._drain()
    assert done == [] and not saver.idle
    threading.Timer(0.05, go.set).start()
    saver_room._drain()
    assert done == [True] and saver.idle


def test_where_priorities_are_of_whole_processes_they_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.delattr(os, "setpriority", raising=False)
    saver_room.give_way()
