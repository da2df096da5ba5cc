"""A Trainer's loggers: each version's id is logged beside the metrics that were logged when it was saved."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

from mvc_callbacks.errors import MVCWarning
from mvc_callbacks.lightning_private import logged_step
from mvc_callbacks.versions import Version

__all__ = ["LoggedVersions"]

TAG = "mvc_version"


class LoggedVersions:
    """Writes versions into the loggers that can hold a text: TensorBoard's and the CSV one.

    A logger that fails is warned about once, and left alone from then on; training goes on.

    Args:
        trainer: The Trainer.
    """

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._steps: dict[int, int] = {}
        self._failed: set[int] = set()
        self._unsaved = False

    def note(self, number: int, *, in_step: bool) -> None:
        """Remember at which step metrics are logged while a version is being saved.

        Args:
            number: The version's number in its run.
            in_step: As `logged_step` takes it.
        """
        self._steps[number] = logged_step(self._trainer, in_step=in_step)

    def tell(self, version: Version) -> None:
        """Write a version that is on disk; it was noted before."""
        step = self._steps.pop(version.number, None)
        for place, logger in enumerate(self._trainer.loggers) if step is not None else ():
            if place in self._failed:
                continue
            try:
                self._unsaved |= _write(logger, version, step)
            except Exception as error:
                self._failed.add(place)
                warnings.warn(
                    f"{type(logger).__name__} took no note of the version {version.run}/{version.number}, "
                    f"and of no later one: {type(error).__name__}: {error}",
                    MVCWarning,
                    stacklevel=2,
                )

    def save(self) -> None:
        """Let loggers that write from time to time write now."""
        if not self._unsaved:
            return
        self._unsaved = False
        for place, logger in enumerate(self._trainer.loggers):
            if place not in self._failed and _kinds(logger) & {"CSVLogger"}:
                logger.save()


def _write(logger: Any, version: Version, step: int | None) -> bool:
    kinds = _kinds(logger)
    if "CSVLogger" in kinds:
        logger.log_metrics({TAG: version.id}, step=step)
        return True
    if "TensorBoardLogger" in kinds:
        logger.experiment.add_text(TAG, f"{version.run}/{version.number}  \n`{version.id}`", step)
    return False


def _kinds(logger: Any) -> set[str]:
    """Return the names of a logger's classes: `lightning` and `pytorch_lightning` have each their own."""
    kinds: Iterable[type] = type(logger).__mro__
    return {each.__name__ for each in kinds}
