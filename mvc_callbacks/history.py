"""The history: TinyDB databases of slim rows, replaced atomically, believed only after a check."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mvc_callbacks import files
from mvc_callbacks.canonical import decode, encode
from mvc_callbacks.errors import CorruptHistory, CorruptRecord, MissingObject, UnsafeFile
from mvc_callbacks.refs import check_name
from mvc_callbacks.row_checks import Row, check_row

__all__ = ["AtomicStorage", "History", "Row"]

ROLL_OVER = 500
LIMIT = 512 * 1024 * 1024
VERSIONS = "versions"
FINGERPRINTS = "fingerprints"
Tables = dict[str, dict[str, Any]]
Told = dict[tuple[str, str], tuple[Row, bytes]]


class _Held(NamedTuple):
    """One database as it was last read or written, so that a run's next version costs one row.

    It stands for the file only while the file has the very same bytes.

    Attributes:
        path: The database.
        data: Its bytes.
        tables: What they say.
        told: Table and document id to the document and its bytes.
        checked: Whether each of its rows was looked at.
    """

    path: Path
    data: bytes
    tables: Tables
    told: Told
    checked: bool


class _Memory:
    """What is held; replaced as a whole, as several threads may ask."""

    def __init__(self) -> None:
        self.held: _Held | None = None


def _encode(tables: Tables, known: Told) -> tuple[bytes, Told]:
    """Tell tables as canonical JSON; documents that were told before are not told again."""
    told: Told = {}
    parts = []
    for name in sorted(tables):
        documents = []
        for key in sorted(tables[name]):
            document, before = tables[name][key], known.get((name, key))
            here = before if before is not None and before[0] is document else (document, encode(document))
            told[name, key] = here
            documents.append(b'"%s":%s' % (key.encode("ascii"), here[1]))
        parts.append(encode(name) + b":{" + b",".join(documents) + b"}")
    return b"{" + b",".join(parts) + b"}", told


class AtomicStorage:
    """A TinyDB storage that replaces its file atomically, durably, and only with what can be read again.

    Args:
        path: The database.
        staging: Where it is written before it takes its place.
        memory: What is remembered of the database that was used last; None to remember nothing.
    """

    def __init__(self, path: Path, staging: Path, memory: _Memory | None = None) -> None:
        self.path = path
        self._staging = staging
        self._memory = _Memory() if memory is None else memory

    def read(self) -> dict[str, dict[str, Any]] | None:
        """Return the tables, or None where there is no file yet.

        Raises:
            CorruptHistory: If the file is empty, truncated, too large, no regular file, or not what
                mvc_callbacks writes.
        """
        data = self._bytes()
        if data is None:
            return None
        held = self._memory.held
        if held is not None and held.path == self.path and held.data == data:
            return held.tables
        tables = parse(data, self.path)
        self._memory.held = _Held(self.path, data, tables, {}, False)
        return tables

    def holds(self, text: bytes) -> bool:
        """Tell whether a text stands anywhere in the file."""
        return text in (self._bytes() or b"")

    def _bytes(self) -> bytes | None:
        try:
            return files.read_file(self.path, limit=LIMIT)
        except MissingObject:
            return None
        except UnsafeFile as error:
            raise CorruptHistory(f"{error}; {_HINT}") from error

    def write(self, data: dict[str, dict[str, Any]]) -> None:
        """Replace the file."""
        held = self._memory.held
        told, documents = _encode(data, held.told if held is not None and held.path == self.path else {})
        files.make_folder(self.path.parent)
        files.replace_file(self.path, told, self._staging)
        self._memory.held = _Held(self.path, told, data, documents, True)

    def close(self) -> None:
        """Do nothing: no file is held open."""


_HINT = "run `mvc rebuild` to make it again from the records"


def parse(data: bytes, path: Path) -> dict[str, dict[str, Any]]:
    """Read the tables of a database file that may be damaged."""
    try:
        tables = decode(data, what=str(path), limit=LIMIT)
    except CorruptRecord as error:
        raise CorruptHistory(f"{error}; {_HINT}") from error
    if not isinstance(tables, dict):
        # An empty file or `null` would be an empty database for TinyDB, and numbers would begin at 1 again.
        raise CorruptHistory(f"{path} holds no database; {_HINT}")
    for table in tables.values():
        if not isinstance(table, dict) or not all(
            _is_number(key) and isinstance(row, dict) for key, row in table.items()
        ):
            raise CorruptHistory(f"{path} has tables or document ids that TinyDB does not write; {_HINT}")
    return tables


def _is_number(key: str) -> bool:
    # "01" would be the same document as "1", which would then be lost.
    return key.isascii() and key.isdigit() and len(key) < 12 and key[0] != "0"


class History:
    """The folder ``history/``: for each run its databases, rolled over at about 500 versions.

    Args:
        root: The folder.
        staging: Where files are written before they take their place.
    """

    def __init__(self, root: Path, staging: Path) -> None:
        self.root = root
        self._staging = staging
        self._memory = _Memory()

    def runs(self) -> list[str]:
        """Return the labels of all runs, those without a version too."""
        return [name for name in files.list_folders(self.root) if not name.startswith(".")]

    def folder_of(self, run: str) -> Path:
        """Return where a run's databases lie."""
        return self.root / check_name(run, "run")

    def reserve(self, run: str) -> bool:
        """Take a label; tell whether it was free. Hold the store's lock."""
        if run.lower() in {each.lower() for each in self.runs()}:
            return False
        files.make_folder(self.root)
        return files.make_new_folder(self.folder_of(run))

    def append(self, run: str, row: Row, *, after: int = 0) -> None:
        """Add a row, durably. Hold the store's lock.

        Args:
            run: The run's label.
            row: The row.
            after: Number of the run's row before it; 0 where there is none.

        Raises:
            CorruptHistory: If that row is no longer there.
        """
        path = self._path(run, row["number"])
        if after and self.row(run, after) is None:
            raise CorruptHistory(f"{self._path(run, after)} has lost version {after}; {_HINT}")
        storage = self._storage(path)
        self._write(storage, self._checked(storage), [row])

    def update(self, run: str, numbers: Iterable[int], change: Callable[[Row], None]) -> None:
        """Change rows, durably; each database is written once. Hold the store's lock.

        Raises:
            CorruptHistory: If a row is not there.
        """
        by_path: dict[Path, set[int]] = {}
        for number in numbers:
            by_path.setdefault(self._path(run, number), set()).add(number)
        for path, wanted in by_path.items():
            storage = self._storage(path)
            tables = self._checked(storage)
            rows = {row["number"]: row for row in _rows_in(tables, path, wanted)}
            if missing := wanted - rows.keys():
                raise CorruptHistory(f"{path} has no version {min(missing)}; {_HINT}")
            for number in wanted:
                change(rows[number])
            self._write(storage, tables, [rows[number] for number in sorted(wanted)])

    def replace(self, run: str, rows: list[Row]) -> None:
        """Write all of a run's rows anew. Hold the store's lock."""
        chunks: dict[Path, list[Row]] = {}
        for row in rows:
            chunks.setdefault(self._path(run, row["number"]), []).append(row)
        for path, part in chunks.items():
            known: dict[str, Any] = {}
            told = {str(row["number"]): _intern(row, known) for row in part}
            AtomicStorage(path, self._staging).write(
                {VERSIONS: told, **({FINGERPRINTS: known} if known else {})}
            )
        for path in self.chunks(run):
            if path not in chunks:
                files.remove(path)

    def _storage(self, path: Path) -> AtomicStorage:
        return AtomicStorage(path, self._staging, self._memory)

    def _checked(self, storage: AtomicStorage) -> Tables:
        """Read a database, and look at all of its rows unless that was done."""
        tables = storage.read() or {}
        held = self._memory.held
        if held is None or held.tables is not tables or not held.checked:
            _rows_in(tables, storage.path)
            if held is not None and held.tables is tables:
                self._memory.held = held._replace(checked=True)
        return tables

    def _write(self, storage: AtomicStorage, tables: Tables, rows: list[Row]) -> None:
        # TinyDB itself would go through all of a table's documents for one that is added.
        known = dict(tables.get(FINGERPRINTS, {}))
        slim = {str(row["number"]): copy.deepcopy(_intern(row, known)) for row in rows}
        versions = {**tables.get(VERSIONS, {}), **slim}
        storage.write({**tables, VERSIONS: versions, **({FINGERPRINTS: known} if known else {})})

    def _path(self, run: str, number: int) -> Path:
        return self.folder_of(run) / f"{(number - 1) // ROLL_OVER + 1:04d}.json"

    def chunks(self, run: str) -> list[Path]:
        """Return the paths of a run's databases, oldest first."""
        folder = self.folder_of(run)
        files.check_folder(folder)
        names = (name for name in files.list_names(folder) if name.endswith(".json"))
        return [folder / name for name in sorted(names, key=lambda name: (len(name), name))]

    def rows_of(self, path: Path, *, borrow: bool = False, newest: int | None = None) -> list[Row]:
        """Return the rows of one database, oldest first.

        Args:
            path: The database.
            borrow: Whether the caller changes nothing in them; what is held in memory is not read again then.
            newest: Only so many, those with the largest numbers; the others are not looked at.

        Raises:
            CorruptHistory: If it cannot be believed.
        """
        storage = self._storage(path) if borrow else AtomicStorage(path, self._staging)
        return _rows_in(storage.read() or {}, path, newest=newest)

    def names(self, path: Path, digest: str) -> bool:
        """Tell whether a digest stands anywhere in a database: its rows need not be parsed to see that.

        Raises:
            CorruptHistory: If it is no file that can be read.
        """
        return AtomicStorage(path, self._staging).holds(digest.encode("ascii"))

    def rows(self, run: str) -> Iterator[Row]:
        """Go through a run's rows, oldest first."""
        for path in self.chunks(run):
            yield from self.rows_of(path)

    def row(self, run: str, number: int) -> Row | None:
        """Return one row, or None."""
        path = self._path(run, number)
        return next(iter(_rows_in(self._checked(self._storage(path)), path, {number})), None)

    def last(self, run: str) -> Row | None:
        """Return a run's newest row, or None."""
        for path in reversed(self.chunks(run)):
            rows = self.rows_of(path)
            if rows:
                return rows[-1]
        return None

    def remove(self, run: str) -> None:
        """Remove a run's databases. Hold the store's lock."""
        files.remove_folder(self.folder_of(run))
        files.sync_folder(self.root)


def _rows_in(
    tables: Tables, path: Path, wanted: Collection[int] | None = None, newest: int | None = None
) -> list[Row]:
    """Return the rows of a database by number: all, the newest, or those that are wanted and there."""
    known = {int(key): each for key, each in tables.get(FINGERPRINTS, {}).items()}
    versions = tables.get(VERSIONS, {})
    numbers = sorted(map(int, versions) if wanted is None else wanted)
    numbers = numbers if newest is None else numbers[max(len(numbers) - newest, 0) :]
    return [
        # A few may come from what is held, and go to somebody who changes them.
        _resolve(
            versions[str(number)] if wanted is None else copy.deepcopy(versions[str(number)]),
            number,
            known,
            path,
        )
        for number in numbers
        if wanted is None or str(number) in versions
    ]


def _intern(row: Row, known: dict[str, Any]) -> Row:
    """Replace fingerprints, which a run's versions share, by numbers of the other table."""

    def number_of(told: Mapping[str, Any]) -> int:
        for key, each in known.items():
            if each == told:
                return int(key)
        number = max(map(int, known), default=0) + 1
        known[str(number)] = dict(told)
        return number

    slim = {**row, "data": {name: number_of(told) for name, told in row["data"].items()}}
    slim["evaluations"] = [
        {**each, "data": {name: number_of(told) for name, told in each["data"].items()}}
        for each in row["evaluations"]
    ]
    return slim


def _resolve(document: Row, place: int, known: Mapping[int, Mapping[str, Any]], path: Path) -> Row:
    row = dict(document)
    try:
        if row["number"] != place or row["run"] != path.parent.name:
            raise ValueError("a row under another row's number or in another run")
        row["data"] = {name: dict(known[number]) for name, number in row["data"].items()}
        row["evaluations"] = [
            {**each, "data": {name: dict(known[number]) for name, number in each["data"].items()}}
            for each in row["evaluations"]
        ]
        check_row(row)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise CorruptHistory(
            f"{path} has a row that mvc_callbacks did not write ({error}); {_HINT}"
        ) from error
    return row
