"""The moments at which a checkpoint can be resumed from, and saves that wait for the next one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from mvc_callbacks.lightning_private import Loops

__all__ = ["Moment", "Waiting"]

Moment = Literal["batch", "validation", "epoch"]


class Waiting:
    """Saves that wait: from a checkpoint made now, Lightning would leave out what follows upon it.

    Resumed from a checkpoint of an epoch's last batch, Lightning skips the validation and the end of that
    epoch, and resumed from one of a batch upon which a validation follows, it skips that. So these are made
    after them.

    Args:
        trainer: The Trainer.
        postponed: Makes of a save one that decides by what is known now, when it is called later.
    """

    def __init__(self, trainer: Any, postponed: Callable[[Callable[[], None]], Callable[[], None]]) -> None:
        self._trainer = trainer
        self._postponed = postponed
        self._loops = Loops(trainer)
        self._waiting: list[Callable[[], None]] = []

    def due(self, save: Callable[[], None], moment: Moment) -> list[Callable[[], None]]:
        """Return what is to be saved now, in order; what has to wait is kept for later.

        Args:
            save: What ModelCheckpoint does in a hook.
            moment: The hook.
        """
        if not self._trainer.sanity_checking and self._must_wait(moment):
            self._waiting.append(self._postponed(save))
            return []
        return [*self.take(), save]

    def take(self) -> list[Callable[[], None]]:
        """Return what waits, which then waits no more."""
        waiting, self._waiting = self._waiting, []
        return waiting

    def _must_wait(self, moment: Moment) -> bool:
        if moment == "epoch":
            return False
        return self._loops.last_batch or (moment == "batch" and self._loops.validation_follows)
