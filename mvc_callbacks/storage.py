"""Storage: what each run takes of a store's disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from mvc_callbacks.errors import CorruptRecord, MissingObject
from mvc_callbacks.layout import Layout
from mvc_callbacks.objects import Suffix
from mvc_callbacks.versions import Version

__all__ = ["RunStorage", "disk_bytes", "storage"]


@dataclass(frozen=True, slots=True)
class RunStorage:
    """What a run takes of the disk, in bytes.

    Attributes:
        run: Its label.
        versions: Number of versions.
        kept: Number of versions that still have their weights.
        logical_bytes: Of the weights and states that it still has, as if each version had files of its own.
        held_bytes: Of the objects that its versions need, each counted once.
        own_bytes: Of those that no other run needs: what would be free without it.
    """

    run: str
    versions: int
    kept: int
    logical_bytes: int
    held_bytes: int
    own_bytes: int


def storage(layout: Layout, versions: Iterable[Version]) -> list[RunStorage]:
    """Tell what each run takes.

    Args:
        layout: The store.
        versions: All of its versions, oldest first.

    Returns:
        One for each run, in the order of their first versions. What cannot be read is not counted; ``verify``
        tells of it.
    """
    runs: dict[str, list[Version]] = {}
    for version in versions:
        runs.setdefault(version.run, []).append(version)
    sizes = {(digest, suffix): size for digest, suffix, size in layout.objects.all()}
    needed = {run: _needed(layout, mine) & sizes.keys() for run, mine in runs.items()}
    users = Counter(each for mine in needed.values() for each in mine)
    return [
        RunStorage(
            run=run,
            versions=len(mine),
            kept=sum(each.has_weights for each in mine),
            logical_bytes=sum(map(_logical, mine)),
            held_bytes=sum(sizes[each] for each in needed[run]),
            own_bytes=sum(sizes[each] for each in needed[run] if users[each] == 1),
        )
        for run, mine in runs.items()
    ]


def disk_bytes(layout: Layout) -> int:
    """Return the bytes of all objects."""
    return sum(size for _, _, size in layout.objects.all())


def _logical(version: Version) -> int:
    state = version.training_state.bytes if version.training_state and version.has_training_state else 0
    return (version.weights.bytes if version.has_weights else 0) + state


def _needed(layout: Layout, versions: Iterable[Version]) -> set[tuple[str, Suffix]]:
    manifests: dict[str, None] = {}
    found: set[tuple[str, Suffix]] = set()
    for version in versions:
        found |= {(each.listing, ".jsonl") for each in version.data.values() if each.listing}
        if version.has_weights:
            manifests[version.weights.digest] = None
            found |= {(version.weights.additions, ".json")} if version.weights.additions else set()
        if version.training_state is not None and version.has_training_state:
            manifests[version.training_state.digest] = None
            found.add((version.training_state.tree, ".json"))
    for digest in manifests:
        with suppress(MissingObject, CorruptRecord):
            found |= {(each, ".safetensors") for each in layout.manifests.read(digest).objects}
    return found
