"""Versions of plain torch modules, made without any Trainer."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from mvc_callbacks import Version, VersionStore
from mvc_callbacks.hyperparameters import tell
from mvc_callbacks.torch_state import snapshot


class Net(nn.Module):
    """A small network that is built from hyperparameters."""

    def __init__(self, width: int = 4, depth: int = 2, dropout: float = 0.1) -> None:
        super().__init__()
        self.depth = depth
        self.encoder = nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.Dropout(dropout))
        self.head = nn.Linear(width, 2)


def version_of(store: VersionStore, module: nn.Module, **hyperparameters: Any) -> Version:
    run = store.open_run("run", framework="torch", record={})
    told = tell({"given": hyperparameters})
    return run.commit(snapshot({"state_dict": module.state_dict()}, module=module), hyperparameters=told)


def same_bits(one: nn.Module, other: nn.Module) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(
        each.dtype == theirs[name].dtype
        and torch.equal(each.reshape(-1).view(torch.uint8), theirs[name].reshape(-1).view(torch.uint8))
        for name, each in mine.items()
    )
