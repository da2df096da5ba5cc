"""Objects: immutable files named by the SHA-256 of their bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mvc_callbacks import files
from mvc_callbacks.errors import CorruptObject
from mvc_callbacks.refs import check_digest

__all__ = ["ObjectFolder", "Staged", "Suffix"]

Suffix = Literal[".safetensors", ".json", ".jsonl", ".patch"]
SUFFIXES: tuple[Suffix, ...] = (".safetensors", ".json", ".jsonl", ".patch")


@dataclass(slots=True)
class Staged:
    """An object that is written and has not got its name yet.

    Attributes:
        digest: Its name.
        path: Where it will lie.
        file: The staged file; None where the object was there before.
        size: Bytes written.
    """

    digest: str
    path: Path
    file: Path | None
    size: int

    def adopt(self) -> int:
        """Give it its name; return the bytes written."""
        if self.file is not None:
            staged, self.file = self.file, None
            files.move(staged, self.path)
        return self.size

    def discard(self) -> None:
        """Remove it, if it has not got its name."""
        if self.file is not None:
            files.remove(self.file)
            self.file = None


class ObjectFolder:
    """The folder ``objects/``.

    Args:
        root: The folder.
        staging: Where files are written before they get their name.
    """

    def __init__(self, root: Path, staging: Path) -> None:
        self.root = root
        self._staging = staging

    def path_of(self, digest: str, suffix: Suffix = ".safetensors") -> Path:
        """Return where an object lies, whether it is there or not."""
        check_digest(digest, "object")
        return self.root / digest[:2] / f"{digest}{suffix}"

    def size_of(self, digest: str, suffix: Suffix = ".safetensors") -> int | None:
        """Return the bytes of an object, None where it is missing."""
        return files.size_of(self.path_of(digest, suffix))

    def put(
        self,
        digest: str,
        chunks: Sequence[files.Buffer],
        size: int,
        suffix: Suffix = ".safetensors",
        *,
        cached: bool = True,
    ) -> int:
        """Store an object unless it is there.

        Args:
            digest: SHA-256 of the chunks.
            chunks: Its bytes, the first buffer being its header.
            size: How many; a file of another size or beginning was cut or zeroed, and is replaced.
            suffix: Kind of file.
            cached: Whether it will be read soon.

        Returns:
            Bytes written: ``size``, or 0. The name is durable only after `sync`.

        Raises:
            OSError: If the disk refuses; nothing is left behind.
        """
        return self.stage(digest, chunks, size, suffix, cached=cached).adopt()

    def stage(
        self,
        digest: str,
        chunks: Sequence[files.Buffer],
        size: int,
        suffix: Suffix = ".safetensors",
        *,
        cached: bool = True,
    ) -> Staged:
        """Write an object, as `put` does, but leave it without its name."""
        path = self.path_of(digest, suffix)
        if files.size_of(path) == size and files.begins_with(path, chunks[0]):
            return Staged(digest, path, None, 0)
        self._make_folder_of(path, durable=False)
        return Staged(digest, path, files.stage(self._staging, chunks, size=size, cached=cached), size)

    def _make_folder_of(self, path: Path, *, durable: bool = True) -> None:
        files.make_folder(path.parent, durable=durable)
        files.check_folder(path.parent)

    def put_stream(self, chunks: Iterable[bytes], suffix: Suffix) -> tuple[str, int]:
        """Store an object whose digest is not known before, durably.

        Returns:
            Its digest, and the bytes written (0 if it was there).
        """
        hasher, size = hashlib.sha256(), 0

        def hashed() -> Iterator[bytes]:
            nonlocal size
            for chunk in chunks:
                hasher.update(chunk)
                size += len(chunk)
                yield chunk

        staged = files.stage(self._staging, hashed())
        digest = hasher.hexdigest()
        path = self.path_of(digest, suffix)
        written = 0
        if files.size_of(path) == size:
            files.remove(staged)
            files.touch(path)  # it is needed now: see `pruning`
        else:
            self._make_folder_of(path)
            files.move(staged, path)
            written = size
        files.sync_folder(path.parent)
        return digest, written

    def sync(self, digests: Iterable[str], pool: Executor | None = None) -> None:
        """Make the names of objects durable, their folders synced once each.

        Args:
            digests: The objects.
            pool: Where several are synced at once: a disk makes one transaction of what it is asked together.
        """
        folders = {self.root / digest[:2] for digest in digests}
        files.sync_folders(folders, map if pool is None else pool.map)

    def read(self, digest: str, suffix: Suffix = ".safetensors", *, verify: bool = True) -> memoryview:
        """Map an object, believing it only if its bytes have its name.

        Raises:
            MissingObject: If it is not there.
            CorruptObject: If it is not what its name says.
            UnsafeFile: If it is no regular file.
        """
        path = self.path_of(digest, suffix)
        data = files.map_file(path)
        if verify and hashlib.sha256(data).hexdigest() != digest:
            raise CorruptObject(
                f"{path} is damaged: its bytes are not what its name says. "
                "`mvc verify --full` tells what it hurts"
            )
        return data

    def set_aside(self, digest: str, suffix: Suffix, name: str) -> None:
        """Move a damaged object out of the way, so that the next save of it heals the store."""
        path = self.path_of(digest, suffix)
        files.check_folder(path.parent)
        files.rename(path, path.with_name(name))

    def remove(self, digest: str, suffix: Suffix = ".safetensors") -> int:
        """Remove an object; return the bytes freed."""
        path = self.path_of(digest, suffix)
        files.check_folder(path.parent)
        size = files.size_of(path) or 0
        return size if files.remove(path) else 0

    def all(self) -> Iterator[tuple[str, Suffix, int]]:
        """Go through digest, suffix and bytes of all objects, sorted."""
        for prefix in files.list_names(self.root):
            if len(prefix) != 2:
                continue
            files.check_folder(self.root / prefix)
            for name in files.list_names(self.root / prefix):
                for suffix in SUFFIXES:
                    size = files.size_of(self.root / prefix / name)
                    if name.endswith(suffix) and len(name) == 64 + len(suffix) and size is not None:
                        yield name[:64], suffix, size
