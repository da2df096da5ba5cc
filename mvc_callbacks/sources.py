"""Sources: what lies behind loaders, datasets, paths and arrays, found by looking at them.

Nothing of the user's is called but the two methods of the protocol (``mvc_data_files``, ``mvc_fingerprint``):
no ``__getitem__``, ``__iter__``, ``__len__``, ``__getattr__`` or property. Libraries are known by the modules
that are already imported.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from mvc_callbacks import sources_libraries, sources_objects
from mvc_callbacks.sources_attributes import attributes, is_composite, name_of
from mvc_callbacks.sources_files import FileGroup, Names, absolute, expand, is_url, text_of
from mvc_callbacks.sources_records import Records, first_of, items_of
from mvc_callbacks.sources_values import array_bytes, array_digest, encode, indices_digest, is_array

__all__ = ["Finder", "Make", "Part"]

_DEEPEST = 20
_SEPARATE = 64

Make = Callable[[Names, Callable[[], None]], bytes]


@dataclass(slots=True)
class Part:
    """One thing beside the files that makes the data what it is.

    Attributes:
        place: Where it is in the source, such as ``0/tensors.1``.
        kind: ``array``, ``indices``, ``records``, ``values``, …
        make: Gives the digest, when called with the names of files and what raises when nobody waits any
            more.
        size: Bytes of content that it hashes, as far as known.
        content: Whether it is data by itself, rather than a choice or an order of data.
        early: The digest, where it was made at once.
    """

    place: str
    kind: str
    make: Make
    size: int = 0
    content: bool = False
    early: bytes | None = None


@dataclass(slots=True)
class Finder:
    """Collects what is found behind one source.

    Attributes:
        base: The folder that relative paths are relative to.
        groups: Files.
        parts: What else there is, in the order of the source.
        problems: What could not be found or told.
        how: In words, how each thing was found.
        opaque: How many sources gave nothing away.
        urls: How many places are not on this machine.
    """

    base: str
    groups: list[FileGroup] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    how: list[str] = field(default_factory=list)
    opaque: int = 0
    urls: int = 0
    _inside: list[int] = field(default_factory=list)

    def say(self, how: str) -> None:
        """Note how something was found, once."""
        if how not in self.how:
            self.how.append(how)

    def problem(self, path: str, what: str) -> None:
        """Note what is wrong with a path."""
        self.problems.append(f"{path}: {what}")

    def unknown(self, what: str) -> None:
        """Note a source that gave nothing away."""
        self.opaque += 1
        self.problems.append(what)

    def count(self) -> tuple[int, int, int, int]:
        """Return numbers that change whenever something was found."""
        return len(self.groups), len(self.parts), self.urls, self.opaque

    def branch(self) -> Finder:
        """Return an empty finder that looks at the same place; `merge` takes what it finds."""
        return Finder(self.base, _inside=list(self._inside))

    def merge(self, other: Finder) -> None:
        """Take what another has found."""
        self.groups += other.groups
        self.parts += other.parts
        self.problems += other.problems
        self.opaque += other.opaque
        self.urls += other.urls
        for each in other.how:
            self.say(each)

    def add_files(self, paths: Iterable[str], root: str | None = None) -> None:
        """Take files by path; places that are not on this machine are noted as not hashed."""
        here: list[str] = []
        elsewhere: list[str] = []
        for path in paths:
            (elsewhere if is_url(path) else here).append(path)
        if elsewhere:
            self.urls += len(elsewhere)
            self.problems += [f"{url}: not on this machine; not hashed" for url in elsewhere]
            self.add_text((), "urls", elsewhere)
        if here:
            found = [absolute(path, self.base) for path in here]
            self.groups.append(FileGroup(lambda _: found, root))

    def add_part(
        self, place: tuple[str, ...], kind: str, make: Make, *, size: int = 0, content: bool = False
    ) -> None:
        """Take a part."""
        self.parts.append(Part("/".join(place), kind, make, size, content))

    def add_text(self, place: tuple[str, ...], kind: str, value: Any) -> None:
        """Take a small plain value that chooses among the data, such as a slice."""
        told = hashlib.sha256(encode(value)).digest()
        self.add_part(place, kind, lambda names, check: told)

    def add_indices(
        self, place: tuple[str, ...], indices: Any, *, kind: str = "indices", ordered: bool = True
    ) -> None:
        """Take the indices of a selection."""
        self.add_part(place, kind, lambda names, check: indices_digest(indices, ordered=ordered))

    def add_array(self, place: tuple[str, ...], value: Any) -> None:
        """Take an array by content."""
        size = array_bytes(value)
        self.add_part(place, "array", lambda names, check: array_digest(value), size=size, content=True)

    def add_arrays(self, place: tuple[str, ...], name: str, items: Callable[[], Any]) -> None:
        """Take a list of arrays: each by itself when they are few."""
        arrays = items()
        if len(arrays) <= _SEPARATE:
            for number, each in enumerate(arrays):
                at = (*place, f"{name}.{number}")
                if is_array(each) and not sources_libraries.knows(each):
                    self.add_array(at, each)
                else:
                    self.find(each, at)
            return
        size = sum(array_bytes(each) for each in arrays[:100_000])
        records = Records(items, (), self.base)
        self.add_part(
            (*place, name),
            "values",
            lambda names, check: records.digest(names, ordered=True, check=check),
            size=size,
            content=True,
        )

    def declare(self, value: Any, place: tuple[str, ...] = ()) -> None:
        """Take what a user names: paths, globs, lists of them, or anything that `find` knows."""
        if isinstance(value, (str, bytes, os.PathLike)):
            self._paths([value])
        elif isinstance(value, (set, frozenset)) and _any_path(value):
            self._paths(sorted(value, key=os.fspath))
        elif isinstance(value, (list, tuple)) and _any_path(value):
            self._paths([each for each in value if isinstance(each, (str, bytes, os.PathLike))])
            for number, each in enumerate(value):
                if not isinstance(each, (str, bytes, os.PathLike)):
                    self.find(each, (*place, str(number)))
        else:
            self.find(value, place)

    def _paths(self, paths: Iterable[Any]) -> None:
        self.say("paths as given")
        single: list[str] = []
        for path in paths:
            text = text_of(path)
            full = absolute(text, self.base)
            try:
                if is_url(text) or (os.path.lexists(full) and not os.path.isdir(full)):  # noqa: PTH112
                    single.append(text)
                else:
                    self.groups.append(expand(text, self.base, self.problem))
            except (OSError, ValueError) as error:
                self.problem(text, str(error))
        self.add_files(single)  # single files are named from the folder that they have in common

    def find(self, value: Any, place: tuple[str, ...] = (), *, selected: bool = False) -> None:
        """Look behind a loader, a dataset, an array or a container of them.

        Args:
            value: Anything.
            place: Where it is in the source.
            selected: Whether a selection by index is made above it, so that the order of its lists counts.
        """
        if value is None or len(self._inside) > _DEEPEST or id(value) in self._inside:
            return  # a cycle, or a dataset that holds its trainer
        self._inside.append(id(value))
        try:
            self._find(value, place, selected)
        except Exception as error:  # an object in a state that nobody thought of must not stop training
            self.unknown(f"{name_of(value)}: {type(error).__name__}: {error}"[:300])
        finally:
            self._inside.pop()

    def _find(self, value: Any, place: tuple[str, ...], selected: bool) -> None:
        if self._protocol(value, place):
            return
        if isinstance(value, (str, bytes, os.PathLike)):
            self._paths([value])
        elif sources_libraries.find(self, value, place, selected):
            return
        elif is_array(value) and items_of(value) is None:
            self.say(f"{type(value).__name__} in memory, by content")
            self.add_array(place, value)
        elif sources_objects.is_table(value):
            sources_objects.add_columns(self, name_of(value), value, place)
        elif isinstance(value, dict):
            for key, each in value.items():
                self.find(each, (*place, str(key)), selected=selected)
        elif isinstance(value, range):
            self.say("range, by content")
            self.add_indices(place, value, kind="values")
            self.parts[-1].content = True
        elif items := items_of(value):
            self._sequence(value, items, place, selected)
        elif hasattr(type(value), "__next__") and not attributes(value):
            self.unknown(f"{name_of(value)}: an iterator tells nothing of its data without being used up")
        else:
            sources_objects.find(self, value, place, selected)

    def _protocol(self, value: Any, place: tuple[str, ...]) -> bool:
        kind = type(value)
        listed, told = getattr(kind, "mvc_data_files", None), getattr(kind, "mvc_fingerprint", None)
        if callable(listed):
            self.declare([text_of(each) for each in listed(value)], place)
            self.how[-1:] = [f"mvc_data_files() of {name_of(value)}"]
        if callable(told):
            self.say(f"mvc_fingerprint() of {name_of(value)}")
            self.add_text(place, "told", str(told(value)))
            self.parts[-1].content = True
        return callable(listed) or callable(told)

    def _sequence(self, value: Any, items: Callable[[], Any], place: tuple[str, ...], selected: bool) -> None:
        first = next(iter(first_of(value, 1)), None)
        if is_array(first):
            self.say(f"{type(value).__name__} of {type(first).__name__}s in memory, by content")
            self.add_arrays(place, "items", items)
        elif is_composite(first) or (isinstance(first, dict) and any(map(is_composite, first.values()))):
            for number, each in enumerate(items()):
                self.find(each, (*place, str(number)), selected=selected)
        elif first is not None:
            sources_objects.add_list(self, type(value).__name__, value, place, ordered=True)


def _any_path(values: Iterable[Any]) -> bool:
    return any(isinstance(each, (str, bytes, os.PathLike)) for each in values)
