"""Safetensors files of others: read as neutral tensors, and told which versions' weights they hold."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvc_callbacks import canonical, files
from mvc_callbacks.errors import CorruptRecord, MVCError, UnsafeFile, UnsupportedFormat
from mvc_callbacks.tensors import ITEM_SIZE, Tensor, weights_digest
from mvc_callbacks.versions import Version

if TYPE_CHECKING:
    from mvc_callbacks.store_reader import StoreReader

__all__ = ["Identified", "digest_of_file", "identify", "read_safetensors"]

_LONGEST_HEADER = 100_000_000
_NEAREST = 5
_BLOCK = 1 << 20
_FOREIGN = {"F4": "F4_E2M1X2"}  # named differently here; the other names are the same


@dataclass(frozen=True, slots=True)
class Identified:
    """Which versions' weights a file holds.

    Attributes:
        digest: Weights digest of the file.
        tensors: Number of tensors in it.
        exact: Versions with these weights, oldest first; also where all names differ by one prefix.
        nearest: Versions that share tensors with it, most first, and how many.
    """

    digest: str
    tensors: int
    exact: tuple[Version, ...]
    nearest: tuple[tuple[Version, int], ...]

    def to_dict(self) -> dict[str, Any]:
        """Tell it as plain JSON values."""
        return {
            "digest": self.digest,
            "tensors": self.tensors,
            "exact": [{"id": each.id, "run": each.run, "number": each.number} for each in self.exact],
            "nearest": [
                {"id": each.id, "run": each.run, "number": each.number, "shared": shared}
                for each, shared in self.nearest
            ],
        }


def read_safetensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file that anybody may have written.

    Returns:
        Name to tensor, whose memory is the mapped file's, and the file's metadata.

    Raises:
        UnsupportedFormat: If it is no such file, or holds a dtype that no version can.
        OSError: If it cannot be read.
    """
    target = Path(path).expanduser().resolve()
    if not target.exists():
        raise FileNotFoundError(2, "there is no such file", str(target))
    if not target.is_file():
        raise UnsafeFile(f"{target} is not a regular file")
    data = files.map_file(target)
    length = int.from_bytes(data[:8], "little") if len(data) >= 8 else -1
    if not 2 <= length <= min(_LONGEST_HEADER, len(data) - 8):
        raise UnsupportedFormat(f"{target} is not a safetensors file")
    try:
        header = canonical.decode(bytes(data[8 : 8 + length]), what=str(target), limit=_LONGEST_HEADER)
    except CorruptRecord as error:
        raise UnsupportedFormat(f"{target} is not a safetensors file: {error}") from error
    if not isinstance(header, dict):
        raise UnsupportedFormat(f"{target} is not a safetensors file: its header is not an object")
    told = header.pop("__metadata__", {})
    metadata = {str(name): str(each) for name, each in told.items()} if isinstance(told, dict) else {}
    body = data[8 + length :]
    return {name: _tensor(body, name, entry, target) for name, entry in header.items()}, metadata


def _tensor(body: memoryview, name: str, entry: Any, path: Path) -> Tensor:
    try:
        dtype, shape, (start, end) = entry["dtype"], list(entry["shape"]), entry["data_offsets"]
        if not all(type(each) is int and 0 <= each < 2**63 for each in (*shape, start, end)):
            raise ValueError("its shape or its place is not one")
        if dtype == "F4" and shape:  # safetensors counts values, two in a byte
            shape[-1] //= 2
        dtype = _FOREIGN.get(dtype, dtype)
        if dtype not in ITEM_SIZE:
            raise ValueError(f"no version can hold its dtype {dtype!r:.40}")
        if not start <= end <= len(body) or end - start != math.prod(shape) * ITEM_SIZE[dtype]:
            raise ValueError("its bytes are not as many as its shape needs")
        return Tensor(dtype, tuple(shape), body[start:end])
    except (KeyError, TypeError, ValueError) as error:
        raise UnsupportedFormat(f"{path}: the tensor {name!r:.80} cannot be read: {error}") from error


def digest_of_file(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with Path(path).expanduser().open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def identify(
    store: StoreReader,
    tensors: Mapping[str, Tensor],
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Identified:
    """Tell which versions have given weights, or share most tensors with them.

    Args:
        store: The store; all of its versions whose manifests are there are looked at.
        tensors: Name to tensor.
        progress: Called with the versions done and their number.
    """
    entries = {name: (each.dtype, each.shape, each.digest()) for name, each in tensors.items()}
    digest = weights_digest([(name, *entry) for name, entry in entries.items()])
    mine = sorted(each[2] for each in entries.values())
    exact, near = [], []
    versions = store.versions()
    seen: dict[str, int | None] = {}  # by weights digest: tensors in common, None for all under other names
    for place, version in enumerate(versions):
        key = version.weights.digest
        if key == digest:
            exact.append(version)
        else:
            if key not in seen:
                seen[key] = 0
                with suppress(MVCError):  # pruned, or damaged, which `mvc verify` tells
                    theirs = store.entries(version)
                    seen[key] = _shared(entries, mine, theirs)
            shared = seen[key]
            if shared is None:
                exact.append(version)
            elif shared:
                near.append((version, shared))
        if progress is not None:
            progress(place + 1, len(versions))
    near.sort(key=lambda each: (-each[1], -each[0].sequence))
    return Identified(digest, len(entries), tuple(exact), tuple(near[:_NEAREST]))


_Entries = Mapping[str, tuple[str, tuple[int, ...], str]]


def _shared(entries: _Entries, mine: list[str], theirs: _Entries) -> int | None:
    others = [each[2] for each in theirs.values()]
    if sorted(others) == mine and _one_prefix(entries, theirs):
        return None
    known = set(others)
    return sum(each in known for each in mine)


def _one_prefix(entries: _Entries, theirs: _Entries) -> bool:
    """Tell whether the names differ by a prefix only: ``model.``, ``module.``, ``_orig_mod.``."""
    # Neither is empty: their digests would be the same.
    short, long = sorted((entries, theirs), key=lambda each: sum(map(len, each)))
    prefix = (sum(map(len, long)) - sum(map(len, short))) // len(short)
    return all(name[prefix:] in short and short[name[prefix:]] == entry for name, entry in long.items())
