"""The Keras demo runs, and shows what it says that it shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from keras_models import BACKEND

from mvc_callbacks import VersionStore

pytestmark = pytest.mark.slow
for _needed in ("sklearn", "PIL"):
    pytest.importorskip(_needed)

DEMO = Path(__file__).parents[2] / "examples" / "keras_digits.py"


def test_the_demo_tells_the_whole_story(tmp_path: Path) -> None:
    environment = {**os.environ, "KERAS_BACKEND": BACKEND, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    environment.pop("MVC_STORE", None)
    told = subprocess.run(
        [sys.executable, str(DEMO), "--dir", str(tmp_path / "here")],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert told.returncode == 0, told.stdout + told.stderr
    assert "~ 8/0008.png" in told.stdout
    assert "val: the same" in told.stdout
    assert "\nhyperparameters\n" not in told.stdout  # the two runs differ in data alone
    recorded, measured = re.findall(r"(?:recorded|measured)  val_accuracy = (\S+)", told.stdout)
    assert recorded == measured
    store = VersionStore(tmp_path / "here" / "model_versions")
    moves = [(move.how, store.get(str(move.id)).run) for move in store.alias_log("production")]
    assert moves == [("promote", "baseline"), ("promote", "corrected"), ("rollback", "baseline")]
    assert [each.kind for each in store.get("baseline/best").evaluations] == ["test"]
    assert store.verify(full=True).ok
