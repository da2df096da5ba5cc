"""Promises of the help: every command has an example, and each one works as it stands."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import click
import pytest
from neutral_store import LOSS, files, snapshot
from transcript import ROOT, environment

from mvc_callbacks.cli import mvc
from mvc_callbacks.store import VersionStore
from mvc_callbacks.versions import Parent

torch = pytest.importorskip("torch")
pytest.importorskip("numpy")


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """Return a folder of one's own with what the examples speak of."""
    return Path(shutil.copytree(made, tmp_path / "work"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make what the examples speak of: a store with three runs, and a checkpoint of Lightning."""
    work = tmp_path_factory.mktemp("made") / "work"
    work.mkdir()
    store = VersionStore(work / "model_versions")
    images = {f"train/{each}/000{each}.png": str(each) for each in range(10)}
    parent: Parent | None = None
    for label, losses in (("baseline", (0.5, 0.3, 0.1)), ("finetune", (0.2,)), ("experiment-7", (0.9,))):
        record = {"code": {"commit": label[0] * 40}, "environment": {"packages": {"torch": label}}}
        run = store.open_run(label, framework="lightning", record=record)
        for number, loss in enumerate(losses):
            version = run.commit(
                snapshot(len(label) * 10 + number),
                epoch=number,
                step=10 * number,
                metrics={"val_loss": loss, "val_acc": 1 - loss},
                monitor=LOSS,
                parents=(parent,) if parent and number == 0 else None,
                hyperparameters={"given": {"lr": 1e-4}},
                data={"train": files(store, {**images, "train/8/0008.png": label})},
            )
        parent = parent or Parent(version.id, "resume")
    store.note("baseline/2", "the labels of class 8 are to be repaired")
    # The states here are none of Lightning; without them `mvc export FILE.ckpt` writes the weights.
    store.prune("baseline/1", "baseline/3", what="state")
    store.promote("baseline/1", "production", why="the first")
    store.promote("baseline/3", "production", why="better")
    store.promote("finetune/1", "staging", why="to be tried")
    checkpoints = work / "lightning_logs" / "version_0" / "checkpoints"
    checkpoints.mkdir(parents=True)
    state = {"state_dict": {"weight": torch.arange(6.0)}, "epoch": 3, "global_step": 40}
    torch.save(state, checkpoints / "epoch=3-step=40.ckpt")
    return work


def call(command: str, work: Path) -> subprocess.CompletedProcess[str]:
    variables = environment(work.parent)
    return subprocess.run(
        ["bash", "-c", command], cwd=work, env=variables, capture_output=True, text=True, timeout=120
    )


def examples() -> list[tuple[str, str]]:
    context = click.Context(mvc)
    found = {name: mvc.get_command(context, name) for name in mvc.list_commands(context)}
    return [(name, command.epilog or "") for name, command in found.items() if command is not None]


@pytest.mark.parametrize(("name", "epilog"), examples(), ids=[name for name, _ in examples()])
def test_the_example_in_the_help_of_every_command_works(name: str, epilog: str, folder: Path) -> None:
    example = re.fullmatch(r"Example: (mvc (\S+).*)", epilog)
    assert example is not None and example[2] == name, "the help of every command ends with an example"
    if name == "identify":
        assert call("mvc export best model.safetensors", folder).returncode == 0
    came = call(example[1], folder)
    assert came.returncode == 0, came.stderr
    assert "error" not in came.stderr
    if name not in ("prune",):  # of what was made just now nothing is old enough
        assert not came.stderr.startswith("none of")
        assert came.stdout.strip()


def test_every_line_of_the_documented_session_works_one_after_the_other(folder: Path) -> None:
    text = (ROOT / "docs" / "cli.md").read_text("utf-8")
    block = next(
        each for each in re.findall(r"^```\n(.*?)^```", text, re.M | re.S) if each.startswith("mvc log")
    )
    lines = [re.split(r"\s{2,}", line)[0] for line in block.splitlines()]
    assert len(lines) >= 20 and all(line.startswith("mvc ") for line in lines)
    for line in lines:
        came = call(line, folder)
        assert came.returncode == 0, f"{line}\n{came.stderr}"
        assert not came.stderr.startswith("none of"), line
    named = {line.split()[1] for line in lines}
    assert named == {name for name, _ in examples()}, "the session shows every command"
