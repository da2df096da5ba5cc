"""Real fits that are killed at any moment: versions that were told of come back, and training goes on."""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

import pytest
from forker import Forker

from mvc_callbacks import VersionStore

sys.path.append(str(Path(__file__).parents[1] / "store"))
from torture_kit import figure, scale


@pytest.mark.slow
def test_bad_input_46_a_fit_that_is_killed_loses_no_version(tmp_path: Path) -> None:
    dice, kills, path = random.Random(46), scale(4, 100), tmp_path / "store"
    promised: set[str] = set()
    with Forker("fit_worker", Path(__file__).parent) as forker:
        for turn in range(kills):
            child = forker.start("fit", tmp_path / f"out{turn}", str(path), turn > 0)
            child.wait_for_line(120)
            time.sleep(dice.random() * 1.2)
            child.kill()
            promised |= {line[1] for line in child.lines() if line[0] == "saved"}
            store = VersionStore(path)
            if not store.exists():
                continue
            versions = store.versions()
            assert promised <= {version.id for version in versions}
            assert store.verify(full=True).ok
            for version in versions[-3:]:
                assert store.state_dict(version)
        last = forker.start("fit", tmp_path / "last", str(path), True)
        while not any(line[0] == "saved" for line in last.lines()) and last.alive():
            time.sleep(0.05)
        last.kill()
        assert any(line[0] == "saved" for line in last.lines())
    store = VersionStore(path)
    for version in store.versions():
        assert not version.has_weights or store.tensors(version)
    assert promised <= {version.id for version in store.versions()}
    figure("fits of Lightning killed", kills)
    figure("versions acknowledged by killed fits", len(promised))
