"""Lists in memory whose items are paths, or hold paths beside labels; and lists of plain values."""

from __future__ import annotations

import hashlib
import heapq
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import IO, Any

from mvc_callbacks.sources_files import Names, Tell, absolute, is_url, text_of, walk
from mvc_callbacks.sources_values import encode, u64

__all__ = ["Records", "as_records", "first_of", "items_of", "looks_like_a_path"]

_LOOKED_AT = 16
_IN_MEMORY = 100_000
_FILE_LIKE = re.compile(r".*\.[A-Za-z][A-Za-z0-9]{0,9}(?:\.(?:gz|bz2|xz|zst))?", re.DOTALL)

Slot = int | str | None


@dataclass(frozen=True, slots=True)
class Records:
    """A list whose items are, or hold, paths.

    Attributes:
        items: Gives the list.
        slots: Where in an item its paths are: positions of a tuple, keys of a dict, or None for the item
            itself.
        base: The folder that relative paths are relative to.
        folders: Whether some of the paths are folders, with all files in them.
    """

    items: Callable[[], Sequence[Any]]
    slots: tuple[Slot, ...]
    base: str
    folders: bool = False

    def paths(self, tell: Tell) -> Iterator[str]:
        """Yield the absolute path of every file, as often as it occurs."""
        for item in self.items():
            for slot in self.slots:
                path = self._path(item, slot)
                if path is None:
                    continue
                if is_url(path):
                    tell(path, "not on this machine; not hashed")
                elif self.folders and os.path.isdir(path):  # noqa: PTH112
                    yield from walk(path, tell)
                else:
                    yield path

    def _path(self, item: Any, slot: Slot) -> str | None:
        try:
            value = item if slot is None else item[slot]
            text = text_of(value)
        except (TypeError, LookupError):
            return None  # an item without a file
        return text if is_url(text) else absolute(text, self.base) if text else None

    def digest(self, names: Names, *, ordered: bool, check: Callable[[], None]) -> bytes:
        """Return the digest of the items, with their paths told by name.

        Args:
            names: How files are named.
            ordered: Whether another order is other data; otherwise items count as often as they occur.
            check: Raises when nobody waits any more.

        Raises:
            Untellable: If an item holds something that has no digest.
        """
        digests = self._item_digests(names, check)
        digest = hashlib.sha256()
        count = 0
        for each in digests if ordered else _sorted(digests):
            digest.update(each)
            count += 1
        return hashlib.sha256(u64(count) + digest.digest()).digest()

    def _item_digests(self, names: Names, check: Callable[[], None]) -> Iterator[bytes]:
        for number, item in enumerate(self.items()):
            if number % 4096 == 0:
                check()
            yield hashlib.sha256(encode(self._renamed(item, names))).digest()

    def _renamed(self, item: Any, names: Names) -> Any:
        if not self.slots:
            return item
        if self.slots == (None,):
            return self._name(item, None, names)
        if not isinstance(item, (dict, list, tuple)):
            return item
        pairs = item.items() if isinstance(item, dict) else enumerate(item)
        told = {key: self._name(item, key, names) if key in self.slots else value for key, value in pairs}
        return told if isinstance(item, dict) else list(told.values())

    def _name(self, item: Any, slot: Slot, names: Names) -> Any:
        path = self._path(item, slot)
        if path is None:
            return item if slot is None else item[slot]
        return path if is_url(path) else names(path)


def _sorted(digests: Iterator[bytes]) -> Iterator[bytes]:
    """Sort digests of 32 bytes, in temporary files when there are many."""
    runs: list[IO[bytes]] = []
    try:
        while run := sorted(islice(digests, _IN_MEMORY)):
            if len(run) < _IN_MEMORY and not runs:
                yield from run
                return
            file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed below
            runs.append(file)
            file.write(b"".join(run))
        yield from heapq.merge(*(_read(file) for file in runs))
    finally:
        for file in runs:
            file.close()


def _read(file: IO[bytes]) -> Iterator[bytes]:
    file.seek(0)
    while block := file.read(32 * 1024):
        for start in range(0, len(block), 32):
            yield block[start : start + 32]


def items_of(value: Any) -> Callable[[], Sequence[Any]] | None:
    """Return what gives the items of a list, tuple, set, column or array of text; None for anything else.

    Nothing of the user's is called: the items of a class derived from list come from the list that it is.
    """
    kind = type(value).__module__.partition(".")[0], type(value).__name__
    if isinstance(value, list):
        return (lambda: value) if type(value) is list else lambda: list.__getitem__(value, slice(None))
    if isinstance(value, tuple):
        return (lambda: value) if type(value) is tuple else lambda: tuple.__getitem__(value, slice(None))
    if isinstance(value, (set, frozenset)):
        return lambda: sorted(value, key=encode)
    if kind[0] == "pandas" and kind[1] in ("Series", "Index"):
        return lambda: value.tolist()
    if kind[0] == "numpy" and kind[1] == "ndarray" and value.ndim == 1 and value.dtype.kind in "UO":
        return lambda: value.tolist()
    return None


def first_of(value: Any, count: int = _LOOKED_AT) -> list[Any]:
    """Return the first items of what `items_of` knows, without making a list of all."""
    if type(value).__module__.partition(".")[0] in ("pandas", "numpy"):
        return list(value[:count].tolist())
    if isinstance(value, (set, frozenset)):
        return list(islice(value, count))
    items = items_of(value)
    return [] if items is None else list(items()[:count])


def as_records(value: Any, bases: Iterable[str], *, named_as_paths: bool) -> Records:
    """Look at the first items of a list, and say where in them paths are.

    Args:
        value: The list, tuple, column or array of text: something that `items_of` knows.
        bases: Folders that relative paths may be relative to, the likeliest first.
        named_as_paths: Whether the list's own name says that these are files, so that even missing ones are.

    Returns:
        The records, with no slot where no item is or holds the path of something that exists.
    """
    items = items_of(value)
    assert items is not None
    first = first_of(value)
    slots: dict[Slot, tuple[str, bool]] = {}
    bases = list(bases)
    for item in first:
        for slot, text in _candidates(item):
            found = _find(text, bases)
            if found is not None:
                slots[slot] = (found[0], found[1] or slots.get(slot, ("", False))[1])
    if not slots and named_as_paths and first and all(_path_text(item, strict=True) for item in first):
        slots = {None: (bases[0], False)}
    if not slots:
        return Records(items, (), bases[0])
    base = next(iter(slots.values()))[0]
    return Records(items, tuple(slots), base, any(folder for _, folder in slots.values()))


def _candidates(item: Any) -> Iterator[tuple[Slot, str]]:
    if isinstance(item, dict):
        pairs: Iterable[tuple[Slot, Any]] = [each for each in item.items() if isinstance(each[0], str)]
    elif isinstance(item, (list, tuple)):
        pairs = list(enumerate(item[:8]))
    else:
        pairs = [(None, item)]
    for slot, value in pairs:
        text = _path_text(value)
        if text is not None:
            yield slot, text


def _path_text(value: Any, *, strict: bool = False) -> str | None:
    if not isinstance(value, (str, os.PathLike)):
        return None
    try:
        text = text_of(value)
    except TypeError:
        return None
    if strict and not isinstance(value, os.PathLike) and not looks_like_a_path(text):
        return None
    return text if 0 < len(text) < 4096 and "\0" not in text else None


def looks_like_a_path(text: str) -> bool:
    """Tell whether text may be a path by its looks: a separator or a file's extension, and no line ends."""
    return "\n" not in text and (os.sep in text or _FILE_LIKE.fullmatch(text) is not None)


def _find(text: str, bases: list[str]) -> tuple[str, bool] | None:
    """Return the base under which there is something of this name, and whether it is a folder.

    A word that happens to be the name of a folder, such as a label, is no path: a folder needs a separator or
    an absolute path.
    """
    if is_url(text):
        return (bases[0], False) if looks_like_a_path(text) else None
    for base in bases:
        path = absolute(text, base)
        if os.path.isfile(path) or (os.path.lexists(path) and not os.path.isdir(path)):  # noqa: PTH112, PTH113
            return base, False
        if os.sep in text and os.path.isdir(path):  # noqa: PTH112
            return base, True
    return None
