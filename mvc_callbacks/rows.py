"""Rows of the history: what a record and later events tell of a version, in short."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from mvc_callbacks.canonical import encode
from mvc_callbacks.errors import CorruptHistory
from mvc_callbacks.row_checks import Row, check_row, is_fingerprint
from mvc_callbacks.versions import (
    Details,
    Evaluation,
    Fingerprint,
    Monitor,
    Note,
    Parent,
    Pruned,
    TrainingState,
    Version,
    Weights,
)

__all__ = ["apply_event", "by_version", "differs", "is_event", "is_told", "row_of", "version_of"]

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

_PRUNED = ("what", "time", "policy")

_EVENTS: Mapping[str, Mapping[str, Any]] = {
    "prune": {"versions": list, "what": str, "time": str, "policy": str},
    "evaluation": {"versions": list, "time": str, "kind_of": str, "metrics": dict, "data": dict},
    "fingerprint": {"versions": list, "time": str, "name": str, "fingerprint": dict},
    "note": {"versions": list, "time": str, "text": str, "who": str},
    "delete": {"versions": list, "time": str, "run": str},
    "alias": {
        "name": str,
        "id": (str, type(None)),
        "previous": (str, type(None)),
        "turn": int,
        "time": str,
        "how": str,
        "why": str,
        "who": str,
    },
}


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
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise CorruptHistory(f"the record of version {identity[:12]} lacks {error}") from error
    row["evaluations"] = []
    row["pruned"] = []
    try:
        check_row(row)
    except ValueError as error:
        raise CorruptHistory(
            f"the record of version {identity[:12]} is not one of a version: {error}"
        ) from error
    return row


def differs(row: Row, told: Row) -> bool:
    """Tell whether a row of the history says anything else than a record, as far as events cannot change it.

    Args:
        row: The row.
        told: What `row_of` makes of the record.
    """
    later: Row = {"pruned": [], "evaluations": [], "notes": [], "data": {}}
    if encode({**row, **later}) != encode({**told, **later}):  # as bytes: NaN is not equal to itself
        return True
    pending = {name for name, each in told["data"].items() if each.get("coverage") == "pending"}
    return row["data"].keys() != told["data"].keys() or any(
        row["data"][name] != each for name, each in told["data"].items() if name not in pending
    )


def apply_event(row: Row, identity: str, event: Mapping[str, Any]) -> None:
    """Write what an event says of a version into its row; said twice it changes nothing.

    Args:
        row: The row; changed.
        identity: The event's id.
        event: The event's record.
    """
    kind = event["event"]
    if kind == "prune":
        told = {name: event[name] for name in _PRUNED}
        if told["what"] not in {each["what"] for each in row["pruned"]}:
            row["pruned"] = sorted([told, *row["pruned"]], key=lambda each: str(each["what"]), reverse=True)
    elif kind == "evaluation" and identity not in {each["id"] for each in row["evaluations"]}:
        told = {"id": identity, **_evaluation(event)}
        row["evaluations"] = sorted([*row["evaluations"], told], key=lambda each: (each["time"], each["id"]))
    elif kind == "fingerprint" and row["data"].get(event["name"], {}).get("coverage") == "pending":
        row["data"] = {**row["data"], event["name"]: event["fingerprint"]}
    elif kind == "note" and identity not in {each["id"] for each in row.get("notes", ())}:
        told = {"id": identity, **{name: event[name] for name in ("time", "text", "who")}}
        row["notes"] = sorted([*row.get("notes", ()), told], key=lambda each: (each["time"], each["id"]))


def _evaluation(event: Mapping[str, Any]) -> dict[str, Any]:
    return {name: event[name] for name in ("time", "kind_of", "metrics", "data")}


def is_event(event: Mapping[str, Any]) -> bool:
    """Tell whether an event has the fields of its kind; others say nothing."""
    kind = str(event.get("event"))
    fields = _EVENTS.get(kind, {"": ()})
    if not all(isinstance(event.get(name), types) for name, types in fields.items()):
        return False
    prints = event["data"].values() if kind == "evaluation" else ()
    if kind == "fingerprint":
        prints = (event["fingerprint"],)
    return all(isinstance(each, str) for each in event.get("versions", ())) and all(
        is_fingerprint(each) for each in prints
    )


def by_version(
    events: Iterable[tuple[str, Mapping[str, Any]]],
) -> dict[str, list[tuple[str, Mapping[str, Any]]]]:
    """Return what `apply_event` takes for each version, in the given order."""
    found: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
    for identity, event in events:
        if event["event"] in ("prune", "evaluation", "fingerprint", "note"):
            for each in event["versions"]:
                found.setdefault(each, []).append((identity, event))
    return found


def is_told(row: Row, told: Row, events: Iterable[tuple[str, Mapping[str, Any]]]) -> bool:
    """Tell whether everything that events may change in a row is told by one of them.

    An event may be there without its row, when a crash came between the two.

    Args:
        row: The row.
        told: What `row_of` makes of the record.
        events: The version's, as `by_version` gives them.
    """
    events = list(events)
    kinds = [(identity, event["event"], event) for identity, event in events]
    gone = [{name: event[name] for name in _PRUNED} for _, kind, event in kinds if kind == "prune"]
    measured = {identity: event for identity, kind, event in kinds if kind == "evaluation"}
    notes = {identity: event for identity, kind, event in kinds if kind == "note"}
    late = [(event["name"], event["fingerprint"]) for _, kind, event in kinds if kind == "fingerprint"]
    return (
        all(each in gone for each in row["pruned"])
        and all(
            each.get("id") in measured
            and encode({**each, "id": ""}) == encode({"id": "", **_evaluation(measured[each["id"]])})
            for each in row["evaluations"]
        )
        and all(
            each["id"] in notes
            and all(each[field] == notes[each["id"]][field] for field in ("time", "text", "who"))
            for each in row.get("notes", ())
        )
        and all(told["data"].get(name) == each or (name, each) in late for name, each in row["data"].items())
    )


def version_of(
    row: Row,
    load: Callable[[str], Details] | None,
    show: Callable[[Version, Literal["text", "html"]], str] | None = None,
) -> Version:
    """Make a version from its row.

    Args:
        row: The row.
        load: Reads what only the records tell.
        show: Tells everything of a version, for people.

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
            notes=tuple(Note(**each) for each in row.get("notes", ())),
            _load=load,
            _show=show,
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise CorruptHistory(f"a row of the history cannot be read ({error}); run `mvc rebuild`") from error


def _state(told: Mapping[str, Any] | None) -> TrainingState | None:
    return TrainingState(**{**told, "untold": tuple(told.get("untold", ()))}) if told else None


def _fingerprints(told: Mapping[str, Any]) -> dict[str, Fingerprint]:
    return {name: Fingerprint.from_dict(each) for name, each in told.items()}
