"""Fingerprints: what data is behind a loader, a dataset, a path or an array, and how it was obtained."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any, overload

from mvc_callbacks.plans import SCHEME, Computed, Plan, Progress
from mvc_callbacks.progress import progress_bar
from mvc_callbacks.sources import Finder
from mvc_callbacks.sources_attributes import attributes, is_composite
from mvc_callbacks.sources_files import Names
from mvc_callbacks.sources_loaders import loaders_of
from mvc_callbacks.versions import Fingerprint

__all__ = ["SCHEME", "Computed", "Plan", "Progress", "fingerprint_data", "gather", "plan"]

EARLY = 64 * 1024 * 1024
"""Arrays of up to so many bytes together are hashed at once, because training may change them."""


@overload
def fingerprint_data(
    source: Mapping[str, Any],
    *,
    progress: Progress | None = ...,
    cache: bool = ...,
    largest: int | None = ...,
) -> dict[str, Fingerprint]: ...


@overload
def fingerprint_data(
    source: Any,
    *,
    progress: Progress | None = ...,
    cache: bool = ...,
    largest: int | None = ...,
) -> Fingerprint: ...


def fingerprint_data(
    source: Any,
    *,
    progress: Progress | None = None,
    cache: bool = True,
    largest: int | None = None,
) -> Fingerprint | dict[str, Fingerprint]:
    """Return the fingerprint of data, without iterating it.

    Args:
        source: A path, a glob, a list of them, a DataLoader, a dataset, an array or tensor; or a dict of
            such, such as ``{"train": …, "val": …}``.
        progress: Called now and then with the number of files and bytes done. In a notebook, work that takes
            longer than a second shows them by itself.
        cache: Whether files that have not changed since they were last hashed are believed.
        largest: Files of more bytes than this are told as not hashed.

    Returns:
        The fingerprint; for a dict, one for each key. Data that cannot be found has the coverage ``none`` or
        ``opaque`` and no digest.
    """

    def one(each: Any) -> Fingerprint:
        with progress_bar("hashing the data", progress, counted=True) as told:
            computed = plan(each).compute(progress=told, cache="files" if cache else None, largest=largest)
        if computed.listing is not None:
            computed.listing.close()
        return computed.fingerprint

    if isinstance(source, dict):
        return {str(name): one(each) for name, each in source.items()}
    return one(source)


def plan(source: Any, *, declared: bool = False) -> Plan:
    """Look at a source, so that it can be hashed later and on another thread.

    This is quick: lists are looked at by their first items only, and folders not at all. Small arrays are
    hashed here, because training may change them.

    Args:
        source: As for `fingerprint_data`.
        declared: Whether the user named it (``data=``), rather than that it was found.
    """
    finder = Finder(os.getcwd())  # noqa: PTH109 - a later change of folder must not change what is hashed
    finder.declare(source)
    budget = EARLY
    for part in finder.parts:
        if part.kind == "array" and part.size <= budget:
            budget -= part.size
            try:
                part.early = part.make(Names(), _go_on)
            except Exception:
                continue  # told when it is computed
    return Plan(finder, declared)


def gather(loaders: Mapping[str, Any], *, declared: bool = False) -> dict[str, Plan]:
    """Plan each of the loaders of a fit.

    Args:
        loaders: ``train``, ``val``, … to a loader, a list or dict of loaders, Lightning's CombinedLoader, or
            None.
        declared: Whether the user named them; lists are then lists of paths.

    Returns:
        Name to plan: ``train``, or ``train.0``, ``train.1`` and ``val.images`` where there are several.
    """
    planned = {}
    for name, each in loaders.items():
        for full, source in [(name, each)] if declared else _flat(name, each, 0):
            if source is not None:
                planned[full] = plan(source, declared=declared)
    return planned


def _flat(name: str, value: Any, depth: int) -> Iterator[tuple[str, Any]]:
    inside = attributes(value)
    combined = loaders_of(inside)
    value = value if combined is None else combined
    pairs: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        pairs = list(value.items())
    elif isinstance(value, (list, tuple)):
        pairs = list(enumerate(value))
    if depth > 8 or not pairs or not all(_is_loader(each) for _, each in pairs):
        yield name, value
    elif len(pairs) == 1 and not isinstance(value, dict):
        yield from _flat(name, pairs[0][1], depth + 1)
    else:
        for key, each in pairs:
            yield from _flat(f"{name}.{key}", each, depth + 1)


def _is_loader(value: Any) -> bool:
    if isinstance(value, dict):
        return all(_is_loader(each) for each in value.values())
    if isinstance(value, (list, tuple)):
        return bool(value) and all(_is_loader(each) for each in value)
    return is_composite(value) or loaders_of(attributes(value)) is not None


def _go_on() -> None:
    """Check nothing: what is hashed here is small."""
