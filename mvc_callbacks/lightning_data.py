"""What a Trainer knows of its data: the loaders, never iterated."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from mvc_callbacks import fingerprint
from mvc_callbacks.fingerprint import Plan

__all__ = ["eval_plans", "fit_plans"]

_log = logging.getLogger(__name__)


def fit_plans(declared: Any, trainer: Any) -> dict[str, Plan]:
    """Plan the fingerprints of what a fit trains and validates on.

    Args:
        declared: The callback's ``data=``, or None.
        trainer: The Trainer, after its loaders are made.

    Returns:
        Name to plan; empty where even planning failed, which is logged.
    """
    if declared is not None:
        given = dict(declared) if isinstance(declared, Mapping) else {"train": declared}
        return _planned(lambda: {name: fingerprint.plan(each, declared=True) for name, each in given.items()})
    return _gathered(lambda: {"train": _training(trainer), "val": trainer.val_dataloaders})


def eval_plans(trainer: Any, kind: str) -> dict[str, Plan]:
    """Plan the fingerprints of what a test or validation measures on."""
    if kind == "test":
        return _gathered(lambda: {"test": trainer.test_dataloaders})
    return _gathered(lambda: {"val": trainer.val_dataloaders})


def _gathered(loaders: Callable[[], dict[str, Any]]) -> dict[str, Plan]:
    return _planned(
        lambda: fingerprint.gather({name: each for name, each in loaders().items() if each is not None})
    )


def _training(trainer: Any) -> Any:
    # The Trainer's own property gives them as the user nested them; what it stands on is there before it is.
    loaders = trainer.train_dataloader
    if loaders is None:
        combined = getattr(trainer.fit_loop, "_combined_loader", None)
        loaders = combined.flattened if combined is not None else None
    return loaders


def _planned(plan: Callable[[], dict[str, Plan]]) -> dict[str, Plan]:
    try:
        return plan()
    except Exception:
        # Not finding the data never stops training, and is never written as if it had been found.
        _log.warning("the data could not be looked at, and has no fingerprint", exc_info=True)
        return {}
