"""Runs of other trackers, beside which a fit is recorded: names and ids, asked of objects that are there."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["active_runs", "told"]

# What a logger of Lightning tells in public; "version" is the run's id with W&B, MLflow, Comet and Neptune.
_ASKED = ("name", "version", "run_id", "experiment_id", "project", "log_dir", "save_dir")
_LONGEST = 400


def told(loggers: Iterable[Any]) -> dict[str, dict[str, str]]:
    """Tell the runs of loggers.

    Args:
        loggers: Loggers whose runs have begun.

    Returns:
        Class of a logger (``CSVLogger``, then ``CSVLogger-2``) to what it tells of its run, as texts.
    """
    found: dict[str, dict[str, str]] = {}
    for logger in loggers:
        kind = type(logger).__name__
        number, key = 1, kind
        while key in found:
            number += 1
            key = f"{kind}-{number}"
        found[key] = _asked(logger, _ASKED)
        if _is_a(logger, "WandbLogger"):
            found[key] |= _asked(getattr(logger, "experiment", None), ("url",))
    return found


def active_runs() -> dict[str, dict[str, str]]:
    """Tell the runs of W&B and MLflow that are open in this process, whoever began them.

    Neither is imported for it.
    """
    found = {}
    wandb, mlflow = sys.modules.get("wandb"), sys.modules.get("mlflow")
    run = getattr(wandb, "run", None)
    if run is not None:
        found["wandb"] = _asked(run, ("id", "name", "project", "entity", "url"))
    try:
        active = mlflow.active_run() if mlflow is not None else None
    except Exception:  # theirs, and none of ours: training is not to end by it
        active = None
    if active is not None:
        found["mlflow"] = _asked(getattr(active, "info", None), ("run_id", "run_name", "experiment_id"))
    return {name: run for name, run in found.items() if run}


def _asked(thing: Any, names: Iterable[str]) -> dict[str, str]:
    answers: Mapping[str, Any] = {name: _ask(thing, name) for name in names}
    return {name: str(value)[:_LONGEST] for name, value in answers.items() if isinstance(value, (str, int))}


def _ask(thing: Any, name: str) -> Any:
    try:
        return getattr(thing, name, None)
    except Exception:  # a property that asks a server
        return None


def _is_a(thing: Any, name: str) -> bool:
    return any(each.__name__ == name for each in type(thing).__mro__)
