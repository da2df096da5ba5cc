"""Resuming to the same bits: what is kept for it with each checkpoint, and where it is put back."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from mvc_callbacks import random_state, torch_random
from mvc_callbacks.hidden_state import Watch, differences
from mvc_callbacks.lightning_conditions import (
    always_in_doubt,
    conditions,
    lost_within_epochs,
    samplers_of,
    trained,
    watched,
    watched_loaders,
)
from mvc_callbacks.lightning_private import Loops, missing
from mvc_callbacks.reachable import is_framework, owner_of
from mvc_callbacks.resume_guarantee import Guarantee, changed

__all__ = ["KEY", "Resuming"]

KEY = "mvc_callbacks"
"""Where it lies in a checkpoint."""

_FORMAT = 1
_OF_FINDERS = (".lr_find", ".scale_batch_size")
_of_trainers: weakref.WeakKeyDictionary[Any, Resuming] = weakref.WeakKeyDictionary()


def _has_own_state(loader: Any) -> bool:
    return hasattr(loader, "state_dict") and hasattr(loader, "load_state_dict")


class Resuming:
    """Keeps what a fit needs to be resumed exactly, and resumes it; one for a Trainer, on every rank.

    Two random states are kept: that before the epoch's iterator was made, and that of now. Within an epoch,
    the first one is put back, the iterator made again, and the batches that were seen are loaded and
    thrown away, which replays what workers drew; then the second one is put back.

    Args:
        trainer: The Trainer.
    """

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._missing = missing(trainer)
        self._loops = Loops(trainer)
        self._users = 0
        self._epoch: dict[str, Any] | None = None  # the random state at the epoch's start
        self._kept: Mapping[str, Any] | None = None  # what the loaded checkpoint kept
        self._loaded = False
        self._due = False
        self._caught_up = False
        self._watch = Watch()
        self._differences: list[str] = []  # of loaders, before the first iterator of them was made
        self._conditions: dict[str, Any] = {}
        self.problems: list[str] = []  # reasons that show only when the state is put back
        self.in_validation = False
        self.hook: str | None = None  # the one in which a checkpoint is made

    @classmethod
    def of(cls, trainer: Any) -> Resuming:
        """Return the one of a Trainer; several callbacks share it."""
        if trainer not in _of_trainers:
            _of_trainers[trainer] = cls(trainer)
        return _of_trainers[trainer]

    def enter(self) -> None:
        """Begin to listen to the loops."""
        self._users += 1
        if self._users == 1 and not self._missing:
            self._loops.listen(self)

    def leave(self) -> None:
        """Leave the loops as they were, with the last callback that leaves."""
        self._users -= 1
        if self._users == 0:
            if not self._missing:
                self._loops.unlisten()
            _of_trainers.pop(self._trainer, None)

    # Keeping

    def keep(self, checkpoint: dict[str, Any]) -> None:
        """Add to a checkpoint what a resume needs. Every rank calls this, as their states are gathered."""
        if self._missing or self._epoch is None:
            return
        checkpoint[KEY] = {
            "format": _FORMAT,
            "ranks": self._gather({"now": self._random(), "epoch": self._epoch}),
            "place": self._place(),
            "gradients": self._gradients(),
            "metrics": self._watched_metrics(),
            "trained": trained(self._trainer.lightning_module),
            "conditions": self._conditions,
            "hidden": self._watch.describe(self._watched()),
        }

    def _gather(self, mine: dict[str, Any]) -> list[Any]:
        if self._trainer.world_size == 1:
            return [mine]
        gathered: list[Any] = [None] * self._trainer.world_size
        torch.distributed.all_gather_object(gathered, mine)
        return gathered

    def _random(self) -> dict[str, Any]:
        return {
            "global": torch_random.capture(),
            "held": torch_random.capture_held(self._held()),
            "workers_lived": self._workers_live(),
        }

    def _put_back(self, state: Mapping[str, Any]) -> None:
        torch_random.put_back(state["global"])
        for path in torch_random.put_back_held(self._held(), state["held"]):
            self.problems.append(f"the random generator {path} was there only before or only now")

    def _held(self) -> dict[str, Any]:
        roots = {f"loader {index}": each for index, each in enumerate(self._loops.loaders)}
        return torch_random.held({**roots, "module": self._trainer.lightning_module})

    def _workers_live(self) -> bool:
        return any(getattr(each, "_iterator", None) is not None for each in self._loops.loaders)

    def _place(self) -> dict[str, Any]:
        loops = self._loops
        return {
            "in_epoch": loops.in_epoch,
            "batches": loops.batches_ready,
            "in_step": loops.in_step,
            "in_validation": self.in_validation,
            "hook": self.hook,
            "stopping": bool(self._trainer.should_stop),
            "skipped": loops.skipped,
            "accumulate": self._trainer.accumulate_grad_batches,
            "of": str(self._trainer.num_training_batches),
            "last_batch": loops.last_batch,
            "completed": loops.completed,
            "accumulating": loops.accumulating and loops.in_epoch,
            "logged_in_training": list(loops.training_metrics),
            "reloaded_at": loops.reloaded_at,
        }

    def _gradients(self) -> dict[str, torch.Tensor]:
        """Return the gradients that wait for further batches; in manual optimization, all there are."""
        trainer, module = self._trainer, self._trainer.lightning_module
        if trainer.world_size > 1:
            return {}  # they differ between ranks, and are told as a reason
        waiting = self._loops.in_epoch and self._loops.accumulating
        if module.automatic_optimization and not waiting:
            return {}
        return {name: each.grad for name, each in module.named_parameters() if each.grad is not None}

    def _watched(self) -> dict[str, Any]:
        return {**watched(self._trainer), **watched_loaders(self._loops.loaders)}

    def _watched_metrics(self) -> dict[str, torch.Tensor]:
        # A validation's metric is watched until the next one, which may be an epoch away.
        metrics = self._trainer.callback_metrics
        return {name: metrics[name].detach().cpu().clone() for name in self._monitored() if name in metrics}

    def _monitored(self) -> list[str]:
        """Return the names of metrics that schedulers and callbacks watch."""
        configs, callbacks = self._trainer.lr_scheduler_configs, self._trainer.callbacks
        names = [each.monitor for each in configs if each.reduce_on_plateau]
        names += [getattr(each, "monitor", None) for each in callbacks]
        return sorted({each for each in names if isinstance(each, str)})

    def _plateaus(self, interval: str) -> list[Any]:
        configs = self._trainer.lr_scheduler_configs
        return [each for each in configs if each.reduce_on_plateau and each.interval == interval]

    # Going on

    def take(self, checkpoint: Mapping[str, Any]) -> None:
        """Take out of the checkpoint that is resumed from what was kept.

        One that finders of learning rates and batch sizes make before training, and load again themselves, is
        none to resume from. After a real one it counts: then they undo what was loaded.
        """
        kept = checkpoint.get(KEY)
        # Its name is all that tells: Lightning notes it as if it had been given to fit.
        of_finder = Path(str(self._trainer.ckpt_path)).name.startswith(_OF_FINDERS)
        if kept is None and of_finder and not self._loaded:
            return
        self._loaded = True
        self._kept = kept if isinstance(kept, dict) and kept.get("format") == _FORMAT else None
        self._due = self._kept is not None

    def begin(self) -> Guarantee | None:
        """Begin to train; say what is promised if this is a resume, otherwise None."""
        # As of the beginning: some callbacks exchange schedulers on the way, and do so again after a resume.
        self._conditions = conditions(self._trainer, self._loops.loaders)
        if not self._loaded:
            return None
        return Guarantee.of(self._reasons())

    def _reasons(self) -> list[str]:
        if self._missing:
            return [f"this Lightning has no {', '.join(self._missing)}, so no random state is put back"]
        kept, trainer = self._kept, self._trainer
        if kept is None:
            return ["no random state was kept with what is resumed from"]
        reasons = changed(kept["conditions"], self._conditions)
        reasons += always_in_doubt(trainer, self._loops.loaders)
        now = self._watched() if self._own_state() else watched(trainer)
        reasons += self._differences + differences(kept["hidden"], now)
        if len(kept["ranks"]) != trainer.world_size:
            reasons.append("random state was kept of another number of ranks")
        if self._plateaus("step"):
            reasons.append("ReduceLROnPlateau(interval='step') steps after the checkpoint is made")
        return reasons + self._reasons_of_place(kept["place"])

    def _reasons_of_place(self, place: Mapping[str, Any]) -> list[str]:
        reasons = []
        if place["stopping"]:
            reasons.append("it was saved when training was about to stop, which goes on now")
        if place["in_step"]:
            reasons.append("it was saved in the middle of a step")
        if place["in_validation"]:
            reasons.append("it was saved in the middle of a validation")
        if not place["in_epoch"]:
            if self._trainer.max_steps != -1:
                reasons.append(
                    "with max_steps, Lightning goes through an epoch's end twice: resume within one"
                )
            if not place["last_batch"]:
                reasons.append(f"its epoch was cut short after {place['batches']} of {place['of']} batches")
            return reasons
        reasons += self._reasons_of_hook(place["hook"])
        if place["skipped"]:
            reasons.append("an epoch was left early, by on_train_batch_start")
        reasons += lost_within_epochs(self._trainer)
        if self._loops.restarts_within(place["batches"]):
            reasons.append("a loader that is shorter than another one began anew within the epoch")
        if place["accumulating"] and self._trainer.world_size > 1:
            reasons.append("gradients of several ranks were waiting for further batches")
        watched = {str(each.monitor) for each in self._trainer.lr_scheduler_configs if each.monitor}
        watched |= {
            str(each.monitor)
            for each in self._trainer.callbacks
            if getattr(each, "monitor", None) and not hasattr(each, "best_k_models")
        }
        logged = set(place["logged_in_training"])
        for name in sorted(watched):
            if name in logged or name.removesuffix("_epoch") in logged:
                reasons.append(f"the mean of {name!r} over the epoch, which something watches, begins anew")
        if not self._own_state() and any(map(_has_own_state, self._loops.loaders)):
            reasons.append("one loader goes on by a state of its own, and another one does not")
        if self._own_state() and any(getattr(each, "num_workers", 0) for each in self._loops.loaders):
            reasons.append("the workers of a stateful loader begin with another random state")
        if type(self._trainer.fit_loop._data_fetcher).__name__ == "_DataLoaderIterDataFetcher":
            reasons.append("training_step takes its batches from the loader itself")
        return reasons

    def _reasons_of_hook(self, hook: str | None) -> list[str]:
        # What the module does there comes after the checkpoint, and is not done again.
        name = {"batch": "on_train_batch_end", "validation": "on_validation_end"}.get(hook or "")
        if name is None or is_framework(owner_of(type(self._trainer.lightning_module), name)):
            return []
        return [f"the module's {name} comes after its save, and is not repeated"]

    def _own_state(self) -> bool:
        """Tell whether all loaders go on by a state of their own, which Lightning has loaded."""
        loaders = self._loops.loaders
        return bool(loaders) and all(map(_has_own_state, loaders))

    def _mine(self) -> Mapping[str, Any] | None:
        ranks = self._kept["ranks"] if self._kept is not None else []
        rank = self._trainer.global_rank
        return ranks[rank] if rank < len(ranks) else None

    # The loops' moments

    def before_iterator(self) -> None:
        """Remember how loaders are, and the random state, before their first iterator is made."""
        loaders = watched_loaders(self._loops.loaders)
        self._watch.meet(loaders)
        if self._kept is not None and self._epoch is None and not self._own_state():
            self._differences = differences(self._kept["hidden"], loaders)
        self._epoch = self._random()

    def before_epoch(self) -> None:
        """Put the random state of an epoch's end back before anything of the next one happens."""
        self._watch.meet(watched(self._trainer))
        kept, mine = self._kept, self._mine()
        if not self._due or kept is None or mine is None:
            return
        if kept["place"]["reloaded_at"] is not None:
            self._loops.reloaded_at = kept["place"]["reloaded_at"]
        self._trainer.callback_metrics.update(kept["metrics"])
        if kept["place"]["in_epoch"]:  # a callback that sets it does so at the begin of an epoch
            self._trainer.accumulate_grad_batches = kept["place"]["accumulate"]
            return
        self._put_back(mine["now"])
        self._catch_up(kept)

    def _catch_up(self, kept: Mapping[str, Any]) -> None:
        """Step the schedulers that watch a metric: an epoch does that after its checkpoint is made."""
        place, metrics = kept["place"], kept["metrics"]
        if self._caught_up or place["completed"] or not place["last_batch"] or not metrics:
            return
        self._caught_up = True
        self._loops.step_plateau_schedulers()

    def at_run_start(self, fetcher: Any, start: Callable[[], None]) -> None:
        """Make the epoch's iterator from the right random state."""
        kept, mine = self._kept, self._mine()
        if not self._due or kept is None or mine is None or (not kept["place"]["in_epoch"] and self._over()):
            self._start(fetcher, start, again=False)
            return
        self._due = False
        if kept["place"]["in_epoch"]:
            self._go_on_in_epoch(fetcher, kept, mine)
            start()
            if not kept["place"]["last_batch"]:
                self._loops.end_restart()
        else:
            self._start(fetcher, start, again=True)
        if trained(self._trainer.lightning_module) != kept["trained"]:
            self.problems.append("other parameters are frozen, or other modules are in evaluation mode")
        self._put_gradients_back(kept["gradients"])
        self._kept = None

    def _over(self) -> bool:
        # With max_steps, Lightning runs once through an epoch that is over already.
        return self._loops.epoch_over

    def _start(self, fetcher: Any, start: Callable[[], None], *, again: bool) -> None:
        before, old = self._random(), self._loops.iterator
        start()
        if again and self._loops.iterator is old:
            iter(fetcher)
        if self._loops.iterator is not old:
            self._epoch = before
        elif self._epoch is not None:
            # It was made before the hooks that begin an epoch, and samplers draw when they are asked first.
            self._epoch = {**self._epoch, "first": self._random()}

    def _go_on_in_epoch(self, fetcher: Any, kept: Mapping[str, Any], mine: Mapping[str, Any]) -> None:
        place = kept["place"]
        if not self._own_state():
            self._put_back(mine["epoch"])
            if not mine["epoch"]["workers_lived"]:
                self._loops.forget_workers()
            iter(fetcher)
            if "first" in mine["epoch"]:
                self._put_back(mine["epoch"]["first"])
            self._replay(fetcher, place["batches"])
        self._epoch = dict(mine["epoch"])
        self._put_back(mine["now"])

    def _replay(self, fetcher: Any, batches: int) -> None:
        """Load the batches that were seen; notice a sampler whose order depends on what else is drawn."""
        loops = self._loops
        if not any(not is_framework(each) for each in samplers_of(loops.loaders)):
            loops.skip(fetcher, batches)
            return
        done = loops.skip(fetcher, min(batches, 1))
        before = random_state.capture(bytes)
        loops.skip(fetcher, batches - done)
        if random_state.capture(bytes) != before:
            self.problems.append("a sampler of one's own may have drawn its order between the steps")

    def _put_gradients_back(self, gradients: Mapping[str, torch.Tensor]) -> None:
        for name, parameter in self._trainer.lightning_module.named_parameters():
            if name in gradients:
                parameter.grad = gradients[name].to(parameter.device, parameter.dtype)
