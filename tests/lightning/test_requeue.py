"""A job that SLURM queues again goes on where it was, by its script alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from mvc_callbacks import VersionStore

HERE = Path(__file__).parent


def run(store: Path, seed: int, interrupt: str, bin_folder: Path) -> subprocess.CompletedProcess[str]:
    slurm = {
        "SLURM_JOB_ID": "4242",
        "SLURM_JOB_NAME": "train",
        "SLURM_LOCALID": "0",
        "SLURM_NODEID": "0",
        "SLURM_NTASKS": "1",
        "SLURM_PROCID": "0",
    }
    environment = {**os.environ, **slurm, "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}"}
    environment["PYTHONPATH"] = os.pathsep.join([str(HERE.parent.parent), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, str(HERE / "requeued_job.py"), str(store), str(seed), interrupt]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)


def test_bad_input_47_a_job_that_is_queued_again_needs_its_label_and_last(tmp_path: Path) -> None:
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    scontrol.chmod(0o755)

    alone = run(tmp_path / "alone" / "store", 11, "no", scontrol.parent)
    assert alone.returncode == 0, alone.stderr
    (tmp_path / "job").mkdir()
    first = run(tmp_path / "job" / "store", 11, "yes", scontrol.parent)
    assert "SIGTERM" in first.stderr
    assert [each.step for each in VersionStore(tmp_path / "job" / "store").versions()] == [7]
    assert (tmp_path / "asked").read_text() == "requeue 4242\n"
    second = run(tmp_path / "job" / "store", 999, "yes", scontrol.parent)
    assert second.returncode == 0, second.stderr

    expected = VersionStore(tmp_path / "alone" / "store").get("latest")
    store = VersionStore(tmp_path / "job" / "store")
    versions = store.versions()
    assert [each.step for each in versions] == [7, 11, 22]
    assert [each.label for each in store.runs()] == ["job-4242", "job-4242-2"]
    assert versions[-1].details.run_record["resume"]["guarantee"] == "exact"
    assert versions[-1].weights.digest == expected.weights.digest
