"""Reading a state back: everything is verified first, and only then handed out."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mvc_callbacks.canonical import decode
from mvc_callbacks.errors import CorruptObject, MissingObject, MVCError
from mvc_callbacks.layout import Layout
from mvc_callbacks.manifests import Entry, Manifest
from mvc_callbacks.packs import SINGLE, parse_header, tensor_at
from mvc_callbacks.progress import Progress
from mvc_callbacks.tensors import Tensor, item_size

__all__ = ["damaged_in", "read_state", "read_tree"]

_LARGEST_TREE = 256 * 1024 * 1024
_BATCH_BYTES = 8 * 1024 * 1024


def read_state(
    layout: Layout, manifest: Manifest, *, verify: bool = True, progress: Progress | None = None
) -> dict[str, Tensor]:
    """Read the tensors of a state.

    Args:
        layout: The store.
        manifest: Where they lie.
        verify: Hash every object before anything is returned.
        progress: Called with the bytes of the objects read and their sum.

    Returns:
        Name to tensor, in the manifest's order; the memory is the mapped file's and must not be written.

    Raises:
        MissingObject: If an object is missing.
        CorruptObject: If an object is not what its name says, or not what the manifest says.
    """
    wanted: dict[str, list[Entry]] = {}
    for entry in manifest.entries:
        wanted.setdefault(entry.object, []).append(entry)
    with ThreadPoolExecutor(max(2, min(8, os.cpu_count() or 2)), thread_name_prefix="mvc-read") as pool:
        tell = _Told(wanted, progress)
        tensors: dict[_Key, Tensor] = {}
        for found in pool.map(lambda item: _read_object(layout, *item, verify=verify), wanted.items()):
            tensors.update(found)
            tell.add(each for key, each in found.items() if not verify or _is_own(key))
        packed = [(key, each) for key, each in tensors.items() if verify and not _is_own(key)]
        for batch in pool.map(lambda batch: _check_packed(layout, batch), _batches(packed)):
            tell.add(each for _, each in batch)
    return {entry.name: tensors[_key(entry)] for entry in manifest.entries}


_Key = tuple[str, str, str, tuple[int, ...]]


def _key(entry: Entry) -> _Key:
    return entry.object, entry.digest, entry.dtype, entry.shape


def _is_own(key: _Key) -> bool:
    """Tell whether a tensor is an object of its own."""
    return key[0] == key[1]


def _read_object(layout: Layout, digest: str, entries: list[Entry], *, verify: bool) -> dict[_Key, Tensor]:
    """Map an object and find tensors in it; one that is a tensor's own is hashed here."""
    own = any(entry.digest == digest for entry in entries)
    what = str(layout.objects.path_of(digest))
    data = layout.objects.read(digest, verify=verify and own)
    places = parse_header(data, len(data), what=what)
    found = {}
    for entry in entries:
        place = places.get(SINGLE if entry.object == entry.digest else entry.digest)
        if place is None:
            raise CorruptObject(
                f"{what} does not hold the tensor {entry.name!r:.80} that the manifest looks for in it"
            )
        found[_key(entry)] = tensor_at(data, place, entry.dtype, entry.shape, what=what)
    return found


def _batches(packed: list[tuple[_Key, Tensor]]) -> Iterator[list[tuple[_Key, Tensor]]]:
    batch: list[tuple[_Key, Tensor]] = []
    size = 0
    for each in packed:
        batch.append(each)
        size += each[1].nbytes
        if size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _check_packed(layout: Layout, batch: list[tuple[_Key, Tensor]]) -> list[tuple[_Key, Tensor]]:
    """Hash tensors of packs, each by itself: then what else is in the pack, and its name, do not matter."""
    for (place, digest, *_), tensor in batch:
        if tensor.digest() != digest:
            raise CorruptObject(
                f"{layout.objects.path_of(place)} is damaged: its tensor {digest[:12]} is not what its key "
                "says. `mvc verify --full` tells what it hurts"
            )
    return batch


class _Told:
    """Tells how far the reading is, in bytes of tensors."""

    def __init__(self, wanted: Mapping[str, list[Entry]], progress: Progress | None) -> None:
        unique = {_key(entry) for entries in wanted.values() for entry in entries}
        self._whole = sum(math.prod(shape) * item_size(dtype) for _, _, dtype, shape in unique)
        self._done = 0
        self._progress = progress

    def add(self, tensors: Iterable[Tensor]) -> None:
        self._done += sum(each.nbytes for each in tensors)
        if self._progress is not None:
            self._progress(self._done, self._whole)


def damaged_in(layout: Layout, manifest: Manifest) -> frozenset[str]:
    """Return the objects of a state that are missing or not what their names say; reads them all."""
    found = set()
    for each in manifest.objects:
        try:
            data = layout.objects.read(each)
            parse_header(data, len(data))
        except (MVCError, OSError):
            found.add(each)
    return frozenset(found)


def read_tree(layout: Layout, digest: str) -> Any:
    """Read the tree of a training state.

    Raises:
        MissingObject: If it is missing.
        CorruptObject: If it is not what its name says, or too large to be one.
    """
    size = layout.objects.size_of(digest, ".json")
    if size is None:
        raise MissingObject(f"{layout.objects.path_of(digest, '.json')} is missing")
    if size > _LARGEST_TREE:
        raise CorruptObject(
            f"{layout.objects.path_of(digest, '.json')} has {size} bytes, too many for a tree"
        )
    data = layout.objects.read(digest, ".json")
    return decode(bytes(data), what=str(layout.objects.path_of(digest, ".json")), limit=_LARGEST_TREE)
