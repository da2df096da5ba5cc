"""Records of versions and runs, and events: immutable JSON files named by the SHA-256 of their bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from mvc_callbacks import files
from mvc_callbacks.canonical import decode, digest_of, encode
from mvc_callbacks.errors import CorruptRecord, MissingObject, SaveFailed, UnsafeFile, UnsupportedFormat
from mvc_callbacks.refs import check_digest

__all__ = ["FORMAT", "Kind", "RecordFolder"]

FORMAT = 1
LIMIT = 64 * 1024 * 1024
Kind = Literal["version", "run", "event"]


class RecordFolder:
    """One of the folders ``versions/``, ``runs/`` and ``events/``.

    Args:
        root: The folder.
        kind: What every record in it is.
        staging: Where files are written before they get their name.
    """

    def __init__(self, root: Path, kind: Kind, staging: Path) -> None:
        self.root = root
        self.kind = kind
        self._staging = staging

    def path_of(self, digest: str) -> Path:
        """Return where a record lies, whether it is there or not."""
        check_digest(digest, self.kind)
        return self.root / digest[:2] / f"{digest}.json"

    def write(self, fields: Mapping[str, Any]) -> str:
        """Write a record durably.

        Args:
            fields: Everything but ``kind`` and ``format``.

        Returns:
            Its id: the SHA-256 of the bytes as stored.

        Raises:
            CorruptRecord: If what is in it could not be read again, such as half a surrogate pair.
            SaveFailed: If it is larger than what is read again.
            OSError: If the disk refuses.
        """
        data = encode({**fields, "kind": self.kind, "format": FORMAT})
        if len(data) > LIMIT:
            raise SaveFailed(
                f"the {self.kind} record would have {len(data)} bytes, more than the {LIMIT} that are read "
                "again: "
                "leave large values out of the hyperparameters and of the state dict's entries that are no "
                "tensors"
            )
        decode(data, what=f"the {self.kind} record")
        digest = digest_of(data)
        path = self.path_of(digest)
        files.make_folder(path.parent)
        files.check_folder(path.parent)
        if files.size_of(path) != len(data):  # another size: a crash or a copy has cut it
            files.move(files.stage(self._staging, [data]), path)
        files.sync_folder(path.parent)
        return digest

    def read(self, digest: str) -> dict[str, Any]:
        """Read a record, believing it only if its bytes have its name.

        Raises:
            MissingObject: If it is not there.
            CorruptRecord: If it is not what its name says.
            UnsupportedFormat: If a newer release wrote it.
        """
        path = self.path_of(digest)
        data = files.read_file(path, limit=LIMIT)
        if digest_of(data) != digest:
            raise CorruptRecord(
                f"{path} was changed since it was written: its bytes are not what its name "
                "says; run `mvc verify`, which tells the versions that it hurts"
            )
        value = decode(data, what=str(path))
        if not isinstance(value, dict) or value.get("kind") != self.kind:
            raise CorruptRecord(f"{path} is not a {self.kind} record")
        if value.get("format") != FORMAT:
            raise UnsupportedFormat(
                f"{path} has format {value.get('format')!r:.20}; this release reads {FORMAT}: "
                "upgrade mvc-callbacks"
            )
        return value

    def has(self, digest: str) -> bool:
        """Tell whether a record of that name is there."""
        return files.exists(self.path_of(digest))

    def remove(self, digest: str) -> None:
        """Remove a record."""
        files.remove(self.path_of(digest))

    def with_prefix(self, prefix: str) -> list[str]:
        """Return the ids that begin with some hex digits (two or more), sorted."""
        files.check_folder(self.root / prefix[:2])
        names = files.list_names(self.root / prefix[:2])
        return [name[:-5] for name in names if name.startswith(prefix) and name.endswith(".json")]

    def ids(self) -> Iterator[str]:
        """Go through all ids, sorted."""
        for folder in files.list_names(self.root):
            if len(folder) != 2:
                continue
            files.check_folder(self.root / folder)
            for name in files.list_names(self.root / folder):
                if name.endswith(".json") and len(name) == 69:
                    yield name[:-5]

    def all(self, problems: list[str], *, patient: bool = True) -> Iterator[tuple[str, dict[str, Any]]]:
        """Go through all records that can be believed.

        Args:
            problems: Gets a line for each one that cannot.
            patient: Whether one that the disk does not give is such a one too.

        Raises:
            OSError: If the disk does not give one, and ``patient`` is not set.
        """
        for digest in self.ids():
            try:
                yield digest, self.read(digest)
            except (
                ValueError,
                MissingObject,
                UnsafeFile,
            ) as error:  # every refusal of what a file says is one
                problems.append(str(error))
            except OSError as error:
                if not patient:
                    raise
                problems.append(str(error))
