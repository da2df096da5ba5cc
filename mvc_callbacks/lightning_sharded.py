"""Strategies that shard a model: they read past the checkpoint plugin, so they are given a file."""

from __future__ import annotations

import contextlib
import tempfile
import uuid
from pathlib import Path
from typing import Any, Protocol

import torch

from mvc_callbacks import urls
from mvc_callbacks.errors import MVCError, SaveFailed

__all__ = ["FileReads", "reads_files"]


class Source(Protocol):
    """Who knows versions."""

    def load(self, url: str) -> tuple[dict[str, Any], Any]:
        """Build the checkpoint of any version."""

    def find(self, url: str) -> Any:
        """Return the version that a URL names."""

    def note_loaded(self, version: Any) -> None:
        """Remember which version was loaded."""


def reads_files(strategy: Any) -> bool:
    """Tell whether a strategy opens a checkpoint's path itself."""
    return bool(
        {each.__name__ for each in type(strategy).__mro__} & {"FSDPStrategy", "ModelParallelStrategy"}
    )


class FileReads:
    """Lets a strategy that opens paths itself load versions, from a temporary file of each machine's own.

    Args:
        strategy: The Trainer's strategy; another one is left alone.
        source: Who knows versions.
    """

    def __init__(self, strategy: Any, source: Source) -> None:
        self._strategy = strategy
        self._source = source
        self._theirs: Any = None

    def enter(self) -> None:
        """Get in before the strategy's own loading."""
        if reads_files(self._strategy):
            self._theirs = self._strategy.load_checkpoint
            self._strategy.load_checkpoint = self._load  # on the instance: no other Trainer is concerned

    def leave(self) -> None:
        """Leave the strategy as it was."""
        if self._theirs is not None and vars(self._strategy).get("load_checkpoint") == self._load:
            vars(self._strategy).pop("load_checkpoint")
            if getattr(self._theirs, "__self__", None) is not self._strategy:
                self._strategy.load_checkpoint = self._theirs  # another callback's
        self._theirs = None

    def _load(self, checkpoint_path: Any, *args: Any, **kwargs: Any) -> Any:
        if not urls.is_url(checkpoint_path):
            return self._theirs(checkpoint_path, *args, **kwargs)
        strategy = self._strategy
        file = Path(strategy.broadcast(str(Path(tempfile.gettempdir()) / f"mvc-{uuid.uuid4().hex}.ckpt")))
        try:
            self._write(str(checkpoint_path), file)
            if "weights_only" in kwargs:
                kwargs["weights_only"] = False  # our own file, written a moment ago
            return self._theirs(file, *args, **kwargs)
        finally:
            strategy.barrier("mvc: a version was loaded")
            if strategy.local_rank == 0:
                with contextlib.suppress(OSError):
                    file.unlink()

    def _write(self, url: str, file: Path) -> None:
        """Write the version to the file, on the first rank of each machine; agree on whether that worked."""
        error: Exception | None = None
        try:
            if self._strategy.local_rank == 0:
                checkpoint, version = self._source.load(url)
                torch.save(checkpoint, file)
            else:
                version = self._source.find(url)
            self._source.note_loaded(version)
        except (MVCError, OSError, RuntimeError) as problem:
            error = problem
        if self._strategy.reduce_boolean_decision(error is None):
            return
        if error is not None:
            raise error
        raise SaveFailed(f"{url} could not be loaded on another rank, whose message says why")
