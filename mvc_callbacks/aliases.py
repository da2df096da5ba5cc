"""Aliases: movable names of versions, with the log of their moves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mvc_callbacks import files
from mvc_callbacks.errors import CorruptHistory, UnknownRef
from mvc_callbacks.history import AtomicStorage
from mvc_callbacks.versions import AliasMove

__all__ = ["AliasTable"]

_FIELDS = ("name", "id", "previous", "time", "how", "why", "who")


class AliasTable:
    """The database ``aliases.json``: a table of current aliases and one of their moves.

    Args:
        path: The database.
        staging: Where it is written before it takes its place.
    """

    def __init__(self, path: Path, staging: Path) -> None:
        self._storage = AtomicStorage(path, staging)

    def exists(self) -> bool:
        """Tell whether the database is there; it is made with the store."""
        return files.exists(self._storage.path)

    def _tables(self) -> tuple[dict[str, str], list[dict[str, Any]]]:
        tables = self._storage.read() or {}
        try:
            current = {row["name"]: row["id"] for row in tables.get("aliases", {}).values()}
            log = [row for _, row in sorted(tables.get("log", {}).items(), key=lambda item: int(item[0]))]
            if not all(isinstance(each, str) for pair in current.items() for each in pair):
                raise TypeError("a name or an id is not text")
            if not all(_is_move(row) for row in log):
                raise TypeError("a move lacks a field, or has one that is not text")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CorruptHistory(
                f"{self._storage.path} cannot be read ({error}); run `mvc rebuild`"
            ) from error
        return current, log

    def current(self) -> dict[str, str]:
        """Return name to id, sorted by name."""
        return dict(sorted(self._tables()[0].items()))

    def log(self, name: str | None = None) -> list[AliasMove]:
        """Return the moves of one alias, or of all, oldest first."""
        return [
            AliasMove(**{field: row[field] for field in _FIELDS})
            for row in self._tables()[1]
            if name is None or row["name"] == name
        ]

    def is_told(self, events: Mapping[str, Mapping[str, Any]]) -> bool:
        """Tell whether every move is told by an event, in order, and the aliases are where the moves lead.

        An event may be there without its move, when a crash came between the two.

        Args:
            events: Id to event, of all that move aliases.

        Raises:
            CorruptHistory: If the database cannot be read.
        """
        current, log = self._tables()
        ends: dict[str, str] = {}
        turns: dict[str, int] = {}
        for row in log:
            event = events.get(str(row.get("event")))
            if event is None or any(row.get(field) != event[field] for field in (*_FIELDS, "turn")):
                return False
            if event["turn"] < turns.get(event["name"], 0):
                return False
            turns[event["name"]] = event["turn"]
            ends.pop(event["name"], None)
            if event["id"] is not None:
                ends[event["name"]] = event["id"]
        tables = self._storage.read() or {}
        numbered = tables.get("log", {}).keys() == {str(number) for number in range(1, len(log) + 1)}
        return numbered and current == ends

    def next_turn(self, name: str) -> int:
        """Return the number of an alias's next move; clocks do not order them."""
        return len(self.log(name)) + 1

    def undo_target(self, name: str) -> str:
        """Return where an alias pointed before its last promotion that was not undone.

        A removal is an end: an alias that was made again does not go back beyond it.

        Raises:
            UnknownRef: If there is nothing to go back to.
        """
        places: list[str] = []
        for move in self.log(name):
            if move.id is None:
                places = []
            elif move.how == "rollback":
                places = places[:-1]
            else:
                places.append(move.id)
        if not places:
            raise UnknownRef(f"there is no alias {name!r}; `mvc aliases` lists them")
        if len(places) < 2:
            raise UnknownRef(
                f"the alias {name!r} has pointed to one version only: there is nothing to roll back to"
            )
        return places[-2]

    def append(self, identity: str, event: Mapping[str, Any]) -> None:
        """Write an alias event, durably. Hold the store's lock.

        Args:
            identity: The event's id.
            event: The event's record.
        """
        from tinydb import TinyDB, where  # who only reads need not wait for it
        from tinydb.table import Document

        tables = self._storage.read() or {}
        log = tables.get("log", {})
        with TinyDB(storage=lambda: _Once(self._storage, tables)) as database:
            row = {**{field: event[field] for field in _FIELDS}, "event": identity, "turn": event["turn"]}
            database.table("log").insert(Document(row, doc_id=max(map(int, log), default=0) + 1))
            current = database.table("aliases")
            if event["id"] is None:
                current.remove(where("name") == event["name"])
            else:
                current.upsert({"name": event["name"], "id": event["id"]}, where("name") == event["name"])

    def replace(self, events: list[tuple[str, Mapping[str, Any]]]) -> None:
        """Write all anew from alias events. Hold the store's lock."""
        ordered = sorted(events, key=lambda each: (each[1]["time"], each[1]["turn"], each[0]))
        by_name: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
        for each in ordered:
            by_name.setdefault(each[1]["name"], []).append(each)
        for each_name in by_name.values():
            # Clocks may have gone back: within a name its own count is the order.
            each_name.sort(key=lambda each: (each[1]["turn"], each[1]["time"], each[0]))
        turns = {name: iter(each) for name, each in by_name.items()}
        merged = [next(turns[each[1]["name"]]) for each in ordered]
        log = {
            str(place): {
                **{field: event[field] for field in _FIELDS},
                "event": identity,
                "turn": event["turn"],
            }
            for place, (identity, event) in enumerate(merged, 1)
        }
        current: dict[str, str] = {}
        for _, event in merged:
            current.pop(event["name"], None)
            if event["id"] is not None:
                current[event["name"]] = event["id"]
        aliases = {
            str(place): {"name": name, "id": each} for place, (name, each) in enumerate(current.items(), 1)
        }
        self._storage.write({"log": log, "aliases": aliases})


def _is_move(row: Mapping[str, Any]) -> bool:
    return set(_FIELDS) <= row.keys() and all(
        isinstance(row[field], str) or (row[field] is None and field in ("id", "previous"))
        for field in _FIELDS
    )


class _Once(AtomicStorage):
    """Tables already read; the file is written once, when the database is closed."""

    def __init__(self, target: AtomicStorage, tables: dict[str, dict[str, Any]]) -> None:
        self._target = target
        self._tables = tables

    def read(self) -> dict[str, dict[str, Any]] | None:
        return self._tables

    def write(self, data: dict[str, dict[str, Any]]) -> None:
        self._tables = data

    def close(self) -> None:
        self._target.write(self._tables)
