"""Ctrl-C and SIGTERM: held back to the end of a step, given back, and left alone where they are another's."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest

from mvc_callbacks import interrupts
from mvc_callbacks.interrupts import Deferral

BOTH = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture(autouse=True)
def _as_python_begins() -> Iterator[None]:
    """Let each test begin with the handlers of a fresh interpreter, and leave those of pytest."""
    before = {each: signal.getsignal(each) for each in BOTH}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    for each, handler in before.items():
        signal.signal(each, handler)


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Keep what would kill, as the first process of a container lives through it."""
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(interrupts.os, "kill", lambda *given: told.append(given))
    return told


def test_sigterm_waits_for_the_end_of_the_step_and_ends_the_process_then(
    killed: list[tuple[int, int]], caplog: pytest.LogCaptureFixture
) -> None:
    deferral = Deferral(BOTH)
    deferral.begin()
    assert not deferral.asked
    deferral.raise_if_asked()
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGTERM)  # a second one asks for nothing more
    assert deferral.asked and killed == []
    assert [record.message for record in caplog.records] == ["SIGTERM: stopping at the end of this step"]
    with pytest.raises(SystemExit) as ended:
        deferral.raise_if_asked()
    assert ended.value.code == 128 + signal.SIGTERM
    assert killed == [(os.getpid(), signal.SIGTERM)]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_ctrl_c_acts_at_once() -> None:
    deferral = Deferral(BOTH)
    deferral.begin()
    signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert not deferral.asked
    deferral.end()


def test_ctrl_c_after_sigterm_ends_the_process_at_once() -> None:
    deferral = Deferral(BOTH)
    deferral.begin()
    signal.raise_signal(signal.SIGTERM)
    with pytest.raises((SystemExit, KeyboardInterrupt)) as ended:
        signal.raise_signal(signal.SIGINT)
    assert isinstance(ended.value, SystemExit)
    assert ended.value.code == 128 + signal.SIGTERM
    assert not deferral.asked
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_sigterm_after_ctrl_c_is_what_acts_at_the_end_of_the_step(
    killed: list[tuple[int, int]], caplog: pytest.LogCaptureFixture
) -> None:
    deferral = Deferral(BOTH)
    deferral.begin()
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGTERM)
    assert deferral.asked and killed == []
    assert [record.message.partition(":")[0] for record in caplog.records] == ["Ctrl-C", "SIGTERM"]
    with pytest.raises((SystemExit, KeyboardInterrupt)):
        deferral.raise_if_asked()
    assert killed == [(os.getpid(), signal.SIGTERM)]


def test_sigterm_that_waited_for_the_end_of_a_step_that_failed_acts_with_what_comes_next(
    killed: list[tuple[int, int]],
) -> None:
    failed: list[bool] = []

    def over(frame: FrameType | None) -> bool | None:
        return None if failed else True

    def begin_another() -> None:
        Deferral(BOTH).begin()

    for then in (lambda: signal.raise_signal(signal.SIGINT), begin_another):
        failed.clear()
        deferral = Deferral(BOTH, over)
        deferral.begin()
        signal.raise_signal(signal.SIGTERM)
        failed.append(True)
        with pytest.raises((SystemExit, KeyboardInterrupt)) as ended:
            then()
        assert isinstance(ended.value, SystemExit)
    assert killed == [(os.getpid(), signal.SIGTERM)]  # Ctrl-C leaves time for what is being saved


def test_ctrl_c_that_waited_for_the_end_of_a_step_that_failed_is_forgotten() -> None:
    deferral = Deferral(BOTH)
    deferral.begin()
    signal.raise_signal(signal.SIGINT)
    deferral.over()  # its error is what ended the training
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_acts_at_once_where_no_step_goes_on() -> None:
    deferral = Deferral()
    deferral.begin()
    deferral.hold(False)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    deferral.hold(True)
    signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        deferral.raise_if_asked()
    deferral.end()


def test_where_training_is_over_ctrl_c_has_its_usual_meaning_again() -> None:
    seen: list[FrameType | None] = []

    def over(frame: FrameType | None) -> bool | None:
        seen.append(frame)
        return None

    deferral = Deferral(goes_on=over)
    deferral.begin()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert seen and isinstance(seen[-1], FrameType)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_one_that_is_over_and_was_not_ended_makes_room_for_the_next() -> None:
    forgotten = Deferral(goes_on=lambda frame: None)
    forgotten.begin()
    running = Deferral()
    running.begin()
    signal.raise_signal(signal.SIGINT)
    assert running.asked and not forgotten.asked
    inner = Deferral()  # the one that goes on keeps its signal
    inner.begin()
    assert signal.getsignal(signal.SIGINT) == running._handle
    inner.end()
    running.end()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_of_somebody_else_is_left_alone() -> None:
    def theirs(number: int, frame: FrameType | None) -> Any:
        pass

    signal.signal(signal.SIGINT, theirs)
    deferral = Deferral(BOTH)
    deferral.begin()
    assert signal.getsignal(signal.SIGINT) is theirs
    signal.signal(signal.SIGTERM, theirs)  # put there meanwhile
    deferral.end()
    assert signal.getsignal(signal.SIGTERM) is theirs


def test_another_thread_than_the_first_has_no_signals() -> None:
    deferral = Deferral(BOTH)

    def both() -> None:
        deferral.begin()
        deferral.end()

    thread = threading.Thread(target=both)
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    deferral.begin()
    for end in (deferral.end, deferral.over):
        thread = threading.Thread(target=end)
        thread.start()
        thread.join()
        assert signal.getsignal(signal.SIGTERM) == deferral._handle
    deferral.end()
