"""The layout of a store: its folders, its format, its lock, and the small state that writers share."""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mvc_callbacks import files
from mvc_callbacks.canonical import decode, encode
from mvc_callbacks.errors import CorruptRecord, MissingObject, StoreNotFound, UnsafeFile, UnsupportedFormat
from mvc_callbacks.history import History
from mvc_callbacks.locks import StoreLock
from mvc_callbacks.manifests import ManifestFolder
from mvc_callbacks.objects import ObjectFolder
from mvc_callbacks.records import FORMAT, RecordFolder

__all__ = ["Layout", "Shared", "default_path"]

DEFAULT = "model_versions"
VARIABLE = "MVC_STORE"
_FORMAT_FILE = "format.json"
_SMALL = 1024 * 1024


def default_path() -> Path:
    """Return ``$MVC_STORE``, else ``./model_versions``, as an absolute path."""
    return Path(os.environ.get(VARIABLE) or DEFAULT).expanduser().absolute()


@dataclass(frozen=True, slots=True)
class Shared:
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
        self.staging = path / "tmp"
        self.objects = ObjectFolder(path / "objects", self.staging)
        self.manifests = ManifestFolder(path / "manifests", self.staging)
        self.versions = RecordFolder(path / "versions", "version", self.staging)
        self.runs = RecordFolder(path / "runs", "run", self.staging)
        self.events = RecordFolder(path / "events", "event", self.staging)
        self.history = History(path / "history", self.staging)
        self.aliases_path = path / "aliases.json"
        self.lock = StoreLock(self.staging / "lock")
        self._checked = False

    def exists(self) -> bool:
        """Tell whether there is a store."""
        return files.exists(self.path / _FORMAT_FILE)

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
        for folder in ("objects", "manifests", "versions", "runs", "events", "history", "tmp"):
            files.check_folder(self.path / folder)
        self._checked = told.get("format") == FORMAT

    def _format(self) -> dict[str, Any]:
        path = self.path / _FORMAT_FILE
        told = decode(files.read_file(path, limit=_SMALL), what=str(path))
        if not isinstance(told, dict) or type(told.get("format")) is not int or told.get("hash") != "sha256":
            raise CorruptRecord(f"{path} is not the format file of a store")
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
                f"the store {self.path} has format {told}; this release writes {FORMAT}: upgrade mvc-callbacks"
            )

    def _create(self) -> None:
        names = [name for name in files.list_names(self.path) if name != "tmp" and not name.startswith(".")]
        if names and not self.exists():
            raise UnsafeFile(
                f"{self.path} is not a store and holds {names[0]!r}: name an empty or a new folder with store="
            )
        files.make_folder(self.staging)
        with self.lock("making the store"):
            if self.exists():
                return
            for folder in ("objects", "manifests", "versions", "runs", "events", "history"):
                files.make_folder(self.path / folder)
            told = {"format": FORMAT, "store": str(uuid.uuid4()), "hash": "sha256", "requires": []}
            files.replace_file(self.path / _FORMAT_FILE, encode(told), self.staging)

    @property
    def identity(self) -> str:
        """The store's uuid."""
        return str(self._format()["store"])

    def make_staging(self) -> None:
        """Make the folder of the lock and of staged files, which a copy of a store may lack."""
        if not self.staging.is_dir():
            files.make_folder(self.staging)

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

        A crash that loses this loses nothing: the epoch is then new to every writer, and the newest version is looked
        for. It is therefore not made durable, which saves two fsyncs a version.
        """
        told = {"epoch": shared.epoch, "sequence": shared.sequence, "run": shared.run}
        files.move(files.stage(self.staging, [encode(told)]), self.staging / "shared.json")

    def new_epoch(self) -> None:
        """Tell other writers that objects are about to go, durably. Hold the lock."""
        shared = self.shared()
        self.share(Shared(uuid.uuid4().hex, shared.sequence, shared.run))
        files.sync_folder(self.staging)
