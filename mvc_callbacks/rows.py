"""Rows of the history: what a record and later events tell of a version, in short."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mvc_callbacks.errors import CorruptHistory
from mvc_callbacks.history import Row
from mvc_callbacks.versions import (
    Details,
    Evaluation,
    Fingerprint,
    Monitor,
    Parent,
    Pruned,
    TrainingState,
    Version,
    Weights,
)

__all__ = ["apply_event", "row_of", "version_of"]

_STATIC = (
    "number",
    "sequence",
    "created",
    "framework",
    "epoch",
    "step",
    "metrics",
    "monitor",
    "flags",
    "parents",
)


def row_of(identity: str, record: Mapping[str, Any]) -> Row:
    """Tell a version's record as a row.

    Args:
        identity: The version's id.
        record: The record, as read.

    Returns:
        The row, before any event.

    Raises:
        CorruptHistory: If the record lacks a field.
    """
    try:
        row: Row = {"id": identity, "run": record["run"]["label"], **{name: record[name] for name in _STATIC}}
        row["weights"] = {name: each for name, each in record["weights"].items() if name in Weights.__slots__}
        state = record["training_state"]
        row["state"] = state and {
            name: each for name, each in state.items() if name in TrainingState.__slots__
        }
        row["data"] = dict(record["data"])
    except (KeyError, TypeError, AttributeError) as error:
        raise CorruptHistory(f"the record of version {identity[:12]} lacks {error}") from error
    row["evaluations"] = []
    row["pruned"] = []
    return row


def apply_event(row: Row, identity: str, event: Mapping[str, Any]) -> None:
    """Write what an event says of a version into its row; said twice it changes nothing.

    Args:
        row: The row; changed.
        identity: The event's id.
        event: The event's record.
    """
    kind = event["event"]
    if kind == "prune":
        told = {"what": event["what"], "time": event["time"], "policy": event["policy"]}
        if told["what"] not in {each["what"] for each in row["pruned"]}:
            row["pruned"] = sorted([told, *row["pruned"]], key=lambda each: str(each["what"]), reverse=True)
    elif kind == "evaluation" and identity not in {each["id"] for each in row["evaluations"]}:
        told = {"id": identity, **{name: event[name] for name in ("time", "kind_of", "metrics", "data")}}
        row["evaluations"] = sorted([*row["evaluations"], told], key=lambda each: (each["time"], each["id"]))
    elif kind == "fingerprint":
        row["data"] = {**row["data"], event["name"]: event["fingerprint"]}


def version_of(row: Row, load: Callable[[str], Details] | None) -> Version:
    """Make a version from its row.

    Raises:
        CorruptHistory: If the row lacks a field.
    """
    try:
        return Version(
            id=row["id"],
            run=row["run"],
            number=row["number"],
            sequence=row["sequence"],
            created=row["created"],
            framework=row["framework"],
            epoch=row["epoch"],
            step=row["step"],
            metrics=row["metrics"],
            monitor=Monitor(*row["monitor"]) if row["monitor"] else None,
            parents=tuple(Parent(**each) for each in row["parents"]),
            weights=Weights(**row["weights"]),
            training_state=_state(row["state"]),
            data=_fingerprints(row["data"]),
            evaluations=tuple(
                Evaluation(
                    each["id"], each["time"], each["kind_of"], each["metrics"], _fingerprints(each["data"])
                )
                for each in row["evaluations"]
            ),
            pruned=tuple(Pruned(**each) for each in row["pruned"]),
            flags=tuple(row["flags"]),
            _load=load,
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise CorruptHistory(f"a row of the history cannot be read ({error}); run `mvc rebuild`") from error


def _state(told: Mapping[str, Any] | None) -> TrainingState | None:
    return TrainingState(**{**told, "untold": tuple(told.get("untold", ()))}) if told else None


def _fingerprints(told: Mapping[str, Any]) -> dict[str, Fingerprint]:
    return {name: Fingerprint.from_dict(each) for name, each in told.items()}
