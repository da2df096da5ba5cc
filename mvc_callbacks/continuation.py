"""Going on from a version: whether data and hyperparameters are still its own, and what is promised of it."""

from __future__ import annotations

import logging
import warnings
from typing import Any, Literal

from mvc_callbacks import render_values
from mvc_callbacks.data_change import DataChange
from mvc_callbacks.errors import DataChanged, MVCError, MVCWarning
from mvc_callbacks.recorder import Recorder
from mvc_callbacks.resume_guarantee import Guarantee, changed
from mvc_callbacks.versions import Version

__all__ = ["compare_data", "promise", "refuse_change"]

_log = logging.getLogger(__name__)
PATIENCE = 10.0  # seconds that training waits for the fingerprint of data which it only warns about


def compare_data(
    recorder: Recorder,
    version: Version | None,
    action: Literal["warn", "error", "ignore"],
    *,
    stacklevel: int = 2,
) -> DataChange:
    """Compare the data with those of the version that training goes on from, or begins at.

    Args:
        recorder: Of the fit, which has begun.
        version: What is resumed; None compares with what the model was restored from, if that is known.
        action: ``on_data_change``: ``warn`` warns here, and ``error`` waits for the fingerprints.
        stacklevel: Of the warning, counted from the caller.
    """
    if version is None and recorder.parents and recorder.parents[0].how == "restore":
        version = _known(recorder, recorder.parents[0].id)
    if version is None:
        return DataChange()
    if action == "ignore":
        return DataChange(unknown=("the data were not compared (on_data_change='ignore')",))
    found = recorder.compare_data(version, patience=None if action == "error" else PATIENCE)
    if found.changed and action == "warn":
        warnings.warn(
            f"these are not the data that version {version.run}/{version.number} was trained on: "
            f"{'; '.join(found.changed)}",
            MVCWarning,
            stacklevel=stacklevel + 1,
        )
    return found


def _known(recorder: Recorder, version_id: str) -> Version | None:
    try:
        return recorder.store.get(version_id)
    except MVCError:  # of another store
        return None


def refuse_change(told: tuple[str, ...] | list[str]) -> None:
    """Stop where the data have changed and that is an error.

    Raises:
        DataChanged: If anything is told.
    """
    if told:
        raise DataChanged(
            f"training does not go on, as these are other data: {'; '.join(told)}. Bring them back, or "
            "give on_data_change='warn'"
        )


def promise(
    recorder: Recorder,
    guarantee: Guarantee,
    *,
    version: Version | None,
    name: str,
    data: DataChange,
    free: tuple[str, ...] = (),
    stacklevel: int = 2,
) -> Guarantee:
    """Say whether a resumed run will end with the same bits: in the log, and in the run's record.

    Args:
        recorder: Of the fit, with its hyperparameters.
        guarantee: What the framework's room knows.
        version: What is resumed, where it is of this store: its hyperparameters are compared.
        name: What is resumed, for people.
        data: How the data differ.
        free: Names of hyperparameters that may differ, such as the number of epochs.
        stacklevel: Of the warning, counted from the caller.
    """
    differ: list[str] = []
    if version is not None:
        then = version.details.record.get("hyperparameters", {})
        differ = changed(
            {"the hyperparameters": _laid_out(then, free)},
            {"the hyperparameters": _laid_out(recorder.hyperparameters, free)},
            tell=render_values.told,
        )
    whole = Guarantee.of([*guarantee.reasons, *differ, *data.changed, *data.unknown])
    recorder.run_facts = {**recorder.run_facts, "resume": whole.to_dict()}
    told = f"this run goes on from {name}: {whole}"
    if whole.exact:
        _log.info(told)
    else:
        warnings.warn(told, MVCWarning, stacklevel=stacklevel + 1)
    return whole


def _laid_out(told: Any, free: tuple[str, ...]) -> dict[str, Any]:
    # How they are kept (the module's class, the name of an argument) is in the record too, and counts.
    return {
        name: value
        for name, value in render_values.hyperparameters(told).items()
        if not set(name.split(".")) & set(free)
    }
