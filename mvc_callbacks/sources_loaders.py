"""Loaders: the datasets that they draw from, and what their samplers select."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mvc_callbacks.sources_attributes import attributes
from mvc_callbacks.sources_values import array_digest, is_array

if TYPE_CHECKING:
    from mvc_callbacks.sources import Finder

__all__ = ["find", "loaders_of"]


def loaders_of(found: Mapping[str, Any]) -> Any:
    """Return what Lightning's CombinedLoader combines, by its attributes; None for anything else."""
    return found["_iterables"] if "_iterables" in found and "_flattened" in found else None


def find(finder: Finder, found: Mapping[str, Any], place: tuple[str, ...], selected: bool) -> bool:
    """Look behind a loader; tell whether it is one.

    Args:
        finder: Takes what is found.
        found: The loader's attributes.
        place: Where it is in the source.
        selected: Whether a selection by index is made above it.
    """
    combined = loaders_of(found)
    if combined is not None:
        finder.find(combined, place, selected=selected)
        return True
    if "dataset" in found and ("batch_sampler" in found or "collate_fn" in found):
        chosen = _sampler(finder, found, place)
        finder.find(found["dataset"], place, selected=selected or chosen)
        return True
    return False


def _sampler(finder: Finder, found: Mapping[str, Any], place: tuple[str, ...]) -> bool:
    """Take what a loader's sampler selects, which is not the order that it draws; tell whether it selects."""
    # With a batch sampler of one's own, the loader's own sampler is a default that is not used.
    sampler = attributes(found.get("batch_sampler")).get("sampler", found.get("sampler"))
    if isinstance(sampler, (list, tuple, range)):
        finder.say("a list of indices as sampler")
        finder.add_indices(place, sampler, kind="sampler")
        return True
    inside, kind = attributes(sampler), type(sampler).__name__
    if "indices" in inside:
        finder.say(f"indices of {kind}")
        finder.add_indices(place, inside["indices"], kind="sampler", ordered=kind != "SubsetRandomSampler")
        return True
    weights = inside.get("weights")
    if is_array(weights):
        finder.say(f"weights of {kind}")
        finder.add_part(place, "weights", lambda names, check: array_digest(weights))
        return True
    return False
