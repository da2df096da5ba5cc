"""The report: what is shown of a whole store on one page, as plain values; nothing is read."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mvc_callbacks.diff import Tensors, comparable
from mvc_callbacks.render import clean
from mvc_callbacks.render_diff import short_told
from mvc_callbacks.versions import AliasMove, Version

if TYPE_CHECKING:
    from mvc_callbacks.storage import RunStorage

__all__ = ["Comparisons", "Report"]

_LONGEST = 400


@dataclass(frozen=True, slots=True)
class Report:
    """What is shown of a store.

    Attributes:
        path: The store.
        created: When the report was made, UTC ISO-8601.
        versions: Oldest first.
        elsewhere: Id to version of parents that are not among these.
        aliases: Id to the aliases that point to it.
        best: Id to the metrics of which it is the best in the store.
        moves: Of the aliases, newest first.
        storage: By run.
        disk_bytes: Bytes of all objects of the store.
        left_out: Number of versions of the store that are not among these.
        comparisons: What only records, manifests and listings tell of the versions.
    """

    path: str
    created: str
    versions: Sequence[Version]
    elsewhere: Mapping[str, Version] = field(default_factory=dict)
    aliases: Mapping[str, Sequence[str]] = field(default_factory=dict)
    best: Mapping[str, frozenset[str]] = field(default_factory=dict)
    moves: Sequence[AliasMove] = ()
    storage: Sequence[RunStorage] = ()
    disk_bytes: int = 0
    left_out: int = 0
    comparisons: Comparisons = field(default_factory=lambda: Comparisons())


class Comparisons:
    """What any two versions are compared by, each value told once and then named by its number.

    A thousand versions have few hyperparameters, packages and files between them that differ. Two values are
    the same exactly if their numbers are; the same is so for tensors, by dtype, shape and digest.

    Attributes:
        values: Texts of values.
        facts: Mappings of names to numbers of values.
        forms: For each kind of model its tensors: names, dtypes and shapes.
        weights: For each state the number of its form, and the numbers of its tensors.
        files: For each source of data of a version the number of its files, and those of them that not every
            other version has under the same name, as path to number.
        versions: By id, the numbers of what a version has.
    """

    def __init__(self) -> None:
        self.values: list[str] = []
        self.facts: list[dict[str, int]] = []
        self.forms: list[list[tuple[str, str]]] = []
        self.weights: list[tuple[int, list[int]]] = []
        self.files: list[dict[str, int] | None] = []
        self.versions: dict[str, dict[str, Any]] = {}
        self._known: dict[str, dict[Hashable, int]] = {}

    def add_facts(self, facts: Mapping[str, Any]) -> int:
        """Take a flat mapping; return its number."""
        told = {clean(name, _LONGEST): self._value(value) for name, value in facts.items()}
        return self._number("facts", tuple(told.items()), self.facts, told)

    def _value(self, value: Any) -> int:
        text = clean(short_told(value), _LONGEST)
        return self._number("values", comparable(value), self.values, text)

    def add_weights(self, digest: str, tensors: Tensors) -> int:
        """Take the tensors of a weights digest; return their number."""
        known = self._known.setdefault("weights", {})
        if digest not in known:
            form = [
                (clean(name, _LONGEST), f"{dtype} {list(shape)}")
                for name, (dtype, shape, _) in tensors.items()
            ]
            place = self._number("forms", tuple(form), self.forms, form)
            mine = [
                self._number("tensors", (dtype, tuple(shape), each))
                for dtype, shape, each in tensors.values()
            ]
            known[digest] = len(self.weights)
            self.weights.append((place, mine))
        return known[digest]

    def has_weights(self, digest: str) -> bool:
        """Tell whether a state was taken already."""
        return digest in self._known.get("weights", {})

    def add_files(self, apart: Iterable[tuple[str, Hashable]] | None) -> int:
        """Take names and contents of those files of a listing that not all have; return their number.

        Args:
            apart: The files; None where they are too many, or not known.
        """
        told = None if apart is None else {name: self._number("files", content) for name, content in apart}
        self.files.append(told)
        return len(self.files) - 1

    def _number(self, kind: str, key: Hashable, told: list[Any] | None = None, what: Any = None) -> int:
        known = self._known.setdefault(kind, {})
        if key not in known:
            known[key] = len(known)
            if told is not None:
                told.append(what)
        return known[key]

    def to_dict(self) -> dict[str, Any]:
        """Tell everything but what is told by version as JSON values."""
        return {
            "values": self.values,
            "facts": self.facts,
            "forms": self.forms,
            "weights": self.weights,
            "files": self.files,
        }
