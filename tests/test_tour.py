"""Promises of the tour: a new user who types it sees what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from transcript import ROOT, commands, run, stable

from mvc_callbacks import VersionStore

TOUR = ROOT / "docs" / "tour.md"
Lines = list[tuple[str, str, str, int]]

pytestmark = [pytest.mark.lightning, pytest.mark.slow]
for _needed in ("lightning", "sklearn"):
    pytest.importorskip(_needed)


@pytest.fixture(scope="module")
def tour(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Lines]:
    """Take the tour: where, and command by command what the document says and what came."""
    folder = tmp_path_factory.mktemp("tour")
    return folder / "digits", list(run(TOUR.read_text("utf-8"), folder))


def kinds(output: str) -> set[str]:
    """Return the lines without what a machine decides: numbers, how many epochs are better, how lanes run."""
    found = set()
    for line in stable(re.sub(r"/\S+/(\w+\.py:\d+: )", r"\1", output)):
        text = re.sub(r"[●│├─╯╮┼]", "", line)
        text = re.sub(r"\[production\]|(weights|state) pruned|<- \S+|data changed: train", "", text)
        found.add(" ".join(text.split()))
    return found - {""}


def test_every_command_of_the_tour_does_what_the_tour_says(tour: tuple[Path, Lines]) -> None:
    _, lines = tour
    assert len(lines) >= 20
    for command, told, came, status in lines:
        assert status == 0, f"{command}\n{came}"
        assert kinds(came) == kinds(told), command


def test_the_tour_ends_with_the_first_model_in_production_and_a_whole_store(tour: tuple[Path, Lines]) -> None:
    folder, _ = tour
    store = VersionStore(folder / "model_versions")
    assert store.get("production").run == "baseline"
    assert [move.how for move in store.alias_log("production")] == ["promote", "promote", "rollback"]
    assert store.verify(full=True).ok
    second = store.get("second/best")
    assert second.notes and second.metrics["val_acc"] < store.get("production").metrics["val_acc"]
    assert store.diff("production", second).data[0].same is False
    assert store.get("second/1").parent is not None
    assert (folder / "report.html").is_file()


def test_what_was_measured_after_restoring_is_what_was_recorded(tour: tuple[Path, Lines]) -> None:
    [came] = [came for command, _, came, _ in tour[1] if command == "python check.py"]
    recorded, measured = re.findall(r"(?:recorded|measured) ([\d.]+)", came)
    assert recorded == measured


def test_the_tour_goes_through_every_part_of_a_life() -> None:
    text = TOUR.read_text("utf-8")
    typed = {" ".join(command.split()[:2]) for command, _ in commands(text)}
    for name in (
        "log",
        "show",
        "diff",
        "promote",
        "rollback",
        "alias-log",
        "note",
        "prune",
        "runs",
        "verify",
        "report",
    ):
        assert f"mvc {name}" in typed
