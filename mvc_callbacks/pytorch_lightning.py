"""VersionCheckpoint for ``pytorch_lightning``."""

from __future__ import annotations

from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.plugins.io import CheckpointIO

from mvc_callbacks.lightning_callback import VersionCheckpointMixin
from mvc_callbacks.lightning_io import CheckpointIOMixin

__all__ = ["VersionCheckpoint"]


class _VersionCheckpointIO(CheckpointIOMixin, CheckpointIO):
    pass


class VersionCheckpoint(VersionCheckpointMixin, ModelCheckpoint):
    """Makes a version of every checkpoint that a ``pytorch_lightning`` Trainer saves.

    The arguments are those of `VersionCheckpointMixin`.
    """

    framework = "pytorch_lightning"
    trainer_class = Trainer
    checkpoint_io_class = _VersionCheckpointIO
