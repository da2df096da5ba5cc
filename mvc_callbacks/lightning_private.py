"""What is needed of Lightning's loops and Lightning does not offer in public: all of it, and only here.

There is no public moment between the making of a loader and the making of its iterator, which draws the seeds
of an epoch, and no public way to make that iterator again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

__all__ = ["NEEDED", "Listener", "Loops", "logged_step", "missing"]

NEEDED = {
    "fit_loop": (
        "_combined_loader",
        "_data_fetcher",
        "_last_train_dl_reload_epoch",
        "_load_combined_loader_states",
        "_restarting",
        "_should_reload_train_dl",
        "epoch_loop",
        "epoch_progress",
        "on_advance_start",
    ),
    "epoch_loop": (
        "_results",
        "_should_accumulate",
        "_should_check_val_fx",
        "batch_progress",
        "on_run_start",
        "restarted_on_train_batch_end",  # a Lightning without it trains the last batch again
        "update_lr_schedulers",
        "val_loop",
    ),
}
"""The attributes that are used; a test fails when they move."""


def sized_length(loader: Any) -> int | None:
    """Return how many batches a loader has; None where nobody knows."""
    try:
        return len(loader)
    except TypeError:
        return None


class Listener(Protocol):
    """Who is told of the moments of an epoch."""

    def before_iterator(self) -> None:
        """Be told just before the first iterator of a loader is made."""

    def before_epoch(self) -> None:
        """Be told before anything of an epoch happens."""

    def at_run_start(self, fetcher: Any, start: Callable[[], None]) -> None:
        """Be told before the batches of an epoch; ``start`` makes their iterator where Lightning would."""


def missing(trainer: Any) -> list[str]:
    """Return which of the needed attributes this Lightning does not have."""
    fit = trainer.fit_loop
    epoch = getattr(fit, "epoch_loop", None)
    told = [f"fit_loop.{name}" for name in NEEDED["fit_loop"] if not hasattr(fit, name)]
    return told + [f"epoch_loop.{name}" for name in NEEDED["epoch_loop"] if not hasattr(epoch, name)]


def logged_step(trainer: Any, *, in_step: bool) -> int:
    """Return the step that the metrics of now are logged at: Lightning counts batches that stepped, from 0.

    Args:
        trainer: The Trainer. Where it does not tell, its optimizer steps are taken.
        in_step: Whether the last batch is not counted yet: in its own hooks, and in a validation.
    """
    epoch = getattr(trainer.fit_loop, "epoch_loop", None)
    stepped = getattr(epoch, "_batches_that_stepped", None)
    if stepped is None:
        return max(int(trainer.global_step) - 1, 0)
    return max(int(stepped) - (not in_step), 0)


class Loops:
    """The loops of one Trainer.

    Args:
        trainer: The Trainer.
    """

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._fit = trainer.fit_loop
        self._epoch = trainer.fit_loop.epoch_loop

    # To be told

    def listen(self, listener: Listener) -> None:
        """Tell a listener of every epoch, until `unlisten`."""
        fit, epoch = self._fit, self._epoch
        load_states, advance, run_start = (
            fit._load_combined_loader_states,
            fit.on_advance_start,
            epoch.on_run_start,
        )

        def before_iterator() -> None:
            listener.before_iterator()
            load_states()

        def before_epoch() -> None:
            listener.before_epoch()
            advance()

        def at_run_start(fetcher: Any) -> None:
            listener.at_run_start(fetcher, lambda: run_start(fetcher))

        # On the instances, so that no other Trainer is concerned.
        fit._load_combined_loader_states = before_iterator
        fit.on_advance_start = before_epoch
        epoch.on_run_start = at_run_start

    def unlisten(self) -> None:
        """Leave the loops as they were."""
        for loop, name in (
            (self._fit, "_load_combined_loader_states"),
            (self._fit, "on_advance_start"),
            (self._epoch, "on_run_start"),
        ):
            vars(loop).pop(name, None)

    # Where training is

    @property
    def batches_ready(self) -> int:
        """How many batches of this epoch were taken, the one in work included."""
        return int(self._epoch.batch_progress.current.ready)

    @property
    def skipped(self) -> bool:
        """Whether a batch was taken and left, after which Lightning does not find its place again."""
        total = self._epoch.batch_progress.total
        return bool(total.ready != total.started)

    @property
    def in_step(self) -> bool:
        """Whether a batch was taken and its step is not over."""
        current = self._epoch.batch_progress.current
        return bool(current.ready > current.processed)

    @property
    def in_epoch(self) -> bool:
        """Whether an epoch was begun and its batches are not over."""
        current = self._fit.epoch_progress.current
        return bool(current.started > current.processed)

    @property
    def completed(self) -> bool:
        """Whether all that ends an epoch was done, and not only its batches."""
        current = self._fit.epoch_progress.current
        return bool(current.completed == current.processed)

    @property
    def last_batch(self) -> bool:
        """Whether the batch in work, or the one just done, is the epoch's last."""
        progress = self._epoch.batch_progress
        return bool(progress.is_last_batch or progress.current.ready == self._trainer.num_training_batches)

    @property
    def validation_follows(self) -> bool:
        """Whether a validation follows upon this batch."""
        return bool(self._epoch._should_check_val_fx(self._fit._data_fetcher))

    @property
    def accumulating(self) -> bool:
        """Whether gradients wait for further batches."""
        return bool(self._epoch._should_accumulate())

    @property
    def training_metrics(self) -> tuple[str, ...]:
        """The names of what training steps have logged, whose means over the epoch are in no checkpoint."""
        return tuple(sorted({value.meta.name for value in self._epoch._results.values()}))

    @property
    def epoch_over(self) -> bool:
        """Whether the epoch has no batch left, as it had none when it was saved."""
        return bool(self._epoch.done)

    # The loaders

    @property
    def loaders(self) -> list[Any]:
        """The training loaders, in a flat list."""
        combined = self._fit._combined_loader
        return list(combined.flattened) if combined is not None else []

    @property
    def iterator(self) -> Any:
        """The iterator over all loaders."""
        combined = self._fit._combined_loader
        return combined._iterator if combined is not None else None

    @property
    def reloaded_at(self) -> int | None:
        """The epoch in which the loaders were made."""
        epoch = self._fit._last_train_dl_reload_epoch
        return int(epoch) if epoch >= 0 else None

    @reloaded_at.setter
    def reloaded_at(self, epoch: int) -> None:
        self._fit._last_train_dl_reload_epoch = epoch

    @property
    def reloads_now(self) -> bool:
        """Whether the loaders are made again before this epoch."""
        return bool(self._fit._should_reload_train_dl)

    def restarts_within(self, batches: int) -> bool:
        """Whether one of several loaders was over before so many batches, and was begun anew."""
        combined = self._fit._combined_loader
        if combined is None or combined._mode != "max_size_cycle" or len(self.loaders) < 2:
            return False
        lengths = [sized_length(each) for each in self.loaders]
        return any(each is None or each < batches for each in lengths)

    def forget_workers(self) -> None:
        """End the workers that live on between epochs, so that the next iterator starts new ones."""
        self._fit._combined_loader.reset()

    def skip(self, fetcher: Any, batches: int) -> int:
        """Load batches and throw them away, without the loop counting them.

        Returns:
            How many there were.
        """
        ahead = getattr(fetcher, "batches", None)
        for done in range(batches):
            try:
                # The loop keeps one batch ahead where it cannot know how many there are.
                batch = next(fetcher.iterator)
            except StopIteration:
                if ahead:
                    ahead.clear()
                    fetcher.done = True
                    return done + 1
                return done
            if ahead:
                ahead[:] = [batch]
        return batches

    def end_restart(self) -> None:
        """Let the end of this epoch be like any other: else it leaves schedulers of a metric out."""
        self._fit._restarting = False

    # Schedulers

    def step_plateau_schedulers(self) -> None:
        """Do what an epoch does after its checkpoint: step the schedulers that watch a metric."""
        self._epoch.update_lr_schedulers("epoch", update_plateau_schedulers=True)
