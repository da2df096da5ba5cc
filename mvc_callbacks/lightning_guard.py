"""The refusals and warnings of VersionCheckpoint, before anything is saved."""

from __future__ import annotations

import math
import warnings
from typing import Any

from mvc_callbacks.errors import Misconfigured, MVCWarning

__all__ = [
    "check_strategy",
    "check_trainer",
    "is_interrupt",
    "planned_versions",
    "refuse_path_arguments",
    "warn_of_uploading_loggers",
]

_INSTEAD = {
    "dirpath": "store= names the folder",
    "filename": "versions are found by their epoch, step and metrics, and run= names the run",
    "auto_insert_metric_name": "there are no file names; run= names the run",
    "enable_version_counter": "no version is ever overwritten; run= names the run",
}


def refuse_path_arguments(**given: Any) -> None:
    """Refuse the arguments of ModelCheckpoint that name files.

    Raises:
        Misconfigured: If one of them is not None.
    """
    for name, value in given.items():
        if value is not None:
            raise Misconfigured(f"{name}={value!r} has no meaning for VersionCheckpoint: {_INSTEAD[name]}")


def check_trainer(trainer: Any, trainer_class: type, namespace: str) -> None:
    """Refuse a Trainer of the other namespace, whose classes are others in spite of their names.

    Raises:
        Misconfigured: With the import that is needed.
    """
    if isinstance(trainer, trainer_class):
        return
    other = "pytorch_lightning" if namespace == "lightning" else "lightning"
    raise Misconfigured(
        f"this VersionCheckpoint is for {_package(namespace)}, and the Trainer is one of "
        f"{type(trainer).__module__}: write `from mvc_callbacks.{other} import VersionCheckpoint`"
    )


def _package(namespace: str) -> str:
    return "lightning.pytorch" if namespace == "lightning" else namespace


def check_strategy(strategy: Any) -> None:
    """Refuse strategies that write checkpoints past the checkpoint plugin.

    Raises:
        Misconfigured: With the setting that works, where there is one.
    """
    names = {each.__name__ for each in type(strategy).__mro__}
    if "DeepSpeedStrategy" in names:
        raise Misconfigured(
            "DeepSpeed writes its own sharded checkpoints, past every callback: use ModelCheckpoint with it, "
            "and VersionStore.commit for the consolidated weights"
        )
    if "FSDPStrategy" in names and getattr(strategy, "_state_dict_type", "full") == "sharded":
        raise Misconfigured(
            "FSDPStrategy(state_dict_type='sharded') writes checkpoints past every callback: "
            "use FSDPStrategy(state_dict_type='full')"
        )
    if "ModelParallelStrategy" in names and getattr(strategy, "_save_distributed_checkpoint", True):
        raise Misconfigured(
            "ModelParallelStrategy writes distributed checkpoints past every callback: "
            "use ModelParallelStrategy(save_distributed_checkpoint=False)"
        )


def is_interrupt(exception: BaseException) -> bool:
    """Tell whether an exception is Ctrl-C, or the SIGTERM that Lightning turns into one."""
    return isinstance(exception, KeyboardInterrupt) or type(exception).__name__ == "SIGTERMException"


def warn_of_uploading_loggers(trainer: Any) -> None:
    """Warn about loggers that upload checkpoint files: there are none, so they would upload nothing."""
    for logger in trainer.loggers:
        if getattr(logger, "_log_model", False):
            warnings.warn(
                f"{type(logger).__name__}(log_model={logger._log_model!r}) uploads ModelCheckpoint's files, "
                "which versions are not, so it will upload nothing: put a ModelCheckpoint beside, or set "
                "log_model=False",
                MVCWarning,
                stacklevel=3,
            )


def planned_versions(callback: Any, trainer: Any) -> int | None:
    """Estimate how many versions will keep their weights at the same time; None where nobody can know."""
    saves = _planned_saves(callback, trainer)
    if saves is None or callback.save_top_k < 0:
        return saves
    return min(saves, int(callback.save_top_k) + bool(callback.save_last))


def _planned_saves(callback: Any, trainer: Any) -> int | None:
    epochs = trainer.max_epochs if trainer.max_epochs is not None and trainer.max_epochs >= 0 else math.inf
    batches = trainer.num_training_batches / max(1, trainer.accumulate_grad_batches)
    steps = min(trainer.max_steps if trainer.max_steps >= 0 else math.inf, epochs * batches if batches else 0)
    saves: float = math.inf
    if callback._every_n_train_steps:
        saves = steps / callback._every_n_train_steps
    elif callback._every_n_epochs:
        saves = min(epochs, steps / batches if batches else 0) / callback._every_n_epochs
    return math.ceil(saves) if math.isfinite(saves) else None
