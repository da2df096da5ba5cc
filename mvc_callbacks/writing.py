"""Writing a state: hash its tensors, store those that are missing, tell where they lie."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass

from mvc_callbacks import files
from mvc_callbacks.errors import (
    CorruptObject,
    CorruptRecord,
    MissingObject,
    UnsafeFile,
    UnsupportedFormat,
)
from mvc_callbacks.layout import Layout
from mvc_callbacks.manifests import Entry, Manifest
from mvc_callbacks.packs import SINGLE, Place, pack_header, parse_header
from mvc_callbacks.tensors import State, Tensor, stored_form, weights_digest

__all__ = ["Written", "header_if_whole", "holds", "is_whole", "write_state"]

# From here on a tensor is an object of its own. Measured: below, the file's own costs outweigh what sharing
# saves.
LARGE = 4 * 1024 * 1024
_BATCH = 64
_LARGEST_PACK = 50_000  # tensors; readers accept twice as many
_PACK_BYTES = 128 * 1024 * 1024  # a pack is hashed and written by one thread: several share larger ones
# Twice the cores: half of them wait for the disk.
_THREADS = max(4, min(16, 2 * (os.cpu_count() or 2)))


@dataclass(slots=True)
class Written:
    """What became of a state.

    Attributes:
        manifest: Where its tensors lie.
        bytes: Bytes of objects that were not there before.
    """

    manifest: Manifest
    bytes: int = 0


def write_state(
    layout: Layout, state: State, previous: Manifest | None, *, safe: list[int] | None = None
) -> Written:
    """Store a state durably, and its manifest.

    Args:
        layout: The store.
        state: Named tensors.
        previous: The state that the run's last version had here: its small tensors are referred to where they
            lie, and its manifest may be the base of this one's.
        safe: Gets the bytes of tensors as they are stored, or found to be.

    Returns:
        What was written.

    Raises:
        OSError: If the disk refuses; what was written until then is not referred to by anything.
    """
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="mvc-write") as pool:
        safe = [] if safe is None else safe
        named, sizes = _hash_and_put(layout, state, pool, safe)
        by_digest = {named[name]: tensor for name, tensor in state.tensors.items()}
        shapes = ((name, tensor.dtype, tensor.shape, named[name]) for name, tensor in state.tensors.items())
        digest = weights_digest(shapes)
        existing = _existing(layout, digest)
        place = _known_places(layout, existing, previous, by_digest, pool)
        place.update({each: each for each in sizes})
        packs = list(_packs(state, named, by_digest, place))
        puts = [pool.submit(_put_pack, layout, keys, by_digest) for keys in packs]
        for keys, put in zip(packs, puts, strict=True):
            name, sizes[name] = put.result()
            place.update(dict.fromkeys(keys, name))
            safe.append(sum(by_digest[key].nbytes for key in keys))
        entries = tuple(
            Entry(name, tensor.dtype, tensor.shape, named[name], place[named[name]], state.labels.get(name))
            for name, tensor in state.tensors.items()
        )
        manifest = Manifest(digest, entries, None if existing is None else existing.base)
        # Another run may have written an object a moment ago and not have made its name durable yet. What
        # this run's last version relies on is durable, but for what was healed just now.
        known = previous.objects if previous is not None else frozenset()
        fresh = {name for name, size in sizes.items() if size}
        layout.objects.sync((manifest.objects - known) | fresh, pool)
    written = Written(manifest, sum(sizes.values()))
    if existing is not None and all(place[entry.digest] == entry.object for entry in existing.entries):
        layout.manifests.sync(digest)
    else:
        # A manifest that others may refer to is never made to refer to a third.
        base = None if existing is not None else _base(layout, previous)
        written.manifest = layout.manifests.write(written.manifest, base)
    return written


def _hash_and_put(
    layout: Layout, state: State, pool: Executor, safe: list[int]
) -> tuple[dict[str, str], dict[str, int]]:
    """Hash every tensor once, and store the large ones at once: some are written while others are hashed.

    Args:
        layout: The store.
        state: The tensors.
        pool: Where it is done.
        safe: Gets the bytes of large tensors.

    Returns:
        Name to digest, and the bytes written by the digest of every object that holds one large tensor.
    """
    unique = {id(tensor): tensor for tensor in state.tensors.values()}
    small = [tensor for tensor in unique.values() if tensor.nbytes < LARGE]
    large = [tensor for tensor in unique.values() if tensor.nbytes >= LARGE]
    large.sort(key=lambda tensor: -tensor.nbytes)  # so that no long one is begun when others are done
    sizes: dict[str, int] = {}
    owners: dict[str, int] = {}  # of equal tensors one is written

    def hash_and_put(tensors: list[Tensor]) -> list[str]:
        (tensor,) = tensors
        digest = tensor.digest()
        if owners.setdefault(digest, id(tensor)) == id(tensor):
            header = tensor.header()
            size = len(header) + tensor.nbytes
            sizes[digest] = layout.objects.put(digest, [header, tensor.data], size)
        safe.append(tensor.nbytes)
        return [digest]

    # A task of its own costs more than a small tensor.
    batches = [small[at : at + _BATCH] for at in range(0, len(small), _BATCH)]
    tasks = [(batch, pool.submit(_hash_all, batch)) for batch in batches]
    tasks += [([tensor], pool.submit(hash_and_put, [tensor])) for tensor in large]
    digests = {
        id(tensor): digest
        for batch, task in tasks
        for tensor, digest in zip(batch, task.result(), strict=True)
    }
    return {name: digests[id(tensor)] for name, tensor in state.tensors.items()}, sizes


def _hash_all(tensors: list[Tensor]) -> list[str]:
    return [tensor.digest() for tensor in tensors]


def _existing(layout: Layout, digest: str) -> Manifest | None:
    """Return the manifest of the very same state, if there is one that can be believed."""
    try:
        return layout.manifests.read(digest)
    except (MissingObject, CorruptRecord, UnsafeFile, UnsupportedFormat):
        return None


def _known_places(
    layout: Layout,
    existing: Manifest | None,
    previous: Manifest | None,
    by_digest: Mapping[str, Tensor],
    pool: Executor,
) -> dict[str, str]:
    """Tell where tensors of the state lie already, by the same state elsewhere or the run's last version.

    A pack of the last version of which less than half is still of use is not referred to: what is of use is
    written again, so that the rest goes with the version that needs it.
    """
    known: dict[str, list[Entry]] = {}
    for manifest in (existing, previous):
        for entry in manifest.entries if manifest is not None else ():
            if entry.digest in by_digest:
                known.setdefault(entry.digest, []).append(entry)
    places = list({entry.object for each in known.values() for entry in each})
    headers = dict(zip(places, pool.map(lambda place: header_if_whole(layout, place), places), strict=True))
    found: dict[str, str] = {}
    for digest, each in known.items():
        for entry in each:
            if digest not in found and holds(headers[entry.object], entry):
                found[digest] = entry.object
    same = {entry.object for entry in existing.entries} if existing is not None else set()
    used: Counter[str] = Counter()
    for digest, place in found.items():
        used[place] += by_digest[digest].nbytes
    left = {place for place in used if place not in same and 2 * used[place] < _bytes_in(headers[place])}
    return {digest: place for digest, place in found.items() if place not in left}


def header_if_whole(layout: Layout, digest: str) -> Mapping[str, Place] | None:
    """Return what an object of tensors holds, None where it is missing or not as long as its header says.

    Its bytes are not hashed. A file that was cut, emptied or zeroed holds nothing: the next save of its
    tensors heals it.
    """
    path = layout.objects.path_of(digest)
    try:
        data = files.map_file(path)
        header = parse_header(data, len(data), what=str(path))
    except (MissingObject, UnsafeFile, CorruptObject):
        return None
    return None if SINGLE in header and len(header) > 1 else header


def holds(header: Mapping[str, Place] | None, entry: Entry) -> bool:
    """Tell whether an object with this header has the tensor that a manifest looks for in it.

    A manifest is believed for what its digest covers, and where a tensor lies is no part of that.
    """
    place = (header or {}).get(SINGLE if entry.object == entry.digest else entry.digest)
    return place is not None and (place.dtype, place.shape) == stored_form(entry.dtype, entry.shape)


def _bytes_in(header: Mapping[str, Place] | None) -> int:
    return sum(place.end - place.start for place in (header or {}).values())


def is_whole(layout: Layout, digest: str) -> bool:
    """Tell whether the manifest of a state can be read, and every tensor be found where it says."""
    manifest = _existing(layout, digest)
    if manifest is None:
        return False
    headers = {each: header_if_whole(layout, each) for each in manifest.objects}
    return all(holds(headers[entry.object], entry) for entry in manifest.entries)


def _packs(
    state: State, named: Mapping[str, str], by_digest: Mapping[str, Tensor], place: Mapping[str, str]
) -> Iterator[list[str]]:
    """Put the tensors that lie nowhere into packs: those that train, the frozen ones, buffers."""
    taken = set(place)
    # A tensor that is in two groups goes with the one that changes least.
    for group in ("frozen", "buffer", "train"):
        keys = {
            digest
            for name, digest in named.items()
            if digest not in taken and state.groups.get(name, "train") == group
        }
        taken |= keys
        yield from _split(sorted(keys), by_digest)


def _split(keys: list[str], by_digest: Mapping[str, Tensor]) -> Iterator[list[str]]:
    """Go through so many keys at a time that their pack is not too large."""
    pack: list[str] = []
    size = 0
    for key in keys:
        if pack and (len(pack) == _LARGEST_PACK or size + by_digest[key].nbytes > _PACK_BYTES):
            yield pack
            pack, size = [], 0
        pack.append(key)
        size += by_digest[key].nbytes
    if pack:
        yield pack


def _put_pack(layout: Layout, keys: list[str], by_digest: Mapping[str, Tensor]) -> tuple[str, int]:
    """Store a pack; return its name and the bytes written."""
    header, ordered = pack_header((key, by_digest[key]) for key in keys)
    chunks: list[bytes | memoryview] = [header, *(tensor.data for _, tensor in ordered)]
    digest = hashlib.sha256()
    for chunk in files.gathered(chunks):
        digest.update(chunk)
    name = digest.hexdigest()
    return name, layout.objects.put(name, chunks, sum(map(len, chunks)))


def _base(layout: Layout, previous: Manifest | None) -> Manifest | None:
    """Return the manifest that a new one may refer to: the last version's, or the one which that refers to.

    Either may have gone with its version, when that was pruned; then there is none.
    """
    if previous is None:
        return None
    base = _existing(layout, previous.base or previous.digest)
    return base if base is not None and base.base is None else None
