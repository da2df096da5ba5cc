"""Reading a state back: everything is verified first, and only then handed out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mvc_callbacks.canonical import decode
from mvc_callbacks.errors import CorruptObject, MissingObject, MVCError
from mvc_callbacks.layout import Layout
from mvc_callbacks.manifests import Manifest
from mvc_callbacks.packs import SINGLE, parse_header, tensor_at
from mvc_callbacks.progress import Progress
from mvc_callbacks.tensors import Tensor

__all__ = ["damaged_in", "read_state", "read_tree"]

_LARGEST_TREE = 256 * 1024 * 1024


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
    wanted: dict[str, set[str]] = {}
    for entry in manifest.entries:
        wanted.setdefault(entry.object, set()).add(entry.digest)
    with ThreadPoolExecutor(max(2, min(8, os.cpu_count() or 2)), thread_name_prefix="mvc-read") as pool:
        read = pool.map(lambda each: layout.objects.read(each, verify=verify), wanted)
        opened = dict(_told(zip(wanted, read, strict=True), layout, wanted, progress))
    places = {
        digest: parse_header(data, len(data), what=str(layout.objects.path_of(digest)))
        for digest, data in opened.items()
    }
    tensors: dict[tuple[str, str, tuple[int, ...]], Tensor] = {}
    state = {}
    for entry in manifest.entries:
        what = str(layout.objects.path_of(entry.object))
        place = places[entry.object].get(SINGLE if entry.object == entry.digest else entry.digest)
        if place is None:
            raise CorruptObject(
                f"{what} does not hold the tensor {entry.name!r:.80} that the manifest looks for in it"
            )
        key = (entry.digest, entry.dtype, entry.shape)
        if key not in tensors:
            tensors[key] = tensor_at(opened[entry.object], place, entry.dtype, entry.shape, what=what)
            if verify and entry.object != entry.digest and tensors[key].digest() != entry.digest:
                raise CorruptObject(f"{what}: the tensor {entry.name!r:.80} is not what its key says")
        state[entry.name] = tensors[key]
    return state


def _told(
    read: Iterable[tuple[str, memoryview]], layout: Layout, wanted: Iterable[str], progress: Progress | None
) -> Iterator[tuple[str, memoryview]]:
    """Pass objects on as they are read, and tell how far that is."""
    if progress is None:
        yield from read
        return
    whole, done = sum(layout.objects.size_of(each) or 0 for each in wanted), 0
    for digest, data in read:
        yield digest, data
        done += len(data)
        progress(done, whole)


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
