"""Wants: what one version of a history needs of the store's files."""

from __future__ import annotations

from collections.abc import Iterator

from mvc_callbacks.refs import check_digest
from mvc_callbacks.row_checks import Row

__all__ = ["ADDITIONS", "STATE", "TREE", "WEIGHTS", "short", "wants_of"]

WEIGHTS, STATE, TREE, ADDITIONS = range(4)
"""What a row wants something for; the second two are objects, the first two manifests."""


def wants_of(row: Row) -> Iterator[tuple[int, int, bytes, bytes]]:
    """Tell what a version needs: its number, what for, the digest, and its id."""
    gone = {each["what"] for each in row["pruned"]}
    if "weights" in gone:
        return
    number, version = row["number"], bytes.fromhex(row["id"])
    yield number, WEIGHTS, _digest(row["weights"]["digest"]), version
    if row["weights"]["additions"] is not None:
        yield number, ADDITIONS, _digest(row["weights"]["additions"]), version
    if "state" not in gone and row["state"] is not None:
        yield number, STATE, _digest(row["state"]["digest"]), version
        yield number, TREE, _digest(row["state"]["tree"]), version


def _digest(text: str) -> bytes:
    return bytes.fromhex(check_digest(text, "object"))


def short(digest: str) -> int:
    """Return the beginning of a digest as a number of SQLite's; two alike keep one too many."""
    return int(digest[:16], 16) - 2**63
