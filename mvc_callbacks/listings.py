"""Listings: the files behind a fingerprint, one JSON line each by name, and how two of them differ."""

from __future__ import annotations

import hashlib
import heapq
import os
import shutil
import tempfile
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from json.encoder import encode_basestring_ascii
from pathlib import Path
from typing import IO, NamedTuple

from mvc_callbacks import canonical
from mvc_callbacks.errors import CorruptRecord

__all__ = ["Entry", "Listing", "ListingDifference", "Sorter", "compare", "read", "show_name"]

_IN_MEMORY = 4 * 1024 * 1024
_BLOCK = 1024 * 1024
_LONGEST_LINE = 64 * 1024  # names are at most 4 KiB where files have names; escapes make them longer
_BYTES = "$bytes"


class Entry(NamedTuple):
    """One file.

    Attributes:
        path: Name relative to the root, as bytes with ``/`` between folders; it need not be UTF-8.
        size: Bytes.
        sha256: SHA-256 of the content, 64 hex digits.
    """

    path: bytes
    size: int
    sha256: str

    def line(self) -> bytes:
        """Tell the entry as one line of canonical JSON, with its end of line."""
        try:
            name = encode_basestring_ascii(self.path.decode("utf-8"))
        except UnicodeDecodeError:
            name = f'{{"{_BYTES}":"{b64encode(self.path).decode("ascii")}"}}'
        return f'{{"path":{name},"sha256":"{self.sha256}","size":{self.size}}}\n'.encode("ascii")

    @classmethod
    def from_line(cls, line: bytes) -> Entry:
        """Read an entry from a line that anybody may have written.

        Raises:
            CorruptRecord: If it is none.
        """
        value = canonical.decode(line, what="a listing of files", limit=_LONGEST_LINE)
        try:
            path, size, sha256 = value["path"], value["size"], value["sha256"]
            name = b64decode(path[_BYTES], validate=True) if isinstance(path, dict) else path.encode("utf-8")
            if type(size) is int and size >= 0 and len(bytes.fromhex(sha256)) == 32:
                return cls(name, size, sha256)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise CorruptRecord(f"a listing of files holds a line that is no file: {line[:100]!r}") from error
        raise CorruptRecord(f"a listing of files holds a line that is no file: {line[:100]!r}")


def show_name(path: bytes | str) -> str:
    r"""Return a file's name as one printable line: other bytes and control characters as ``\xff``."""
    text = (path if isinstance(path, bytes) else os.fsencode(path)).decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


class Sorter:
    """Sorts more entries than should be held in memory.

    Args:
        run: How many are held; each further so many are sorted and put into a temporary file.
    """

    def __init__(self, run: int = 50_000) -> None:
        self._run = run
        self._held: list[Entry] = []
        self._spilled: list[IO[bytes]] = []

    def add(self, entry: Entry) -> None:
        """Take an entry."""
        self._held.append(entry)
        if len(self._held) >= self._run:
            self._spill()

    def _spill(self) -> None:
        file = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        self._held.sort()
        for path, size, sha256 in self._held:
            head = len(path).to_bytes(4, "little") + path + size.to_bytes(8, "little")
            file.write(head + bytes.fromhex(sha256))
        self._spilled.append(file)
        self._held = []

    def __iter__(self) -> Iterator[Entry]:
        """Yield the entries by name; one that is given twice comes once."""
        self._held.sort()
        last: Entry | None = None
        runs = [_read_run(file) for file in self._spilled]
        for entry in heapq.merge(self._held, *runs) if runs else self._held:
            if entry != last:
                yield entry
            last = entry

    def close(self) -> None:
        """Give the memory and the temporary files back."""
        self._held = []
        for file in self._spilled:
            file.close()
        self._spilled = []


def _read_run(file: IO[bytes]) -> Iterator[Entry]:
    file.seek(0)
    while head := file.read(4):
        path = file.read(int.from_bytes(head, "little"))
        size = int.from_bytes(file.read(8), "little")
        yield Entry(path, size, file.read(32).hex())


class Listing:
    """The lines of one fingerprint, in memory while they are few and in a temporary file when they are many.

    Iterating gives the bytes in blocks, from the beginning each time.

    Attributes:
        sha256: Of the bytes: the name of the object that the listing becomes.
        files: Number of lines.
        size: Number of bytes.
    """

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115 - closed in close()
        self._hash = hashlib.sha256()
        self.files = 0
        self.size = 0

    @property
    def sha256(self) -> str:  # noqa: D102 - described by the class
        return self._hash.hexdigest()

    def add(self, entry: Entry) -> None:
        """Append an entry; they come sorted."""
        line = entry.line()
        self._file.write(line)
        self._hash.update(line)
        self.files += 1
        self.size += len(line)

    def fill(self, data: bytes, files: int) -> None:
        """Take all lines at once, as they were before."""
        self._file.write(data)
        self._hash.update(data)
        self.files = files
        self.size = len(data)

    def __iter__(self) -> Iterator[bytes]:
        """Yield the bytes in blocks."""
        at = 0
        while True:
            self._file.seek(at)  # each time: two may iterate at once
            block = self._file.read(_BLOCK)
            if not block:
                return
            at += len(block)
            yield block

    def save(self, path: Path) -> None:
        """Write the listing to a file."""
        self._file.seek(0)
        with path.open("wb") as target:
            shutil.copyfileobj(self._file, target)

    def close(self) -> None:
        """Give the memory or the temporary file back; so does letting go of the listing."""
        self._file.close()

    def __del__(self) -> None:
        self._file.close()


def read(chunks: Iterable[bytes]) -> Iterator[Entry]:
    """Read a listing.

    Args:
        chunks: Its bytes, cut anywhere: a `Listing`, an open file, a list of one.

    Yields:
        Its entries, in the order of the lines.

    Raises:
        CorruptRecord: If it is no listing, or is not sorted.
    """
    last: Entry | None = None
    for line in _lines(chunks):
        entry = Entry.from_line(line)
        if last is not None and entry.path < last.path:
            raise CorruptRecord(f"a listing of files is not sorted: {show_name(entry.path)!r}")
        yield entry
        last = entry


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from whole
        if len(rest) > _LONGEST_LINE:
            raise CorruptRecord(f"a listing of files has a line of more than {_LONGEST_LINE} bytes")
    if rest:
        raise CorruptRecord("a listing of files ends in the middle of a line")


@dataclass(frozen=True, slots=True)
class ListingDifference:
    """How the files of one listing differ from those of another, file by file.

    Attributes:
        added: How many names only the second has.
        removed: How many names only the first has.
        changed: How many names both have with other content.
        same: How many files are the same in both.
        added_names: The first of them, printable.
        removed_names: The first of them, printable.
        changed_names: The first of them, printable.
    """

    added: int
    removed: int
    changed: int
    same: int
    added_names: tuple[str, ...] = ()
    removed_names: tuple[str, ...] = ()
    changed_names: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Tell whether anything differs."""
        return bool(self.added or self.removed or self.changed)

    def __str__(self) -> str:
        """Tell it in a sentence: ``2 added (c.png, d.png), 1 changed (a.png)``."""
        told = [
            f"{count} {word} ({', '.join(names[:5])}{', …' if count > min(len(names), 5) else ''})"
            for count, word, names in (
                (self.added, "added", self.added_names),
                (self.removed, "removed", self.removed_names),
                (self.changed, "changed", self.changed_names),
            )
            if count
        ]
        return ", ".join(told) or "the same files"


def compare(first: Iterable[bytes], second: Iterable[bytes], *, names: int = 100) -> ListingDifference:
    """Compare two listings file by file, in one pass and without holding either.

    Args:
        first: Bytes of the older one.
        second: Bytes of the newer one.
        names: How many names of each kind to return; all are counted.

    Raises:
        CorruptRecord: If one of them is no listing.
    """
    found: dict[str, list[str]] = {"added": [], "removed": [], "changed": []}
    counts = dict.fromkeys((*found, "same"), 0)
    for word, path in _steps(read(first), read(second)):
        counts[word] += 1
        if word in found and len(found[word]) < names:
            found[word].append(show_name(path))
    return ListingDifference(
        **counts,
        added_names=tuple(found["added"]),
        removed_names=tuple(found["removed"]),
        changed_names=tuple(found["changed"]),
    )


def _steps(first: Iterator[Entry], second: Iterator[Entry]) -> Iterator[tuple[str, bytes]]:
    old, new = next(first, None), next(second, None)
    while old is not None or new is not None:
        if new is None or (old is not None and old.path < new.path):
            assert old is not None
            yield "removed", old.path
            old = next(first, None)
        elif old is None or new.path < old.path:
            yield "added", new.path
            new = next(second, None)
        else:
            yield "same" if old[1:] == new[1:] else "changed", old.path
            old, new = next(first, None), next(second, None)
