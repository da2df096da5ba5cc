"""A training loop of one's own: everything that it gave comes back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from kit import Net, same_bits

from mvc_callbacks import VersionStore, restore_version
from mvc_callbacks.errors import BadName, Misconfigured, PrunedVersion
from mvc_callbacks.versions import Parent


def step(model: Net, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model.head(model.encoder(torch.ones(4, 3))).sum().backward()
    optimizer.step()


def test_a_loop_goes_on_from_what_it_committed(tmp_path: Path) -> None:
    data = tmp_path / "data.txt"
    data.write_text("1 2 3")
    store = VersionStore(tmp_path / "versions")
    torch.manual_seed(1)
    model = Net()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    step(model, optimizer)
    version = store.commit(
        model.state_dict(),
        training_state={"optimizer": optimizer.state_dict(), "epoch": 3, "api_token": "sk-secret"},
        metrics={"loss": torch.tensor(0.5)},
        hyperparameters={"width": 4},
        data={"train": data},
        run="loop",
        epoch=3,
        monitor=("loss", "min"),
    )
    assert (version.run, version.number, version.metrics) == ("loop", 1, {"loss": 0.5})
    assert version.data["train"].coverage == "declared"
    assert version.data["train"].files == 1
    assert store.get("best").id == version.id

    told = store.checkpoint("loop")
    assert told["epoch"] == 3
    assert told["api_token"] != "sk-secret"
    again = restore_version("loop", Net, store=store).train()
    other = torch.optim.Adam(again.parameters(), lr=0.01)
    other.load_state_dict(told["optimizer"])
    torch.manual_seed(2)
    step(model, optimizer)
    torch.manual_seed(2)
    step(again, other)
    assert same_bits(again, model)


def test_commits_under_one_label_are_one_run_in_a_chain(tmp_path: Path) -> None:
    store = VersionStore(tmp_path / "versions")
    ids = [store.commit(Net().state_dict(), run="loop").id for _ in range(3)]
    assert [each.number for each in store.versions("loop")] == [1, 2, 3]
    assert [each.parent.id if each.parent else None for each in store.versions("loop")] == [None, *ids[:2]]
    child = VersionStore(store.path).commit(Net().state_dict(), run="loop", parent="loop/2")
    assert child.run == "loop-2"
    assert [(each.id, each.how) for each in child.parents] == [(ids[1], "declared")]


def test_a_parent_may_be_given_as_a_version(tmp_path: Path) -> None:
    store = VersionStore(tmp_path / "versions")
    first = store.commit(Net().state_dict(), run="first")
    assert store.commit(Net().state_dict(), run="second", parent=first).parents == (
        Parent(first.id, "declared"),
    )
    with pytest.raises(BadName, match="not Version: give its id"):
        store.get(first)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrong", "metrics", "message"),
    [
        (Net(), {}, r"give model\.state_dict\(\)"),
        (3, {}, "mapping"),
        ({}, {"loss": "low"}, "'loss' is 'low'"),
        ({"weight": [1.0, 2.0]}, {}, r"no torch tensor at all: .* torch\.from_numpy"),
        ({"model": Net().state_dict()}, {}, "training_state= takes what is nested"),
    ],
)
def test_what_cannot_be_a_version_is_refused_with_what_to_give(
    wrong: Any, metrics: Any, message: str, tmp_path: Path
) -> None:
    store = VersionStore(tmp_path / "versions")
    with pytest.raises(Misconfigured, match=message):
        store.commit(wrong, metrics=metrics, run="loop")
    assert not store.exists()


def test_a_version_of_weights_only_has_no_checkpoint(tmp_path: Path) -> None:
    store = VersionStore(tmp_path / "versions")
    store.commit(Net().state_dict())
    with pytest.raises(PrunedVersion, match="restore_version"):
        store.checkpoint("latest")


def test_the_code_and_the_environment_are_recorded(tmp_path: Path) -> None:
    details: Any = VersionStore(tmp_path / "versions").commit(Net().state_dict()).details
    assert details.environment["python"]
    assert details.code
