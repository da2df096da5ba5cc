"""Every test here runs a real Trainer, in a folder of its own."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("lightning")

from mvc_callbacks import VersionStore


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.lightning)


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Work in a folder of one's own, without Lightning's announcements."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MVC_STORE", raising=False)
    levels = {name: logging.getLogger(name).level for name in ("lightning.pytorch", "pytorch_lightning")}
    for name in levels:
        logging.getLogger(name).setLevel(logging.ERROR)
    yield
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


@pytest.fixture
def store(tmp_path: Path) -> VersionStore:
    return VersionStore(tmp_path / "versions")
