"""The read-only ``mvc`` protocol of fsspec: versions where a framework expects the path of a checkpoint."""

from __future__ import annotations

import errno
import io
import logging
import os
from datetime import datetime
from typing import Any, ClassVar

from fsspec.spec import AbstractFileSystem

from mvc_callbacks import urls
from mvc_callbacks.errors import MVCError
from mvc_callbacks.versions import Version

__all__ = ["VersionFileSystem"]

_log = logging.getLogger(__name__)


class VersionFileSystem(AbstractFileSystem):  # type: ignore[misc]  # fsspec tells no types
    """Serves ``mvc://…`` as checkpoint files that ``torch.load`` reads, with ``weights_only=True`` too.

    Nothing is a folder here, nothing is listed, and nothing can be written.
    """

    protocol: ClassVar[str] = "mvc"
    cachable: ClassVar[bool] = False

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        return [cls._strip_protocol(each) for each in path] if isinstance(path, list) else str(path)

    def exists(self, path: str | os.PathLike[str], **kwargs: Any) -> bool:
        """Tell whether a URL names a version; why it does not is logged, as who asks will not know.

        One whose weights were pruned does: opening it tells when they went, and which version still has them.
        """
        try:
            _find(path)
        except MVCError as error:
            _log.warning("%s is no version: %s", path, error)
            return False
        return True

    def isdir(self, path: str | os.PathLike[str]) -> bool:
        """Tell that nothing is a folder here."""
        return False

    def isfile(self, path: str | os.PathLike[str]) -> bool:
        """Tell the same as `exists`."""
        return self.exists(path)

    def info(self, path: str | os.PathLike[str], **kwargs: Any) -> dict[str, Any]:
        """Tell of a version as of a file; ``size`` is None, as the stream is made when it is opened."""
        version = _find(path)
        return {"name": str(path), "type": "file", "size": None, "created": _time(version), "id": version.id}

    def ls(self, path: str | os.PathLike[str], detail: bool = True, **kwargs: Any) -> list[Any]:
        """List a version as itself, and anything else as empty."""
        if not urls.parse(path)[1] or not self.exists(path):
            return []
        return [self.info(path) if detail else str(path)]

    def modified(self, path: str | os.PathLike[str]) -> datetime:
        """Return when the version was saved, in UTC."""
        return _time(_find(path))

    def created(self, path: str | os.PathLike[str]) -> datetime:
        """Return when the version was saved, in UTC."""
        return _time(_find(path))

    def open(self, path: str | os.PathLike[str], mode: str = "rb", *args: Any, **kwargs: Any) -> io.BytesIO:
        """Open a version as a stream as ``torch.save`` writes it.

        Raises:
            OSError: If it is to be written.
            UnknownRef: If there is no such version.
        """
        if mode != "rb":
            raise _read_only(path)
        import torch  # only who opens a checkpoint needs it

        from mvc_callbacks.lightning_io import checkpoint_of, locate
        from mvc_callbacks.markers import without_markers

        store, ref = locate(path)
        checkpoint = checkpoint_of(store, ref, for_fit=False)
        stream = io.BytesIO()
        # A marker is of a class that no safe loading knows, and one would make all the rest unreadable.
        torch.save(without_markers(checkpoint), stream)
        stream.seek(0)
        return stream

    def makedirs(self, path: str | os.PathLike[str], exist_ok: bool = False) -> None:
        """Refuse."""
        raise _read_only(path)

    def mkdir(self, path: str | os.PathLike[str], create_parents: bool = True, **kwargs: Any) -> None:
        """Refuse."""
        raise _read_only(path)

    def rm(self, path: Any, recursive: bool = False, maxdepth: int | None = None) -> None:
        """Refuse."""
        raise _read_only(path)

    def rm_file(self, path: str | os.PathLike[str]) -> None:
        """Refuse."""
        raise _read_only(path)

    def mv(self, path1: Any, path2: Any, **kwargs: Any) -> None:
        """Refuse."""
        raise _read_only(path2)

    def cp_file(self, path1: Any, path2: Any, **kwargs: Any) -> None:
        """Refuse."""
        raise _read_only(path2)

    def pipe_file(self, path: Any, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        """Refuse."""
        raise _read_only(path)


def _find(path: str | os.PathLike[str]) -> Version:
    from mvc_callbacks.lightning_io import locate

    store, ref = locate(path)
    return store.get(ref)


def _time(version: Version) -> datetime:
    return datetime.fromisoformat(version.created.replace("Z", "+00:00"))  # Python 3.10 knows no "Z"


def _read_only(path: object) -> OSError:
    # No PermissionError: Lightning swallows one that is raised while it writes a checkpoint.
    why = "mvc:// is read-only; VersionCheckpoint and VersionStore.commit make versions"
    return OSError(errno.EROFS, f"{path} cannot be written: {why}")
