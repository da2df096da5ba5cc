"""The ``mvc://`` URL: how a version is named where a path is expected."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["is_url", "make", "make_store", "parse"]

SCHEME = "mvc:"


def is_url(path: object) -> bool:
    """Tell whether a path is an ``mvc://`` URL."""
    return isinstance(path, str | os.PathLike) and str(path).startswith(SCHEME)


def make(store: str | os.PathLike[str], ref: str) -> str:
    """Return the URL that names a store and a ref.

    Args:
        store: The store's folder.
        ref: What names a version in it.

    Returns:
        ``mvc:///absolute/path@ref``.
    """
    return f"{make_store(store)}@{ref}"


def make_store(store: str | os.PathLike[str]) -> str:
    """Return the URL of a store itself, which `make` continues with ``@`` and a ref."""
    path = Path(store).absolute().as_posix()
    return f"{SCHEME}//{path if path.startswith('/') else '/' + path}"


def parse(url: str | os.PathLike[str]) -> tuple[Path | None, str]:
    """Take a URL apart.

    Args:
        url: ``mvc://<ref>``, or ``mvc:///absolute/path@<ref>``. The scheme and slashes may be missing, or
            fewer as in ``Path("mvc://baseline/3")``, because path libraries normalise them away.

    Returns:
        The store's folder, None for the default store; and the ref, empty where none is given.
    """
    text = str(url)
    rest = text[len(SCHEME) :] if text.startswith(SCHEME) else text
    folder, at, ref = rest.rpartition("@")
    if not at:
        # A ref has no leading slash, so three slashes are a store without a ref.
        whole_store = rest.startswith("///") or (rest.startswith("/") and not text.startswith(SCHEME))
        return (_folder(rest), "") if whole_store else (None, rest.strip("/"))
    return _folder(folder), ref.strip("/")


def _folder(text: str) -> Path:
    relative = text.startswith("//") and not text.startswith("///")  # mvc://model_versions@latest
    text = text.lstrip("/") if relative else "/" + text.lstrip("/")
    if os.name == "nt":
        text = text.lstrip("/")
    return Path(text).absolute()
