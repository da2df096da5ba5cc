"""A real fit, to be killed at any moment."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from small_models import Small, trainer_of

from mvc_callbacks.lightning import VersionCheckpoint

os.fsync = lambda descriptor: None  # type: ignore[assignment]  # a kill cuts no power
torch.set_num_threads(1)


def digest(state_dict: dict[str, torch.Tensor]) -> str:
    """Tell the bits of a state dict."""
    hasher = hashlib.sha256()
    for name in sorted(state_dict):
        hasher.update(name.encode() + state_dict[name].detach().cpu().numpy().tobytes())
    return hasher.hexdigest()


def fit(tell: Callable[[Any], None], path: str, resume: bool) -> None:
    """Train, telling each version once it is acknowledged."""
    warnings.simplefilter("ignore")
    versions = VersionCheckpoint(path, run="killed", every_n_train_steps=1, save_top_k=-1)

    class Teller(Callback):
        def __init__(self) -> None:
            self.told: set[str] = set()

        def on_train_batch_start(self, *_: Any) -> None:
            last = versions.last_version
            if last is not None and last.id not in self.told:
                self.told.add(last.id)
                tell(["saved", last.id])

    tell(["ready"])
    # More epochs than all of them together get to: one that ended would leave the others nothing to do.
    trainer = trainer_of(versions, Teller(), default_root_dir=path + "-work", max_epochs=100_000)
    trainer.fit(Small(), ckpt_path="last" if resume else None)
    tell(["done"])
