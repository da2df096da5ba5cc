"""Comparing two versions of a store: what `diff` needs is read here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from mvc_callbacks import listings
from mvc_callbacks.diff import Difference, Tensors, WeightsDifference, compare
from mvc_callbacks.errors import MVCError
from mvc_callbacks.versions import Version

if TYPE_CHECKING:
    from mvc_callbacks.store_reader import StoreReader

__all__ = ["difference"]

_NAMES = 10_000


def difference(
    store: StoreReader,
    a: Version,
    b: Version,
    *,
    weights: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Difference:
    """Compare two versions as far as the store can tell.

    Args:
        store: The store that has both.
        a: The older one, usually.
        b: The newer one.
        weights: Read all weights, and tell how much each tensor and each layer changed; needs numpy.
        progress: Called with the bytes compared and their sum.

    Raises:
        MissingFramework: If ``weights`` is set and numpy is not installed.

    Returns:
        What differs. Of files at most 10 000 names of each kind are told, and all are counted. What was
        pruned or is damaged is not known.
    """
    found = compare(a, b, files=_files(store, a, b), weights=(_tensors(store, a), _tensors(store, b)))
    if weights:
        found = replace(found, weights=_with_values(store, found, progress))
    return replace(found, patches=_patches(store, a, b))


def _with_values(
    store: StoreReader, found: Difference, progress: Callable[[int, int], None] | None
) -> WeightsDifference:
    from mvc_callbacks.weight_changes import layer_changes, tensor_changes

    try:
        before, after = store.tensors(found.a), store.tensors(found.b)
    except MVCError as error:  # pruned or damaged: the rest of the difference is worth telling
        return replace(found.weights, why_no_values=str(error))
    values = tensor_changes(before, after, progress=progress)
    return replace(found.weights, values=values, layers=layer_changes(values))


def _patches(store: StoreReader, a: Version, b: Version) -> tuple[str, str]:
    digests = [each.code.get("patch") for each in (a, b)]
    if digests[0] == digests[1]:
        return "", ""
    return _patch(store, digests[0]), _patch(store, digests[1])


def _patch(store: StoreReader, digest: object) -> str:
    try:
        return store.patch(digest).decode("utf-8", "replace") if isinstance(digest, str) else ""
    except MVCError:
        return ""


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
