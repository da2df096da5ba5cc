"""Every test here runs a real fit, in a folder of its own, on the backend that KERAS_BACKEND names."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

# Before Keras is imported by any test.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
if importlib.util.find_spec("tensorflow") is None:
    os.environ.setdefault("KERAS_BACKEND", "torch")

import pytest

pytest.importorskip("keras")

from mvc_callbacks import VersionStore


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import keras

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MVC_STORE", raising=False)
    keras.utils.clear_session()
    keras.utils.set_random_seed(7)


@pytest.fixture
def store(tmp_path: Path) -> VersionStore:
    return VersionStore(tmp_path / "versions")
