"""Patches that `git apply` accepts: cut between files, and made of files that git does not track."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from mvc_callbacks.masking import words

__all__ = ["CODE", "new_file", "sections"]

CODE = words(
    ".bash .c .cc .cfg .conf .cpp .cu .cuh .cxx .f90 .go .h .hpp .ini .ipynb .jl .js .lua .m .md .proto "
    ".pxd .py .pyi .pyx .r .rs .scala .sh .slurm .sql .toml .ts .yaml .yml .zsh"
)
"""Endings of what people write, in lower case: these come first where there is no room for everything."""

_START = re.compile(rb"^diff --git ", re.MULTILINE)
_ESCAPES = {7: "a", 8: "b", 9: "t", 10: "n", 11: "v", 12: "f", 13: "r", 34: '"', 92: "\\"}


def sections(patch: bytes) -> Iterator[bytes]:
    """Go through a patch file by file.

    No line of a file's text can be taken for the start of the next one: in a patch each begins with a sign.
    """
    starts = [match.start() for match in _START.finditer(patch)]
    for start, end in zip(starts, [*starts[1:], len(patch)], strict=True):
        yield patch[start:end]


def new_file(root: Path, path: str, *, largest: int) -> bytes | str:
    """Make the patch that creates a file as it is.

    Args:
        root: Where the repository lies.
        path: The file's, relative to ``root``, with surrogates for bytes that are not UTF-8.
        largest: Most bytes of its content.

    Returns:
        The patch, or in words why there is none.
    """
    try:
        # A FIFO would block, and a link may lead out of the repository.
        descriptor = os.open(
            root / path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        )
    except (OSError, ValueError) as error:
        return (
            "it is a link" if (root / path).is_symlink() else f"{getattr(error, 'strerror', None) or error}"
        )
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            return "it is no regular file"
        if status.st_size > largest:
            return f"it has {status.st_size} bytes"
        content = file.read(largest + 1)
    if len(content) > largest:
        return "it grew while it was read"
    if b"\0" in content:
        return "it is no text"
    return _creation(path, content, executable=bool(status.st_mode & stat.S_IXUSR))


def _creation(path: str, content: bytes, *, executable: bool) -> bytes:
    old, new = _quoted(f"a/{path}"), _quoted(f"b/{path}")
    head = b"diff --git %s %s\nnew file mode %s\n" % (old, new, b"100755" if executable else b"100644")
    if not content:
        return head
    lines: Sequence[bytes] = content.split(b"\n")
    ending = b"" if content.endswith(b"\n") else b"\n\\ No newline at end of file\n"
    if not ending:
        lines = lines[:-1]
    body = b"\n".join(b"+" + line for line in lines) + (ending or b"\n")
    # After a name with a space git writes a tab, or its end would not be known.
    tab = b"\t" if b" " in new else b""
    return head + b"--- /dev/null\n+++ %s%s\n@@ -0,0 +1,%d @@\n%s" % (new, tab, len(lines), body)


def _quoted(path: str) -> bytes:
    raw = path.encode("utf-8", "surrogateescape")
    if all(32 <= byte < 127 and byte not in (34, 92) for byte in raw):
        return raw
    text = "".join(
        f"\\{_ESCAPES[byte]}" if byte in _ESCAPES else chr(byte) if 32 <= byte < 127 else f"\\{byte:03o}"
        for byte in raw
    )
    return f'"{text}"'.encode("ascii")
