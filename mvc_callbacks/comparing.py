"""Comparing two versions of a store: what `diff` needs is read here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mvc_callbacks import listings
from mvc_callbacks.diff import Difference, Tensors, compare
from mvc_callbacks.errors import MVCError
from mvc_callbacks.versions import Version

if TYPE_CHECKING:
    from mvc_callbacks.store_reader import StoreReader

__all__ = ["difference"]

_NAMES = 10_000


def difference(store: StoreReader, a: Version, b: Version) -> Difference:
    """Compare two versions as far as the store can tell.

    Args:
        store: The store that has both.
        a: The older one, usually.
        b: The newer one.

    Returns:
        What differs. Of files at most 10 000 names of each kind are told, and all are counted. What was
        pruned or is damaged is not known.
    """
    return compare(a, b, files=_files(store, a, b), weights=(_tensors(store, a), _tensors(store, b)))


def _files(store: StoreReader, a: Version, b: Version) -> dict[str, listings.ListingDifference]:
    found = {}
    for name, mine in a.data.items():
        theirs = b.data.get(name)
        if theirs is None or mine.digest == theirs.digest or not (mine.listing and theirs.listing):
            continue
        try:
            before, after = store.listing(mine.listing), store.listing(theirs.listing)
            found[name] = listings.compare([before], [after], names=_NAMES)
        except MVCError:  # missing or damaged: `verify` tells it, and the digests still say that they differ
            continue
    return found


def _tensors(store: StoreReader, version: Version) -> Tensors | None:
    try:
        return store.entries(version)
    except MVCError:
        return None
