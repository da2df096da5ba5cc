"""Writing a state: hash its tensors, store those that are missing, tell where they lie."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Set
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

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
from mvc_callbacks.objects import Staged
from mvc_callbacks.packs import SINGLE, Place, pack_header, parse_header
from mvc_callbacks.tensors import State, Tensor, stored_form, weights_digest

__all__ = ["Written", "header_if_whole", "holds", "is_whole", "write_state"]

# From here on a tensor is an object of its own. Measured: below, the costs of a file outweigh those of the
# second hash.
LARGE = 2 * 1024 * 1024
_BATCH = 64
_BATCH_BYTES = 1024 * 1024
_LARGEST_PACK = 50_000  # tensors; readers accept twice as many
_PACK_BYTES = 32 * 1024 * 1024  # a pack is hashed and written by one thread: several share larger ones
_CORES = max(2, min(16, os.cpu_count() or 2))
_THREADS = 4 * _CORES  # they wait for the disk, mostly; measured
_GROUPS = ("frozen", "buffer", "train")
_Key = TypeVar("_Key", int, str)


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
    layout: Layout,
    state: State,
    previous: Manifest | None,
    *,
    safe: list[int] | None = None,
    cached: bool = True,
) -> Written:
    """Store a state durably, and its manifest.

    Args:
        layout: The store.
        state: Named tensors.
        previous: The state that the run's last version had here: its small tensors are referred to where they
            lie, and its manifest may be the base of this one's.
        safe: Gets the bytes of tensors as they are stored, or found to be.
        cached: Whether it will be read soon; otherwise it does not push other files, such as the training
            data, out of the system's memory.

    Returns:
        What was written.

    Raises:
        OSError: If the disk refuses; what was written until then is not referred to by anything.
    """
    with (
        ThreadPoolExecutor(_CORES, thread_name_prefix="mvc-hash") as hashing,
        ThreadPoolExecutor(_THREADS, thread_name_prefix="mvc-write") as pool,
        _Objects(layout, state, previous, pool, [] if safe is None else safe, cached) as objects,
        _given_up_at_once(hashing, pool),
    ):
        named = objects.hash_and_put(hashing)
        shapes = ((name, tensor.dtype, tensor.shape, named[name]) for name, tensor in state.tensors.items())
        digest = weights_digest(shapes)
        existing = _existing(layout, digest)
        place, sizes = objects.finish(named, existing)
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


@contextlib.contextmanager
def _given_up_at_once(*pools: Executor) -> Iterator[None]:
    """Begin nothing any more after an error or a second Ctrl-C, neither of which should wait for it.

    No thread is left then to write a tensor that training changes again.
    """
    try:
        yield
    except BaseException:
        for pool in pools:
            pool.shutdown(wait=False, cancel_futures=True)
        raise


class _Objects:
    """The objects of one state in the making: some are written while other tensors are hashed.

    Tensors are hashed in a fixed order: the small ones first, as their packs are hashed once more. As soon as
    all tensors of a segment have their digests, and as soon as a large one has its own, a file is written of
    it; that of a segment waits in the staging folder until it is known that the very same state does not lie
    elsewhere already.

    Args:
        layout: The store.
        state: The tensors.
        previous: The state before.
        pool: Where files are written.
        safe: Gets the bytes of tensors that are stored.
        cached: Whether they will be read soon.
    """

    def __init__(
        self,
        layout: Layout,
        state: State,
        previous: Manifest | None,
        pool: Executor,
        safe: list[int],
        cached: bool,
    ) -> None:
        self._layout = layout
        self._state = state
        self._previous = previous
        self._pool = pool
        self._safe = safe
        self._cached = cached
        self._by_digest: dict[str, Tensor] = {}
        self._large: dict[str, Future[int]] = {}
        self._packs: list[tuple[list[str], Future[Staged]]] = []

    def __enter__(self) -> _Objects:
        return self

    def __exit__(self, *_: object) -> None:
        for _keys, pack in self._packs:
            if not pack.cancelled() and pack.exception() is None:  # waits
                with contextlib.suppress(OSError):  # a prune sweeps it
                    pack.result().discard()  # what is staged and was not adopted is of no use

    def hash_and_put(self, hashing: Executor) -> dict[str, str]:
        """Hash every tensor once and begin to write; return name to digest."""
        unique = {id(tensor): tensor for tensor in self._state.tensors.values()}
        large = [tensor for tensor in unique.values() if tensor.nbytes >= LARGE]
        large.sort(key=lambda tensor: -tensor.nbytes)  # so that no long one is begun when others are done
        segments = [
            # A task of its own costs more than a small tensor.
            [(batch, hashing.submit(_hash_all, batch)) for batch in _cut(segment, _BATCH, _BATCH_BYTES)]
            for segment in self._segments(unique)
        ]
        tasks = [(tensor, hashing.submit(_hash_all, [tensor])) for tensor in large]
        known = {entry.digest for entry in self._previous.entries} if self._previous is not None else set()
        digests: dict[int, str] = {}
        for batches in segments:
            fresh: list[str] = []
            for batch, task in batches:
                for small, digest in zip(batch, task.result(), strict=True):
                    digests[id(small)] = digest
                    if self._is_first(digest, small):
                        fresh.append(digest)
            if fresh and known.isdisjoint(fresh):
                self._begin_pack(fresh)
        for tensor, task in tasks:
            (digest,) = task.result()
            digests[id(tensor)] = digest
            if self._is_first(digest, tensor):
                self._large[digest] = self._pool.submit(self._put_large, digest, tensor)
        return {name: digests[id(tensor)] for name, tensor in self._state.tensors.items()}

    def _segments(self, unique: Mapping[int, Tensor]) -> Iterator[list[Tensor]]:
        """Divide the small tensors: those that are frozen, buffers, those that train; and by size."""
        small = {name: id(each) for name, each in self._state.tensors.items() if each.nbytes < LARGE}
        for keys in self._by_group(small, frozenset()):
            yield from _cut([unique[key] for key in keys], _LARGEST_PACK, _PACK_BYTES)

    def _by_group(self, keys: Mapping[str, _Key], taken: Set[_Key]) -> Iterator[list[_Key]]:
        """Divide what names stand for, each once: one that is in two groups goes with what changes least."""
        gone = set(taken)
        for group in _GROUPS:
            names = (name for name in keys if self._state.groups.get(name, "train") == group)
            found = list(dict.fromkeys(keys[name] for name in names if keys[name] not in gone))
            gone.update(found)
            yield found

    def _is_first(self, digest: str, tensor: Tensor) -> bool:
        """Tell whether a tensor is the first with its digest: of equal ones one is written."""
        return self._by_digest.setdefault(digest, tensor) is tensor

    def _put_large(self, digest: str, tensor: Tensor) -> int:
        header = tensor.header()
        size = len(header) + tensor.nbytes
        return self._layout.objects.put(digest, [header, tensor.data], size, cached=self._cached)

    def _begin_pack(self, keys: list[str]) -> None:
        self._packs.append((keys, self._pool.submit(self._stage_pack, keys)))

    def _stage_pack(self, keys: list[str]) -> Staged:
        header, ordered = pack_header((key, self._by_digest[key]) for key in keys)
        chunks: list[bytes | memoryview] = [header, *(tensor.data for _, tensor in ordered)]
        digest = hashlib.sha256()
        for chunk in files.gathered(chunks):
            digest.update(chunk)
        size = sum(map(len, chunks))
        return self._layout.objects.stage(digest.hexdigest(), chunks, size, cached=self._cached)

    def finish(
        self, named: Mapping[str, str], existing: Manifest | None
    ) -> tuple[dict[str, str], dict[str, int]]:
        """Write what is not written yet, and give the objects their names.

        Args:
            named: Name to digest.
            existing: The manifest of the very same state, if there is one.

        Returns:
            Digest to object, and object to the bytes written, for all but those that lay there before.
        """
        place = _known_places(self._layout, existing, self._previous, self._by_digest, self._pool)
        place.update({each: each for each in self._large})
        begun = {key for keys, _ in self._packs for key in keys}
        for keys in self._left(named, place.keys() | begun):
            self._begin_pack(keys)
        sizes = {}
        for digest, put in self._large.items():
            sizes[digest] = put.result()
            self._safe.append(self._by_digest[digest].nbytes)
        for keys, pack in self._packs:
            needed = [key for key in keys if key not in place]
            if needed:
                staged = pack.result()
                sizes[staged.digest] = staged.adopt()
                place.update(dict.fromkeys(needed, staged.digest))
            self._safe.append(sum(self._by_digest[key].nbytes for key in keys))
        return place, sizes

    def _left(self, named: Mapping[str, str], taken: Set[str]) -> Iterator[list[str]]:
        """Go through the digests that lie nowhere, by the packs that they should come into."""
        for found in self._by_group(named, taken):
            digests = {id(self._by_digest[key]): key for key in sorted(found)}
            tensors = [self._by_digest[key] for key in digests.values()]
            for part in _cut(tensors, _LARGEST_PACK, _PACK_BYTES):
                yield [digests[id(tensor)] for tensor in part]


def _cut(tensors: list[Tensor], most: int, size: int) -> Iterator[list[Tensor]]:
    """Go through so many tensors at a time, and so many bytes, but at least one."""
    part: list[Tensor] = []
    taken = 0
    for tensor in tensors:
        if part and (len(part) == most or taken + tensor.nbytes > size):
            yield part
            part, taken = [], 0
        part.append(tensor)
        taken += tensor.nbytes
    if part:
        yield part


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


def _base(layout: Layout, previous: Manifest | None) -> Manifest | None:
    """Return the manifest that a new one may refer to: the last version's, or the one which that refers to.

    Either may have gone with its version, when that was pruned; then there is none.
    """
    if previous is None:
        return None
    base = _existing(layout, previous.base or previous.digest)
    return base if base is not None and base.base is None else None
