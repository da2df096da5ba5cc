"""Selecting versions of a log: by a condition, by time, by a file of their data, by words of their notes."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvc_callbacks import expressions
from mvc_callbacks.errors import Misconfigured, MVCError
from mvc_callbacks.render_values import hyperparameters, told
from mvc_callbacks.versions import Version

if TYPE_CHECKING:
    from mvc_callbacks.store_reader import StoreReader

__all__ = ["Selection", "select"]

_FIELDS: Mapping[str, Callable[[Version], Any]] = {
    "id": lambda each: each.id,
    "run": lambda each: each.run,
    "number": lambda each: each.number,
    "epoch": lambda each: each.epoch,
    "step": lambda each: each.step,
    "created": lambda each: each.created,
    "framework": lambda each: each.framework,
    "pruned": lambda each: not each.has_weights,
    "bytes": lambda each: each.weights.bytes,
    "stored": lambda each: each.weights.stored_bytes,
    "flags": lambda each: ", ".join(each.flags),
}
_KNOWN_SHOWN = 12
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Selection:
    """What versions must be.

    Attributes:
        where: A condition on fields, metrics and hyperparameters, as ``expressions.parse`` reads it.
        since: Made at this time or later, UTC ISO-8601.
        data_file: A file that was among their data: its path as recorded, the end of that, or a file on disk.
        grep: A text in their notes.
    """

    where: str | None = None
    since: str | None = None
    data_file: str | None = None
    grep: str | None = None

    def __bool__(self) -> bool:
        return any(each is not None for each in (self.where, self.since, self.data_file, self.grep))


def select(
    store: StoreReader, versions: Sequence[Version], selection: Selection
) -> tuple[list[Version], dict[str, str]]:
    """Select versions.

    Args:
        store: The store that has them.
        versions: In any order.
        selection: What they must be.

    Returns:
        Those that are, in the same order, and what to note beside some of them, by id.

    Raises:
        Misconfigured: If the condition cannot be read, or asks for a name that no version has; if a file is
            looked for, and no version has a list of its files.
    """
    chosen = list(versions)
    if selection.since is not None:
        chosen = [each for each in chosen if each.created >= selection.since]
    if selection.grep is not None:
        word = selection.grep.casefold()
        chosen = [each for each in chosen if any(word in note.text.casefold() for note in each.notes)]
    if selection.where is not None:
        chosen = _where(chosen, selection.where)
    notes: dict[str, str] = {}
    if selection.data_file is not None:
        notes = _saw(store, chosen, selection.data_file)
        chosen = [each for each in chosen if each.id in notes]
    return chosen, notes


def _where(versions: Sequence[Version], text: str) -> list[Version]:
    condition = expressions.parse(text)
    facts = [_Facts(each) for each in versions]
    for name in condition.names:
        if versions and all(each.value(name) is expressions.Condition.unknown() for each in facts):
            counted = Counter(known for each in facts for known in each.names())
            names = [*counted, *_FIELDS]
            more = f" and {len(names) - _KNOWN_SHOWN} more" if len(names) > _KNOWN_SHOWN else ""
            raise Misconfigured(
                f"{text!r:.80} asks for {name!r:.60}, which no version has (texts stand in quotes)\n"
                f"there are: {', '.join(names[:_KNOWN_SHOWN])}{more}"
            )
    return [each for each, known in zip(versions, facts, strict=True) if condition.holds(known.value)]


class _Facts:
    """Every value of a version that a condition may ask for; its record is read only when that is needed."""

    def __init__(self, version: Version) -> None:
        self._version = version
        self._laid: dict[str, Any] | None = None

    def _recorded(self) -> dict[str, Any]:
        if self._laid is None:
            try:
                self._laid = hyperparameters(self._version.details.record.get("hyperparameters"))
            except (
                MVCError,
                OSError,
            ):  # `mvc verify` tells it; a version that cannot be read matches nothing
                self._laid = {}
        return self._laid

    def names(self) -> list[str]:
        return [*self._version.metrics, *self._recorded()]

    def value(self, name: str) -> Any:
        """Return a field, a metric, or a hyperparameter: by its dotted path, or an end that only one has."""
        if name in _FIELDS:
            found = _FIELDS[name](self._version)
            return expressions.Condition.unknown() if found is None else found
        if name in self._version.metrics:
            return self._version.metrics[name]
        laid = self._recorded()
        if name not in laid:
            ends = [each for each in laid if each.endswith(f".{name}")]
            if len(ends) != 1:
                return expressions.Condition.unknown()
            name = ends[0]
        value = laid[name]
        return value if isinstance(value, (str, int, float)) or value is None else told(value)


def _saw(store: StoreReader, versions: Iterable[Version], given: str) -> dict[str, str]:
    """Return id to what its data has of a file: as ``train: a/0.png``."""
    from mvc_callbacks import listings

    content = _digest_of(Path(given).expanduser())
    wanted = given.replace("\\", "/").removeprefix("./").encode("utf-8", "surrogateescape")
    seen: dict[str, str | None] = {}

    def look(digest: str) -> str | None:
        try:
            entries = listings.read([store.listing(digest)])
            by_name = None
            for entry in entries:
                if entry.sha256 == content:
                    return listings.show_name(entry.path)
                if by_name is None and _is_named(entry.path, wanted):
                    by_name = listings.show_name(entry.path) + (" (other bytes)" if content else "")
            return by_name
        except MVCError:  # missing or damaged: `mvc verify` tells it
            return None

    found: dict[str, str] = {}
    for version in versions:
        told_of = []
        for name, data in version.data.items():
            if data.listing is None:
                continue
            if data.listing not in seen:
                seen[data.listing] = look(data.listing)
            if seen[data.listing] is not None:
                told_of.append(f"{name}: {seen[data.listing]}")
        if told_of:
            found[version.id] = ", ".join(told_of)
    if not found and not seen:
        raise Misconfigured(
            "no version here has a list of the files of its data, so none can be searched for"
        )
    return found


def _is_named(path: bytes, wanted: bytes) -> bool:
    return path == wanted or path.endswith(b"/" + wanted) or wanted.endswith(b"/" + path)


def _digest_of(path: Path) -> str | None:
    """Return the SHA-256 of a file that is there; None where there is none that could be read."""
    try:
        if not path.is_file():
            return None
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    except (OSError, ValueError):
        return None
    return digest.hexdigest()
