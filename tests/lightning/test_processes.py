"""Several processes, and processes that end in the middle of a save."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins.io import AsyncCheckpointIO
from small_models import Small, trainer_of

from mvc_callbacks import VersionStore
from mvc_callbacks.lightning import VersionCheckpoint
from mvc_callbacks.lightning_io import CheckpointIOMixin

HERE = Path(__file__).parent


def run_script(code: list[str], *arguments: object) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(HERE), str(HERE.parent.parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, *code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)


@pytest.mark.slow
def test_bad_input_55_two_ranks_agree_on_every_version_and_on_one_that_failed(store: VersionStore) -> None:
    done = run_script([str(HERE / "ddp_script.py")], store.path, "warn")
    assert done.returncode == 0, done.stderr
    ranks = sorted(line.split(" ", 2)[1:] for line in done.stdout.splitlines() if line.startswith("RANK"))
    assert [rank for rank, _ in ranks] == ["0", "1"]
    assert ranks[0][1] == ranks[1][1]
    versions = store.versions()
    assert [each.number for each in versions] == [1, 3, 4]
    assert {each.run for each in versions} == {"both"}
    assert [each.has_weights for each in versions][-1]


@pytest.mark.slow
def test_bad_input_55_two_ranks_stop_together_when_a_save_fails_and_that_is_asked_for(
    store: VersionStore,
) -> None:
    done = run_script([str(HERE / "ddp_script.py")], store.path, "raise")
    assert done.returncode != 0
    assert "SaveFailed" in done.stderr
    assert [each.number for each in store.versions()] == [1]


@pytest.mark.slow
def test_a_model_that_two_ranks_share_is_one_whole_version_and_goes_on_to_the_same_bits(
    tmp_path: Path,
) -> None:
    script = [str(HERE / "fsdp2_script.py")]
    for store, epochs, path in (("alone", 3, ""), ("job", 2, ""), ("job", 3, "last")):
        done = run_script(script, tmp_path / store, epochs, path)
        assert done.returncode == 0, done.stderr
    alone, job = VersionStore(tmp_path / "alone"), VersionStore(tmp_path / "job")
    assert {name: tuple(each.shape) for name, each in job.state_dict("latest").items()} == {
        "net.0.weight": (8, 6),
        "net.0.bias": (8,),
        "net.2.weight": (1, 8),
        "net.2.bias": (1,),
    }
    assert [each.step for each in job.versions()] == [4, 8, 12]
    assert job.get("latest").details.run_record["resume"]["guarantee"] == "exact"
    assert job.get("latest").weights.digest == alone.get("latest").weights.digest
    assert not list(tmp_path.rglob("mvc:*"))


def test_an_interpreter_that_exits_finishes_the_save_that_goes_on(store: VersionStore) -> None:
    code = """
import sys, time
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from small_models import Small, trainer_of
from mvc_callbacks.commit import Run
from mvc_callbacks.lightning import VersionCheckpoint

commit = Run.commit
def slowly(*args, **kwargs):
    time.sleep(1)
    return commit(*args, **kwargs)
Run.commit = slowly

class Leave(Callback):
    def on_train_epoch_start(self, trainer, module):
        if trainer.current_epoch == 1:
            trainer.callbacks.clear()  # nobody waits in on_exception
            sys.exit(3)

trainer_of(Leave(), VersionCheckpoint(sys.argv[1])).fit(Small())
"""
    done = run_script(["-c", code], store.path)
    assert done.returncode == 3, done.stderr
    assert [each.step for each in store.versions()] == [4]


def test_bad_input_47_ctrl_c_leaves_what_stock_leaves(store: VersionStore) -> None:
    class Interrupt(Callback):
        def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
            if trainer.global_step == 6:
                raise KeyboardInterrupt

    trainer = trainer_of(Interrupt(), VersionCheckpoint(store.path, save_on_exception=True))
    with pytest.raises(SystemExit):
        trainer.fit(Small())
    assert [each.step for each in store.versions()] == [4, 6]
    assert not isinstance(trainer.strategy.checkpoint_io, CheckpointIOMixin)


def test_a_plugin_of_the_users_own_stays_where_it_was(store: VersionStore, tmp_path: Path) -> None:
    class SaveOwn(Callback):
        def on_train_end(self, trainer: Any, module: Any) -> None:
            trainer.save_checkpoint(tmp_path / "own.ckpt")

    plugin = AsyncCheckpointIO()
    trainer = trainer_of(SaveOwn(), VersionCheckpoint(store.path), plugins=[plugin])
    trainer.fit(Small())
    assert trainer.strategy.checkpoint_io is plugin
    assert len(store.versions()) == 3
    assert (tmp_path / "own.ckpt").exists()


def test_a_plugin_that_is_put_before_ours_survives_and_ours_goes(store: VersionStore) -> None:
    class Above(AsyncCheckpointIO):
        pass

    class PutBefore(Callback):
        def on_train_start(self, trainer: Any, module: Any) -> None:
            trainer.strategy.checkpoint_io = Above(trainer.strategy.checkpoint_io)

    trainer = trainer_of(PutBefore(), VersionCheckpoint(store.path))
    trainer.fit(Small())
    assert isinstance(trainer.strategy.checkpoint_io, Above)
    assert not isinstance(trainer.strategy.checkpoint_io._checkpoint_io, CheckpointIOMixin)
