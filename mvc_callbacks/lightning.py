"""VersionCheckpoint for ``lightning.pytorch``."""

from __future__ import annotations

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import CheckpointIO

from mvc_callbacks.lightning_callback import VersionCheckpointMixin
from mvc_callbacks.lightning_io import CheckpointIOMixin

__all__ = ["VersionCheckpoint"]


class _VersionCheckpointIO(CheckpointIOMixin, CheckpointIO):
    pass


class VersionCheckpoint(VersionCheckpointMixin, ModelCheckpoint):
    """Makes a version of every checkpoint that a ``lightning.pytorch`` Trainer saves.

    The arguments are those of `VersionCheckpointMixin`.
    """

    framework = "lightning"
    trainer_class = Trainer
    checkpoint_io_class = _VersionCheckpointIO
