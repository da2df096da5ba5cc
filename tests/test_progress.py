"""Waiting at the end of a fit is told on a terminal, as it goes on, and leaves nothing there."""

from __future__ import annotations

import io
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from mvc_callbacks import progress
from mvc_callbacks.objects import ObjectFolder
from mvc_callbacks.plans import Plan
from mvc_callbacks.progress import progress_bar


class Terminal(io.StringIO):
    """A terminal that remembers, and tells when it shows something."""

    def __init__(self, awaited: str = "saving") -> None:
        super().__init__()
        self._awaited = awaited
        self.written = threading.Event()

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if self._awaited in text:
            self.written.set()
        return super().write(text)


def test_a_line_appears_after_a_second_and_is_taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, now = Terminal(), [0.0]
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress_bar("saving", None, terminal=True, clock=lambda: now[0]) as told:
        assert told is not None
        told(0, 2_000_000)
        now[0] = 0.9
        told(1_000_000, 2_000_000)
        assert terminal.getvalue() == ""
        now[0] = 2.0
        told(1_000_000, 2_000_000)
        assert terminal.getvalue() == "\rsaving [##########          ] 1 of 2 MB, 2 s"
        told(2_000_000, 2_000_000)
    *_, blank, end = terminal.getvalue().split("\r")
    assert blank.strip() == end == ""
    assert len(blank) >= len("saving [####################] 2 of 2 MB, 2 s")


def test_what_has_no_known_end_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, now = Terminal(), [0.0]
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress_bar("hashing", None, terminal=True, counted=True, clock=lambda: now[0]) as told:
        assert told is not None
        now[0] = 2.0
        told(1200, 34_000_000)
        assert terminal.getvalue() == "\rhashing 1200 files, 34 MB, 2 s"


def test_without_a_terminal_nothing_is_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "PATIENCE", 0)
    with progress_bar("saving", None, terminal=True) as told:
        assert told is None
    monkeypatch.setattr(sys, "stderr", Terminal())
    with progress_bar("reading", None) as told:  # a library does not write to a terminal by itself
        assert told is None


def test_the_end_of_a_fit_that_has_to_wait_shows_how_far_the_save_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pl = pytest.importorskip("lightning.pytorch")
    from lightning.pytorch.demos.boring_classes import BoringModel

    from mvc_callbacks.lightning import VersionCheckpoint

    terminal = Terminal()
    put = ObjectFolder.put

    def slow(self: ObjectFolder, *args: Any, **kwargs: Any) -> int:
        assert terminal.written.wait(60)
        return put(self, *args, **kwargs)

    monkeypatch.setattr(progress, "PATIENCE", 0)
    monkeypatch.setattr(ObjectFolder, "put", slow)
    monkeypatch.setattr(sys, "stderr", terminal)
    callback = VersionCheckpoint(tmp_path / "store", run="slow")
    options = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(
        max_epochs=1, limit_train_batches=2, limit_val_batches=0, callbacks=[callback], **options
    )
    trainer.fit(BoringModel())
    assert "saving the last version [" in terminal.getvalue()
    assert callback.last_version is not None


def test_the_end_of_a_fit_that_has_to_wait_for_the_fingerprint_shows_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pl = pytest.importorskip("lightning.pytorch")
    from lightning.pytorch.demos.boring_classes import BoringModel

    from mvc_callbacks.lightning import VersionCheckpoint

    terminal = Terminal("hashing the training data 3 files, 3 MB")
    compute = Plan.compute

    def slow(self: Plan, *, progress: Any, **options: Any) -> Any:
        computed = compute(self, progress=progress, **options)
        assert terminal.written.wait(60)
        return computed

    monkeypatch.setattr(progress, "PATIENCE", 0)
    monkeypatch.setattr(Plan, "compute", slow)
    monkeypatch.setattr(sys, "stderr", terminal)
    data = tmp_path / "data"
    data.mkdir()
    for number in range(3):
        (data / f"{number}.bin").write_bytes(bytes(1_000_000))
    callback = VersionCheckpoint(tmp_path / "store", run="slow", data=data)
    options = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(
        max_epochs=1, limit_train_batches=2, limit_val_batches=0, callbacks=[callback], **options
    )
    trainer.fit(BoringModel())
    assert terminal.written.is_set()
    assert callback.last_version is not None
    assert [each.files for each in callback.last_version.data.values()] == [3]
