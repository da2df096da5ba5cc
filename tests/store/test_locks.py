"""Promises of the lock: one at a time, a bounded wait, and a message that says whom to ask."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mvc_callbacks import locks
from mvc_callbacks.errors import StoreLocked, UnsafeFile
from mvc_callbacks.locks import StoreLock

_HOLD = """
import sys
from pathlib import Path
from mvc_callbacks.locks import StoreLock
with StoreLock(Path(sys.argv[1]))("a long save"):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_bad_input_50_the_wait_is_bounded_and_says_who_holds_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    command = [sys.executable, "-c", _HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdin and other.stdout and other.stdout.readline() == b"held\n"
        began = time.monotonic()
        with pytest.raises(StoreLocked) as caught, StoreLock(path, timeout=0.2)("mine"):
            pass
        assert 0.15 < time.monotonic() - began < 5
        message = str(caught.value)
        assert f"process {other.pid}" in message
        assert "a long save" in message
        assert os.uname().nodename in message
        other.communicate(b"\n")
    with StoreLock(path, timeout=0.2)("mine") as works:
        assert works


def test_a_killed_holder_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    command = [sys.executable, "-c", _HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout and other.stdout.readline() == b"held\n"
        other.kill()
        other.wait()
    with StoreLock(path, timeout=1)("mine"):
        pass


def test_the_same_thread_may_take_it_again_and_another_may_not(tmp_path: Path) -> None:
    lock = StoreLock(tmp_path / "lock", timeout=0.05)
    failed: list[BaseException] = []

    def other() -> None:
        try:
            with lock("other"):
                pass
        except StoreLocked as error:
            failed.append(error)

    with lock("outer"):
        with lock("inner") as works:
            assert works
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert len(failed) == 1
    other()
    assert len(failed) == 1


def test_bad_input_50_54_a_forked_child_neither_keeps_the_lock_nor_believes_that_it_has_it(
    tmp_path: Path,
) -> None:
    path = tmp_path / "lock"
    lock = StoreLock(path, timeout=0.05)
    leave, told = os.pipe(), os.pipe()
    with lock("parent"):
        child = os.fork()
        if child == 0:
            try:
                with lock("child"):
                    os.write(told[1], b"took")
            except StoreLocked:
                os.write(told[1], b"none")
            os.read(leave[0], 1)  # a DataLoader's worker that outlives the save
            os._exit(0)
        assert os.read(told[0], 4) == b"none"
    with StoreLock(path, timeout=1)("another"):
        pass
    os.write(leave[1], b"x")
    assert os.waitpid(child, 0)[1] == 0
    for each in (*leave, *told):
        os.close(each)


def test_bad_input_54_a_child_that_leaves_the_block_does_not_close_what_is_not_its_own(
    tmp_path: Path,
) -> None:
    lock = StoreLock(tmp_path / "lock", timeout=0.05)
    child = 1
    with lock("parent"):
        child = os.fork()
        if child == 0:
            mine = os.open(os.devnull, os.O_RDONLY)  # most likely gets the lock's number
    if child == 0:
        try:
            os.fstat(mine)
        except OSError:
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def test_bad_input_51_where_locks_do_not_work_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOLCK, "no locks here")

    monkeypatch.setattr(locks, "_try_lock", refuse)
    with StoreLock(tmp_path / "lock")("saving") as works:
        assert not works


@pytest.mark.parametrize("kind", ["link", "fifo", "folder"])
def test_bad_input_18_a_lock_that_is_no_file_is_refused_and_nothing_is_written_through_it(
    tmp_path: Path, kind: str
) -> None:
    path, outside = tmp_path / "lock", tmp_path / "outside"
    outside.write_bytes(b"precious")
    if kind == "link":
        path.symlink_to(outside)
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.raises(UnsafeFile, match="not a regular file"), StoreLock(path)("saving"):
        pass
    assert outside.read_bytes() == b"precious"
    with StoreLock(tmp_path / "other", timeout=0.1)("afterwards"):
        pass
