"""Lineage: which version a model's weights came from, known by the object or found by content."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mvc_callbacks.errors import AmbiguousRef, PrunedVersion, UnknownRef
from mvc_callbacks.tensors import State, Tensor, weights_digest
from mvc_callbacks.versions import Parent

if TYPE_CHECKING:
    from mvc_callbacks.store import VersionStore

__all__ = ["Origin", "by_content", "forget", "origin", "parents", "remember"]

NEWEST_RUNS = 32
TELLING_BYTES = 64  # a smaller tensor is the same in models that have nothing to do with each other


@dataclass(frozen=True, slots=True)
class Origin:
    """The version that an object's weights were restored from.

    Attributes:
        id: The version's full id.
        shared: ``n/m`` tensors where only a part was loaded; None for all.
    """

    id: str
    shared: str | None = None

    def parent(self) -> Parent:
        """Tell it as a parent."""
        return Parent(self.id, "restore", self.shared)


_origins: dict[int, tuple[weakref.ref[Any], Origin]] = {}


def remember(model: object, version_id: str, shared: str | None = None) -> None:
    """Note that an object's weights were restored from a version.

    Args:
        model: The model. It is known by identity, as modules may compare equal; and only as long as it lives.
        version_id: The version's full id.
        shared: ``n/m`` tensors where only a part was loaded.
    """
    key = id(model)

    def forget(_: object) -> None:
        _origins.pop(key, None)

    _origins[key] = (weakref.ref(model, forget), Origin(version_id, shared))


def origin(model: object) -> Origin | None:
    """Return the version that an object's weights were last restored from, or None."""
    found = _origins.get(id(model))
    return found[1] if found is not None and found[0]() is model else None


def parents(model: object) -> tuple[Parent, ...]:
    """Return the versions that an object, or submodules of it, were restored from.

    Args:
        model: A model; submodules are looked at where it has torch's ``modules`` and ``state_dict``.

    Returns:
        One parent for the whole object; else one for each version that a part came from, with ``shared``
        counting the part's tensors against the whole's.
    """
    whole = origin(model)
    if whole is not None:
        return (whole.parent(),)
    found: dict[str, int] = {}
    for part in _parts(model):
        known = origin(part)
        if known is not None:
            found[known.id] = found.get(known.id, 0) + len(part.state_dict())
    total = len(model.state_dict()) if found else 0  # type: ignore[attr-defined]
    return tuple(Parent(each, "restore", f"{count}/{total}") for each, count in found.items())


def _parts(model: object) -> Iterable[Any]:
    return model.modules() if hasattr(model, "modules") and hasattr(model, "state_dict") else ()


def forget(model: object) -> None:
    """Forget where the weights of an object and its submodules came from, as training changes them."""
    for each in (model, *_parts(model)):
        _origins.pop(id(each), None)


def by_content(store: VersionStore, weights: State) -> Parent | None:
    """Find the version that weights came from: an equal one, else the one that shares most tensors with them.

    Looked at are the versions with aliases, and the newest and the best of the newest runs. Tiny tensors and
    those of one constant (biases of 0, norms of 1, counters) are the same in any two models.

    Args:
        store: The store.
        weights: The weights.

    Returns:
        The parent with ``how="content"`` and ``shared``, or None.
    """
    digests = _digests(weights)
    entries = [(name, each.dtype, each.shape, digests[name]) for name, each in weights.tensors.items()]
    equal = store.find_by_weights(weights_digest(entries))
    if equal is not None:
        return Parent(equal.id, "content", f"{len(entries)}/{len(entries)}")
    telling = {digests[name] for name, each in weights.tensors.items() if _tells(each)}
    best: tuple[int, str, str] | None = None
    for version_id in _candidates(store):
        with suppress(PrunedVersion):
            theirs = {digest for _, _, digest in store.entries(version_id).values()}
            count = len(telling & theirs)
            if count and (best is None or count > best[0]):
                shared = sum(digest in theirs for digest in digests.values())
                best = (count, version_id, f"{shared}/{len(entries)}")
    return Parent(best[1], "content", best[2]) if best is not None else None


def _digests(weights: State) -> dict[str, str]:
    known: dict[int, str] = {}  # tied names have the very same tensor
    for each in weights.tensors.values():
        if id(each) not in known:
            known[id(each)] = each.digest()
    return {name: known[id(each)] for name, each in weights.tensors.items()}


def _candidates(store: VersionStore) -> Iterable[str]:
    """Go through versions that are worth a look, each once, newest runs first."""
    seen: set[str] = set()
    runs = store.newest_runs(NEWEST_RUNS)
    for version_id in [*store.aliases().values(), *runs.values(), *_bests(store, runs)]:
        if version_id not in seen:
            seen.add(version_id)
            yield version_id


def _bests(store: VersionStore, runs: Iterable[str]) -> Iterable[str]:
    for run in runs:
        with suppress(UnknownRef, AmbiguousRef):  # a run that watched nothing has no best
            yield store.get(f"{run}/best").id


def _tells(tensor: Tensor) -> bool:
    # Bytes with a period of 8 cover every constant of an item size that divides 8.
    data, size = tensor.data, tensor.nbytes
    return size >= TELLING_BYTES and data[8:] != data[: size - 8]
