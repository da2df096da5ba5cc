"""Writing a state: hash its tensors, store those that are missing, tell where they lie."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from mvc_callbacks.errors import CorruptRecord, MissingObject, UnsafeFile, UnsupportedFormat
from mvc_callbacks.layout import Layout
from mvc_callbacks.manifests import Entry, Manifest
from mvc_callbacks.packs import pack_header
from mvc_callbacks.tensors import State, Tensor, weights_digest

__all__ = ["Written", "write_state"]

# From here on a tensor is an object of its own. Measured: below, the file's own costs outweigh what sharing saves.
LARGE = 4 * 1024 * 1024
_BATCH = 64
_THREADS = max(2, min(8, os.cpu_count() or 2))


@dataclass(slots=True)
class Written:
    """What became of a state.

    Attributes:
        manifest: Where its tensors lie.
        bytes: Bytes of objects that were not there before.
        reused: Objects that were there before.
    """

    manifest: Manifest
    bytes: int = 0
    reused: set[str] = field(default_factory=set)


def write_state(layout: Layout, state: State, previous: Manifest | None) -> Written:
    """Store a state durably, and its manifest.

    Args:
        layout: The store.
        state: Named tensors.
        previous: The state that the run's last version had here: its small tensors are referred to where they lie,
            and its manifest may be the base of this one's.

    Returns:
        What was written.

    Raises:
        OSError: If the disk refuses; what was written until then is not referred to by anything.
    """
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="mvc-write") as pool:
        named = _digests(state, pool)
        by_digest = {named[name]: tensor for name, tensor in state.tensors.items()}
        shapes = ((name, tensor.dtype, tensor.shape, named[name]) for name, tensor in state.tensors.items())
        digest = weights_digest(shapes)
        existing = _existing(layout, digest)
        place = _known_places(layout, (existing, previous), by_digest)
        written = Written(Manifest(digest, ()))
        large = [each for each, tensor in by_digest.items() if tensor.nbytes >= LARGE and each not in place]
        packs = list(_packs(state, named, by_digest, place))
        fresh = set()
        puts = [pool.submit(_put_one, layout, each, by_digest[each]) for each in large]
        puts += [
            pool.submit(layout.objects.put, name, chunks, sum(map(len, chunks))) for name, _, chunks in packs
        ]
        for name, put in zip([*large, *(name for name, _, _ in packs)], puts, strict=True):
            size = put.result()
            written.bytes += size
            if size:
                fresh.add(name)
    place.update({each: each for each in large})
    place.update({key: name for name, keys, _ in packs for key in keys})
    layout.objects.sync(fresh)
    written.manifest = Manifest(
        digest,
        tuple(
            Entry(name, tensor.dtype, tensor.shape, named[name], place[named[name]], state.labels.get(name))
            for name, tensor in state.tensors.items()
        ),
    )
    written.reused = set(written.manifest.objects - fresh)
    if existing is not None and not large and not packs:
        layout.manifests.sync(digest)
        written.manifest = Manifest(digest, written.manifest.entries, existing.base)
    else:
        # A manifest that others may refer to is never made to refer to a third.
        base = None if existing is not None else _base(layout, previous)
        written.manifest = layout.manifests.write(written.manifest, base)
    return written


def _digests(state: State, pool: ThreadPoolExecutor) -> dict[str, str]:
    """Hash every tensor once, the small ones in batches: a task of its own costs more than a small tensor."""
    unique = {id(tensor): tensor for tensor in state.tensors.values()}
    large = [tensor for tensor in unique.values() if tensor.nbytes >= LARGE]
    small = [tensor for tensor in unique.values() if tensor.nbytes < LARGE]
    batches = [small[at : at + _BATCH] for at in range(0, len(small), _BATCH)]
    tasks = [(batch, pool.submit(_hash_all, batch)) for batch in [*([each] for each in large), *batches]]
    digests = {
        id(tensor): digest
        for batch, task in tasks
        for tensor, digest in zip(batch, task.result(), strict=True)
    }
    return {name: digests[id(tensor)] for name, tensor in state.tensors.items()}


def _hash_all(tensors: Iterable[Tensor]) -> list[str]:
    return [tensor.digest() for tensor in tensors]


def _existing(layout: Layout, digest: str) -> Manifest | None:
    """Return the manifest of the very same state, if there is one that can be believed."""
    try:
        return layout.manifests.read(digest)
    except (MissingObject, CorruptRecord, UnsafeFile, UnsupportedFormat):
        return None


def _known_places(
    layout: Layout, manifests: Iterable[Manifest | None], by_digest: Mapping[str, Tensor]
) -> dict[str, str]:
    """Tell where tensors of the state lie already, by the same state elsewhere or the run's last version."""
    known: dict[str, str] = {}
    for manifest in manifests:
        for entry in manifest.entries if manifest is not None else ():
            if entry.digest in by_digest:
                known.setdefault(entry.digest, entry.object)
    there = {place: layout.objects.is_there(place) for place in set(known.values())}
    return {digest: place for digest, place in known.items() if there[place]}


def _put_one(layout: Layout, digest: str, tensor: Tensor) -> int:
    header = tensor.header()
    return layout.objects.put(digest, [header, tensor.data], len(header) + tensor.nbytes)


def _packs(
    state: State, named: Mapping[str, str], by_digest: Mapping[str, Tensor], place: Mapping[str, str]
) -> Iterator[tuple[str, list[str], list[bytes | memoryview]]]:
    """Put the small tensors that lie nowhere into packs: one that trains, one frozen, one of buffers."""
    taken = set(place)
    # A tensor that is in two groups goes with the one that changes least.
    for group in ("frozen", "buffer", "train"):
        keys = {
            digest
            for name, digest in named.items()
            if by_digest[digest].nbytes < LARGE
            and digest not in taken
            and state.groups.get(name, "train") == group
        }
        if not keys:
            continue
        taken |= keys
        header, ordered = pack_header((key, by_digest[key]) for key in keys)
        chunks: list[bytes | memoryview] = [header, *(tensor.data for _, tensor in ordered)]
        digest = hashlib.sha256()
        for chunk in chunks:
            digest.update(chunk)
        yield digest.hexdigest(), sorted(keys), chunks


def _base(layout: Layout, previous: Manifest | None) -> Manifest | None:
    """Return the manifest that a new one may refer to: the last version's, or the one which that refers to."""
    if previous is None or previous.base is None:
        return previous
    return layout.manifests.read(previous.base)
