"""Needs: which objects and manifests the versions of a store need, remembered by one host in SQLite.

What is asked is whether anybody *else* needs a thing: the store may be large, and the question is small.
Everything here is derived: what histories and manifests say is taken over when their files changed, and their
files are looked at each time. A manifest that does not change is read once on a host, not for each removal.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
import weakref
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from mvc_callbacks.errors import CorruptHistory, MVCError
from mvc_callbacks.host_cache import Times, cache_folder, open_database, place_of, stamp_of, times_of
from mvc_callbacks.layout import Layout
from mvc_callbacks.manifests import Manifest
from mvc_callbacks.objects import Suffix
from mvc_callbacks.progress import Progress
from mvc_callbacks.wants import ADDITIONS, STATE, TREE, WEIGHTS, short, wants_of

__all__ = ["File", "Needs"]

File = tuple[str, Suffix]
_log = logging.getLogger(__name__)

YOUNG = 2 * 10**9
"""Nanoseconds. A younger folder may get one more name without its times changing."""
_LARGEST = 8 * 1024**3
_PATIENCE = 30_000  # milliseconds; another process may be reading a large store for the first time
_SCHEMA = """
CREATE TABLE IF NOT EXISTS folders (path TEXT PRIMARY KEY, stamp TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS chunks (id INTEGER PRIMARY KEY, run TEXT NOT NULL, name TEXT NOT NULL,
    stamp TEXT NOT NULL, UNIQUE (run, name));
CREATE TABLE IF NOT EXISTS wants (chunk INTEGER NOT NULL, number INTEGER NOT NULL, kind INTEGER NOT NULL,
    digest BLOB NOT NULL, version BLOB NOT NULL, PRIMARY KEY (chunk, number, kind)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS wanted ON wants (digest);
CREATE TABLE IF NOT EXISTS manifests (id INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE,
    stamp TEXT NOT NULL, base BLOB);
CREATE INDEX IF NOT EXISTS based ON manifests (base);
CREATE TABLE IF NOT EXISTS names (object INTEGER NOT NULL, manifest INTEGER NOT NULL,
    PRIMARY KEY (object, manifest)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS named ON names (manifest);
"""
_NOTED = 32
"""Manifests that are noted together."""


class _Chunk(NamedTuple):
    """A database of a history as it was taken over.

    Attributes:
        place: Its id here.
        stamp: Of the file that was read.
        times: The same, as it was last found; None where that is not known.
    """

    place: int | None
    stamp: str
    times: Times | None = None


class Needs:
    """What versions need, as a question to a database that is brought up to date before it is asked.

    Args:
        layout: The store.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._guard = threading.RLock()
        self._database: sqlite3.Connection | None = None
        self._path: Path | None = None
        self._pid = 0
        self._names: dict[str, tuple[Times, list[str]]] = {}
        self._known: dict[tuple[str, str], _Chunk] = {}
        self._known_at: int | None = None
        self._bases: dict[str, tuple[str, Manifest]] = {}
        self._noted: list[Manifest] = []
        self._registered = False
        self._prepared = False
        self._progress: Progress | None = None
        self._unread: dict[bytes, MVCError | OSError] = {}

    def prepare(self, progress: Progress | None = None) -> None:
        """Read what this host never saw before the store's lock is taken, so that no save waits for it.

        Args:
            progress: Called with the manifests read and their number.
        """
        if not self._prepared:
            self._prepared, self._progress = True, progress
            with contextlib.suppress(MVCError, OSError), self.asked():
                pass  # what cannot be read is told when it is asked about
            self._progress = None

    @contextlib.contextmanager
    def asked(self) -> Iterator[Needs]:
        """Bring it up to date, and keep it so while it is asked. Hold the store's lock.

        Raises:
            CorruptHistory: If a history cannot be read.
            OSError: If the host's cache fails while it is asked; the next time it is made anew.
        """
        with self._guard:
            try:
                database = self._begin(self._open())
            except sqlite3.Error as error:
                _log.info("what versions need cannot be remembered: %s", error)
                database = self._begin(self._open(remember=False))
            try:
                try:
                    self._refresh(database)
                except sqlite3.Error as error:
                    _log.info("what versions need cannot be remembered: %s", error)
                    database = self._begin(self._open(remember=False))
                    self._refresh(database)
                try:
                    yield self
                except sqlite3.Error as error:
                    self._close()
                    if self._path is not None:
                        self._path.unlink(missing_ok=True)
                    told = f"this host's cache of needs failed ({error}); try again: it is made anew"
                    raise OSError(told) from error
            except BaseException:
                self._known_at = None
                self._end(database, "ROLLBACK")
                raise
            self._end(database, "COMMIT")

    def note(self, written: Iterable[Manifest]) -> None:
        """Remember manifests that were just written, so that they need not be read for it. May do nothing.

        Args:
            written: Those that have a stamp count.
        """
        with self._guard:
            if not self._registered:
                self._registered = True
                # A short run notes too few to be worth a transaction of their own.
                weakref.finalize(self, _write_later, self._layout, self._noted)
            self._noted += [each for each in written if each.stamp is not None]
            if len(self._noted) >= _NOTED:
                self._write_noted()

    def _write_noted(self) -> None:
        with self._guard, contextlib.suppress(sqlite3.Error, OSError, MVCError):
            database = self._open()
            database.execute("PRAGMA busy_timeout=20")  # a save does not wait for what can be done later
            try:
                database.execute("BEGIN IMMEDIATE")
                self._add_noted(database)
                self._end(database, "COMMIT")
            except sqlite3.Error:
                if database.in_transaction:
                    database.execute("ROLLBACK")
                raise
            finally:
                database.execute(f"PRAGMA busy_timeout={_PATIENCE}")

    def _add_noted(self, database: sqlite3.Connection) -> None:
        for manifest in self._noted:
            # It, or what it refers to, may have been written anew since, and been read by another process.
            stamp = self._now(manifest.digest)
            if manifest.stamp == stamp != self._known_stamp(database, manifest.digest) and (
                manifest.base is None
                or self._known_stamp(database, manifest.base) == self._now(manifest.base)
            ):
                self._add(database, manifest, stamp)
        self._noted.clear()

    def _known_stamp(self, database: sqlite3.Connection, digest: str) -> str | None:
        asked = "SELECT stamp FROM manifests WHERE digest=?"
        known = database.execute(asked, [bytes.fromhex(digest)]).fetchone()
        return None if known is None else str(known[0])

    def _begin(self, database: sqlite3.Connection) -> sqlite3.Connection:
        database.execute("BEGIN IMMEDIATE")  # no other process writes what it saw before
        return database

    def _end(self, database: sqlite3.Connection, how: str) -> None:
        try:
            database.execute(how)
        except sqlite3.Error as error:
            _log.info("what versions need cannot be remembered: %s", error)
            self._database = self._known_at = None

    def _open(self, *, remember: bool = True) -> sqlite3.Connection:
        # A connection must not go through a fork.
        if self._database is not None and self._pid == os.getpid() and remember:
            return self._database
        self._pid, self._names, self._known_at = os.getpid(), {}, None
        if remember:
            place = place_of(self._layout.history.root)
            try:
                path = cache_folder(self._layout.identity) / f"needs-1-{place}.sqlite"
                self._path = path
                self._database = open_database(path, _SCHEMA, largest=_LARGEST)
                self._database.execute(f"PRAGMA busy_timeout={_PATIENCE}")
                # What is forgotten here would go from the store: no power cut may take a part of it.
                self._database.execute("PRAGMA synchronous=FULL")
                return self._database
            except (OSError, RuntimeError) as error:  # RuntimeError: no home folder
                _log.info("what versions need cannot be remembered: %s", error)
        self._database = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self._database.executescript(_SCHEMA)
        return self._database

    def _close(self) -> None:
        database, self._database = self._database, None
        if database is not None:
            database.close()

    # --- bringing it up to date ---

    def _refresh(self, database: sqlite3.Connection) -> None:
        self._unread = {}
        self._add_noted(database)
        wanted = self._take_histories(database) | self._changed_manifests(database)
        for done, digest in enumerate(wanted, 1):
            if self._progress is not None:
                self._progress(done, len(wanted))
            known = database.execute("SELECT 1 FROM manifests WHERE digest=?", [digest]).fetchone()
            needed = database.execute("SELECT 1 FROM wants WHERE digest=? AND kind<2", [digest]).fetchone()
            if needed and not known:
                try:
                    self._take_manifest(database, digest)
                except (MVCError, OSError) as error:
                    # It may be of a version that goes, and of no other.
                    self._unread[digest] = error
                    again = "UPDATE chunks SET stamp='' WHERE id IN (SELECT chunk FROM wants WHERE digest=?)"
                    database.execute(again, [digest])
                    self._known_at = None

    def _take_histories(self, database: sqlite3.Connection) -> set[bytes]:
        """Take over what changed of the histories; return the manifests that are wanted by what was read."""
        known, now = self._recall_chunks(database), {}
        wanted: set[bytes] = set()
        for run in self._layout.history.runs():
            folder = f"{self._layout.history.root}{os.sep}{run}"
            for name in self._chunks(run, folder):
                path, before = f"{folder}{os.sep}{name}", known.get((run, name))
                times = times_of(path)
                # A thousand runs are looked at for each removal, of which one changed.
                if before is None or times is None or times != before.times:
                    stamp = stamp_of(path)
                    place = None if before is None else before.place
                    if before is None or not stamp or stamp != before.stamp:
                        place, more = self._take_chunk(database, place, run, name, stamp)
                        wanted |= more
                    before = _Chunk(place, stamp, times if stamp and times == times_of(path) else None)
                now[run, name] = before
        for gone in known.keys() - now.keys():
            database.execute("DELETE FROM wants WHERE chunk=?", [known[gone].place])
            database.execute("DELETE FROM chunks WHERE id=?", [known[gone].place])
        self._known = now
        return wanted

    def _recall_chunks(self, database: sqlite3.Connection) -> dict[tuple[str, str], _Chunk]:
        """Return the databases that were taken over, from memory while no other process wrote."""
        version = database.execute("PRAGMA data_version").fetchone()[0]
        if self._known_at != version:
            asked = "SELECT id, run, name, stamp FROM chunks"
            self._known = {
                (run, name): _Chunk(place, stamp) for place, run, name, stamp in database.execute(asked)
            }
            self._known_at = version
        return self._known

    def _chunks(self, run: str, folder: str) -> list[str]:
        times, known = times_of(folder), self._names.get(run)
        if known is not None and known[0] == times:
            return known[1]
        self._names.pop(run, None)
        settled = stamp_of(folder, folder=True, young=YOUNG)
        names = [path.name for path in self._layout.history.chunks(run)]
        if settled and times is not None and times == times_of(folder):
            self._names[run] = (times, names)
        return names

    def _take_chunk(
        self, database: sqlite3.Connection, chunk: int | None, run: str, name: str, stamp: str
    ) -> tuple[int | None, set[bytes]]:
        rows = self._layout.history.rows_of(self._layout.history.folder_of(run) / name, borrow=True)
        try:
            told = [each for row in rows for each in wants_of(row)]
        except ValueError as error:
            raise CorruptHistory(
                f"history/{run}/{name} names what is no digest; run `mvc rebuild`"
            ) from error
        if chunk is None:
            inserted = "INSERT INTO chunks (run, name, stamp) VALUES (?,?,?)"
            chunk = database.execute(inserted, [run, name, stamp]).lastrowid
        else:
            database.execute("UPDATE chunks SET stamp=? WHERE id=?", [stamp, chunk])
            database.execute("DELETE FROM wants WHERE chunk=?", [chunk])
        wants = [(chunk, *each) for each in told]
        database.executemany("INSERT OR IGNORE INTO wants VALUES (?,?,?,?,?)", wants)
        return chunk, {digest for _, _, kind, digest, _ in wants if kind in (WEIGHTS, STATE)}

    def _changed_manifests(self, database: sqlite3.Connection) -> set[bytes]:
        """Forget what changed of the manifests that are known; only folders that changed are gone through."""
        seen = dict(database.execute("SELECT path, stamp FROM folders").fetchall())
        changed: set[bytes] = set()
        for number in range(256):
            prefix = f"{number:02x}"
            now = stamp_of(f"{self._layout.manifests.root}{os.sep}{prefix}", folder=True, young=YOUNG)
            if now and seen.get(prefix) == now:
                continue
            database.execute("INSERT OR REPLACE INTO folders VALUES (?,?)", [prefix, now])
            low = bytes([number])
            part = "SELECT digest, stamp FROM manifests WHERE digest>=? AND digest<=?"
            for digest, stamp in database.execute(part, [low, low + b"\xff" * 32]).fetchall():
                if self._now(digest.hex()) != stamp:
                    changed.add(digest)
        forgotten: set[bytes] = set()
        while changed:
            digest = changed.pop()
            # Those that refer to it name other objects now.
            based = database.execute("SELECT digest FROM manifests WHERE base=?", [digest]).fetchall()
            changed |= {each for (each,) in based} - forgotten
            forgotten.add(digest)
            self._forget(database, digest)
        return forgotten

    def _take_manifest(self, database: sqlite3.Connection, digest: bytes) -> None:
        """Read a manifest, and the one that it refers to."""
        told, stamp = self._read(digest.hex())
        base = None if told.base is None else bytes.fromhex(told.base)
        if base is not None:
            known = database.execute("SELECT 1 FROM manifests WHERE digest=?", [base]).fetchone()
            if known is None:
                self._take_manifest(database, base)
        self._add(database, told, stamp)

    def _add(self, database: sqlite3.Connection, manifest: Manifest, stamp: str) -> None:
        digest = bytes.fromhex(manifest.digest)
        base = None if manifest.base is None else bytes.fromhex(manifest.base)
        self._forget(database, digest)
        added = "INSERT INTO manifests (digest, stamp, base) VALUES (?,?,?)"
        place = database.execute(added, [digest, stamp, base]).lastrowid
        named = [(short(each), place) for each in manifest.objects]
        database.executemany("INSERT OR IGNORE INTO names VALUES (?,?)", named)

    def _forget(self, database: sqlite3.Connection, digest: bytes) -> None:
        named = "DELETE FROM names WHERE manifest IN (SELECT id FROM manifests WHERE digest=?)"
        database.execute(named, [digest])
        database.execute("DELETE FROM manifests WHERE digest=?", [digest])

    def _read(self, digest: str) -> tuple[Manifest, str]:
        """Read a manifest as it is at one moment, and its stamp.

        Many refer to the same one, which is read once.
        """
        manifests = self._layout.manifests
        while True:
            bases = {each: base for each, (stamp, base) in self._bases.items() if self._now(each) == stamp}
            stamp = self._now(digest)
            told = manifests.read(digest, bases=bases)
            if told.base is not None and told.base not in bases:
                before = self._now(told.base)
                self._bases = {told.base: (before, manifests.read(told.base))}
            elif self._now(digest) == stamp and all(
                self._now(each) == at for each, (at, _) in self._bases.items()
            ):
                return told, stamp

    def _now(self, digest: str) -> str:
        return self._layout.manifests.stamp_of(digest) or ""

    # --- asking ---

    def by_others(self, files: Iterable[File], without: Collection[str], what: str) -> set[File]:
        """Return those files that a version needs, when some lose their weights or their state.

        Args:
            files: Tensors and trees.
            without: Ids of the versions that lose it.
            what: ``weights`` (and the state with them) or ``state``.

        Raises:
            MVCError: If the manifest of a version that keeps it cannot be read.
        """
        lost = frozenset(map(bytes.fromhex, without))
        gone = (STATE, TREE) if what == "state" else (WEIGHTS, STATE, TREE, ADDITIONS)
        for unread, error in self._unread.items():
            if self._is_used(unread, lost, gone, {}):
                raise error
        assert self._database is not None
        found = set()
        for digest, suffix in files:
            if suffix == ".safetensors":
                asked = self._database.execute(
                    "SELECT wants.version, wants.kind FROM names "
                    "JOIN manifests ON manifests.id = names.manifest "
                    "JOIN wants ON wants.digest = manifests.digest WHERE names.object=? AND wants.kind<2",
                    [short(digest)],
                )
            else:
                asked = self._database.execute(
                    "SELECT version, kind FROM wants WHERE digest=? AND kind>=2", [bytes.fromhex(digest)]
                )
            if any(not (kind in gone and version in lost) for version, kind in asked):
                found.add((digest, suffix))
        return found

    def manifests_by_others(self, digests: Iterable[str], without: Collection[str], what: str) -> set[str]:
        """Return those manifests that a version needs, itself or through one that refers to it.

        Args:
            digests: The manifests.
            without: As for `by_others`.
            what: As for `by_others`.
        """
        lost = frozenset(map(bytes.fromhex, without))
        gone = (STATE,) if what == "state" else (WEIGHTS, STATE)
        known: dict[bytes, bool] = {}
        return {each for each in digests if self._is_used(bytes.fromhex(each), lost, gone, known)}

    def _is_used(
        self, digest: bytes, lost: frozenset[bytes], gone: Collection[int], known: dict[bytes, bool]
    ) -> bool:
        if digest not in known:
            assert self._database is not None
            asked = self._database.execute(
                "SELECT version, kind FROM wants WHERE digest=? AND kind<2", [digest]
            )
            known[digest] = any(not (kind in gone and version in lost) for version, kind in asked)
            if not known[digest]:
                based = self._database.execute("SELECT digest FROM manifests WHERE base=?", [digest])
                known[digest] = any(self._is_used(each, lost, gone, known) for (each,) in based)
        return known[digest]


def _write_later(layout: Layout, noted: list[Manifest]) -> None:
    """Remember what a store noted that nobody refers to any more, or that the process ends with."""
    if noted:
        needs = Needs(layout)
        needs._noted = noted
        needs._write_noted()
        needs._close()
