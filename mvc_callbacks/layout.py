"""The layout of a store: its folders, its format, its lock, and the small state that writers share."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mvc_callbacks import files
from mvc_callbacks.canonical import decode, encode
from mvc_callbacks.errors import (
    CorruptHistory,
    CorruptRecord,
    MissingObject,
    MVCError,
    StoreNotFound,
    UnsafeFile,
    UnsupportedFormat,
)
from mvc_callbacks.history import History
from mvc_callbacks.locks import StoreLock
from mvc_callbacks.records import FORMAT, RecordFolder
from mvc_callbacks.summaries import Summaries
from mvc_callbacks.totals import Totals

if TYPE_CHECKING:
    from mvc_callbacks.manifests import ManifestFolder
    from mvc_callbacks.objects import ObjectFolder

__all__ = ["Layout", "Shared", "default_path"]

DEFAULT = "model_versions"
VARIABLE = "MVC_STORE"
_FORMAT_FILE = "format.json"
_SMALL = 1024 * 1024
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_FOLDERS = ("objects", "manifests", "versions", "runs", "events", "history")


def default_path() -> Path:
    """Return ``$MVC_STORE``, else ``./model_versions``, as an absolute path."""
    return Path(os.environ.get(VARIABLE) or DEFAULT).expanduser().absolute()


class Shared(NamedTuple):
    """What writers tell each other; lost without harm.

    Attributes:
        epoch: Changes whenever objects are removed.
        sequence: The largest sequence given to a version.
        run: The run of that version; None when not known.
    """

    epoch: str = ""
    sequence: int = 0
    run: str | None = None


class Layout:
    """The folders of one store.

    Args:
        path: The store; nothing is read or made yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # The folder may be named by a link; what is in it may not be one.
        root = Path(os.path.realpath(path))
        self._root = root
        self.staging = root / "tmp"
        self.versions = RecordFolder(root / "versions", "version", self.staging)
        self.runs = RecordFolder(root / "runs", "run", self.staging)
        self.events = RecordFolder(root / "events", "event", self.staging)
        self.history = History(root / "history", self.staging)
        self.summaries = Summaries(self.history, lambda: self.identity)
        self.totals = Totals(self.history, self.summaries, lambda: self.identity)
        self.aliases_path = root / "aliases.json"
        self.lock = StoreLock(self.staging / "lock")
        self._checked = False

    @cached_property
    def objects(self) -> ObjectFolder:
        """The folder of objects; a listing of versions never needs it."""
        from mvc_callbacks.objects import ObjectFolder

        return ObjectFolder(self._root / "objects", self.staging)

    @cached_property
    def manifests(self) -> ManifestFolder:
        """The folder of manifests; a listing of versions never needs it."""
        from mvc_callbacks.manifests import ManifestFolder

        return ManifestFolder(self._root / "manifests", self.staging)

    def exists(self) -> bool:
        """Tell whether there is a store."""
        return files.exists(self._root / _FORMAT_FILE)

    def check(self) -> None:
        """Refuse to go on where there is no store, or one that this release cannot read.

        Raises:
            StoreNotFound: If there is none.
            UnsupportedFormat: If it needs what this release does not know.
        """
        if self._checked:
            return
        try:
            told = self._format()
        except MissingObject:
            raise StoreNotFound(
                f"there is no store in {self.path}; name the right folder with store=, --store or ${VARIABLE}"
            ) from None
        unknown = told.get("requires")
        if unknown:
            raise UnsupportedFormat(f"the store {self.path} requires {unknown!r:.100}: upgrade mvc-callbacks")
        for folder in (*_FOLDERS, "tmp"):
            files.check_folder(self._root / folder)
        self._checked = told.get("format") == FORMAT

    def _format(self) -> dict[str, Any]:
        path = self._root / _FORMAT_FILE
        told = decode(files.read_file(path, limit=_SMALL), what=str(path))
        if not isinstance(told, dict) or type(told.get("format")) is not int or told.get("hash") != "sha256":
            raise CorruptRecord(f"{path} is not the format file of a store")
        if not _UUID.fullmatch(str(told.get("store"))):  # it names a folder of caches
            raise CorruptRecord(f"{path} is not the format file of a store: its 'store' is no uuid")
        return told

    def open_for_writing(self) -> None:
        """Make the store where there is none, and refuse one that a newer release wrote.

        Raises:
            UnsupportedFormat: If its format is newer.
            UnsafeFile: If the folder holds other things.
        """
        if not self.exists():
            self._create()
        self.check()
        told = self._format()["format"]
        if told != FORMAT:
            raise UnsupportedFormat(
                f"the store {self.path} has format {told}; this release writes {FORMAT}: "
                "upgrade mvc-callbacks"
            )

    def _create(self) -> None:
        files.check_folder(self._root)
        # Another process may be making it at this moment, or a crash have left it half made.
        ours = {*_FOLDERS, "tmp", _FORMAT_FILE, self.aliases_path.name}
        foreign = [name for name in files.list_names(self._root) if name not in ours and name[0] != "."]
        if foreign:
            raise UnsafeFile(
                f"{self.path} is not a store and holds {foreign[0]!r}: name an empty or a new folder with "
                "store="
            )
        import uuid

        files.make_folder(self.staging)
        with self.lock("making the store"):
            if self.exists():
                return
            if next(self.versions.ids(), None) is not None:
                raise UnsafeFile(
                    f"{self.path} holds versions but no {_FORMAT_FILE}: put it back from a copy of the store"
                )
            for folder in _FOLDERS:
                files.make_folder(self._root / folder)
            # It is there from the beginning, so that its loss can be told from its not being needed yet.
            files.replace_file(self.aliases_path, encode({"aliases": {}, "log": {}}), self.staging)
            told = {"format": FORMAT, "store": str(uuid.uuid4()), "hash": "sha256", "requires": []}
            files.replace_file(self._root / _FORMAT_FILE, encode(told), self.staging)

    @property
    def identity(self) -> str:
        """The store's uuid."""
        return str(self._format()["store"])

    def make_staging(self) -> None:
        """Make the folder of the lock and of staged files, which a copy of a store may lack."""
        if not self.staging.is_dir():
            files.make_folder(self.staging)

    def check_history(self) -> None:
        """Refuse to answer from a history that is gone: it would say that there is nothing.

        Raises:
            CorruptHistory: If there are records but no run.
        """
        if not self.history.runs() and next(self.versions.ids(), None) is not None:
            raise CorruptHistory(
                f"the history of {self.path} is gone; run `mvc rebuild` to make it again from the records"
            )

    def newest_sequence(self, shared: Shared) -> int:
        """Return the largest sequence given to a version; looked for where what writers share was lost."""
        if shared.run is not None:
            return shared.sequence
        newest = shared.sequence
        for run in self.history.runs():
            with suppress(MVCError):  # another run's damage is told by `verify`, and must not stop this one
                newest = max(newest, (self.history.last(run) or {"sequence": 0})["sequence"])
        return newest

    def shared(self) -> Shared:
        """Read what writers tell each other; empty where it is lost."""
        path = self.staging / "shared.json"
        try:
            told = decode(files.read_file(path, limit=_SMALL), what=str(path))
            return Shared(str(told["epoch"]), int(told["sequence"]), told["run"])
        except (MissingObject, CorruptRecord, UnsafeFile, KeyError, TypeError, ValueError):
            return Shared()

    def share(self, shared: Shared) -> None:
        """Tell other writers. Hold the lock.

        A crash that loses its bytes loses nothing: the newest version is then looked for. But an older one
        must not come back, which would name another version as the newest: only the name is made durable.
        """
        told = {"epoch": shared.epoch, "sequence": shared.sequence, "run": shared.run}
        files.move(files.stage(self.staging, [encode(told)], durable=False), self.staging / "shared.json")
        files.sync_folder(self.staging)

    def epoch(self) -> str:
        """Return what changes whenever objects are removed, begun where it was lost. Hold the lock."""
        if not self.shared().epoch:
            self.new_epoch()  # of two that know none, one might have been before a prune
        return self.shared().epoch

    def new_epoch(self) -> None:
        """Tell other writers that objects are about to go. Hold the lock."""
        import uuid

        shared = self.shared()
        self.share(Shared(uuid.uuid4().hex, shared.sequence, shared.run))

    def sweep_staging(self) -> int:
        """Remove what crashes left in the staging folder more than a day ago; return the bytes freed."""
        return files.sweep(self.staging)
