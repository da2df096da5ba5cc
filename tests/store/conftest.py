"""A store in a folder of its own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mvc_callbacks.store import VersionStore


@pytest.fixture
def store(tmp_path: Path) -> VersionStore:
    """A store that is not made yet."""
    return VersionStore(tmp_path / "store")


@pytest.fixture(autouse=True)
def _no_power_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out waiting for the disk: no test here can cut the power, and those of faults count the calls."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
