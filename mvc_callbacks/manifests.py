"""Manifests: where the tensors of one state lie. Derived and replaceable."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mvc_callbacks import files
from mvc_callbacks.canonical import decode, digest_of, encode
from mvc_callbacks.errors import BadName, CorruptRecord, MissingObject, UnsupportedFormat, UnsupportedTensor
from mvc_callbacks.refs import check_digest
from mvc_callbacks.tensors import stored_form, weights_digest

__all__ = ["Entry", "Manifest", "ManifestFolder"]

FORMAT = 1
LIMIT = 256 * 1024 * 1024
# Writers refer to a full manifest only. Two that write the same one at once may make a chain of two.
_DEEPEST = 4


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor of a state.

    Attributes:
        name: Its name in the state.
        dtype: Logical dtype.
        shape: Logical shape.
        digest: Tensor digest.
        object: Digest of the object that holds it: ``digest`` itself, or a pack.
        label: Another name for people (Keras: the variable's own), or None.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    digest: str
    object: str
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """The tensors of one state.

    Attributes:
        digest: Weights digest of the state.
        entries: One for each tensor; resolved, also where the file says only what differs from another
            manifest.
        base: Digest of that other manifest, or None.
        stamp: Of the file, where it was just written.
    """

    digest: str
    entries: tuple[Entry, ...]
    base: str | None = None
    stamp: str | None = field(default=None, compare=False)

    @property
    def objects(self) -> frozenset[str]:
        """Digests of the objects that hold the tensors."""
        return frozenset(entry.object for entry in self.entries)


class ManifestFolder:
    """The folder ``manifests/``.

    Args:
        root: The folder.
        staging: Where files are written before they get their name.
    """

    def __init__(self, root: Path, staging: Path) -> None:
        self.root = root
        self._staging = staging
        self._checked: _Checked | None = None

    def path_of(self, digest: str) -> Path:
        """Return where the manifest of a state lies, whether it is there or not."""
        check_digest(digest, "manifest")
        return self.root / digest[:2] / f"{digest}.json"

    def write(self, manifest: Manifest, base: Manifest | None = None) -> Manifest:
        """Write a manifest durably, replacing one of the same state.

        Args:
            manifest: The state.
            base: A manifest that may be referred to; used where that makes the file less than half as long.

        Returns:
            The manifest as it was written: with the base that it refers to, if it does.
        """
        data, used = None, None
        if base is not None and base.digest != manifest.digest and base.base is None:
            told = _delta(manifest, base)
            data, used = encode(told), base.digest
            # Thousands of entries need not be told to see that a few of them are shorter.
            few = 4 * (len(told["set"]) + len(told["drop"])) < len(manifest.entries)
            if not few and len(data) * 2 >= len(whole := encode(_full(manifest))):
                data, used = whole, None
        if data is None:
            data = encode(_full(manifest))
        path = self.path_of(manifest.digest)
        files.make_folder(path.parent)
        files.check_folder(path.parent)
        staged = files.stage(self._staging, [data])
        stamp = _stamp(staged)  # it keeps it under its name; another writer's may have that a moment later
        files.move(staged, path)
        files.sync_folder(path.parent)
        return Manifest(manifest.digest, manifest.entries, used, stamp)

    def has(self, digest: str) -> bool:
        """Tell whether the manifest of a state is there."""
        return files.exists(self.path_of(digest))

    def sync(self, digest: str) -> None:
        """Make the name of a manifest that was there before durable."""
        files.sync_folder(self.path_of(digest).parent)

    def stamp_of(self, digest: str) -> str | None:
        """Return what changes when a manifest's file is replaced; None where it is missing."""
        return _stamp(self.path_of(digest))

    def size_of(self, digest: str) -> int:
        """Return the bytes of a manifest's file; 0 where it is missing."""
        return files.size_of(self.path_of(digest)) or 0

    def read(self, digest: str, *, bases: Mapping[str, Manifest] | None = None) -> Manifest:
        """Read a manifest, believing it only if its entries have its digest.

        Args:
            digest: Of the state.
            bases: Manifests that were read before and need not be read again where it refers to one.

        Raises:
            MissingObject: If it, or the manifest that it refers to, is not there.
            CorruptRecord: If it is not what its name says.
        """
        return self._read(digest, _DEEPEST, bases or {})

    def _read(self, digest: str, depth: int, bases: Mapping[str, Manifest]) -> Manifest:
        path = self.path_of(digest)
        value = decode(files.read_file(path, limit=LIMIT), what=str(path))
        if not isinstance(value, dict) or value.get("kind") != "manifest":
            raise CorruptRecord(f"{path} is not a manifest")
        if value.get("format") != FORMAT:
            raise UnsupportedFormat(
                f"{path} has format {value.get('format')!r:.20}; this release reads {FORMAT}: upgrade"
            )
        try:
            base = value.get("base")
            if base is None:
                entries = tuple(_entries(value["tensors"], value["objects"]))
                _check(entries, digest, path)
            elif base in bases:
                entries = self._pieces(bases[base]).resolve(value, digest, path)
            elif depth:
                entries = _resolve(self._read(check_digest(base, "manifest"), depth - 1, bases), value)
                _check(entries, digest, path)
            else:
                raise CorruptRecord(f"{path} is at the end of a long or endless chain of manifests")
        except (KeyError, TypeError, IndexError, AttributeError, BadName) as error:
            raise CorruptRecord(f"{path} is not a manifest that mvc_callbacks wrote ({error})") from error
        return Manifest(digest, entries, base)

    def _pieces(self, base: Manifest) -> _Checked:
        """Return a manifest whose entries were checked, ready for many that refer to it."""
        known = self._checked
        if known is None or known.base is not base:
            self._checked = known = _Checked(base)
        return known

    def remove(self, digest: str) -> int:
        """Remove a manifest; return the bytes freed."""
        files.check_folder(self.path_of(digest).parent)
        size = self.size_of(digest)
        return size if files.remove(self.path_of(digest)) else 0

    def all(self) -> Iterator[str]:
        """Go through the digests of all manifests, sorted."""
        for prefix in files.list_names(self.root):
            if len(prefix) != 2:
                continue
            files.check_folder(self.root / prefix)
            for name in files.list_names(self.root / prefix):
                if name.endswith(".json") and len(name) == 69:
                    yield name[:64]


def _stamp(path: Path) -> str | None:
    try:
        return " ".join(map(str, files.stamp_of(path)))
    except MissingObject:
        return None


def _full(manifest: Manifest) -> dict[str, Any]:
    objects = _packs(manifest.entries)
    return {
        "kind": "manifest",
        "format": FORMAT,
        "digest": manifest.digest,
        "objects": list(objects),
        "tensors": [_tell(entry, objects) for entry in manifest.entries],
    }


def _delta(manifest: Manifest, base: Manifest) -> dict[str, Any]:
    known = {entry.name: entry for entry in base.entries}
    changed = tuple(entry for entry in manifest.entries if known.get(entry.name) != entry)
    objects = _packs(changed)
    return {
        "kind": "manifest",
        "format": FORMAT,
        "digest": manifest.digest,
        "base": base.digest,
        "objects": list(objects),
        "set": [_tell(entry, objects) for entry in changed],
        "drop": sorted(known.keys() - {entry.name for entry in manifest.entries}),
    }


def _packs(entries: tuple[Entry, ...]) -> dict[str, int]:
    packs = sorted({entry.object for entry in entries if entry.object != entry.digest})
    return {digest: place for place, digest in enumerate(packs)}


def _tell(entry: Entry, objects: Mapping[str, int]) -> dict[str, Any]:
    told: dict[str, Any] = {
        "name": entry.name,
        "dtype": entry.dtype,
        "shape": list(entry.shape),
        "digest": entry.digest,
    }
    if entry.object != entry.digest:
        told["parts"] = [{"in": objects[entry.object]}]
    if entry.label is not None:
        told["label"] = entry.label
    return told


def _entries(told: list[Any], objects: list[Any]) -> Iterator[Entry]:
    for each in told:
        parts = each.get("parts", [])
        if len(parts) > 1 or any(set(part) != {"in"} for part in parts):
            raise UnsupportedFormat("a manifest with several parts to a tensor: upgrade mvc-callbacks")
        place = parts[0]["in"] if parts else None
        if place is not None and (type(place) is not int or place < 0):
            raise TypeError("a part that names no object")
        digest = check_digest(each["digest"], "tensor")
        yield Entry(
            name=_text(each["name"]),
            dtype=_text(each["dtype"]),
            shape=tuple(_length(length) for length in each["shape"]),
            digest=digest,
            object=digest if place is None else check_digest(objects[place], "object"),
            label=None if each.get("label") is None else _text(each["label"]),
        )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.40} where text is expected")
    return value


def _length(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise TypeError(f"{value!r:.40} where a length is expected")
    return value


def _resolve(base: Manifest, value: Mapping[str, Any]) -> tuple[Entry, ...]:
    changed = {entry.name: entry for entry in _entries(value["set"], value["objects"])}
    dropped = {_text(name) for name in value["drop"]}
    kept = [changed.pop(entry.name, entry) for entry in base.entries if entry.name not in dropped]
    return (*kept, *changed.values())


class _Checked:
    """A manifest that was read, and its part of the digests of those that refer to it.

    What it says was checked once. Thousands may refer to it, of which each changes a few of thousands of
    tensors: theirs alone are told again for the digest, and looked at.

    Args:
        base: As `ManifestFolder.read` returned it.
    """

    def __init__(self, base: Manifest) -> None:
        self.base = base
        self._entries = {entry.name: entry for entry in base.entries}
        self._told = {entry.name: _piece(entry) for entry in base.entries}
        self._sorted = sorted(self._told)

    def resolve(self, value: Mapping[str, Any], digest: str, path: Path) -> tuple[Entry, ...]:
        """Return the entries of a manifest that refers to this one, if they have its digest.

        Raises:
            CorruptRecord: If they do not.
        """
        given = tuple(_entries(value["set"], value["objects"]))
        _check_entries(given, path)
        dropped = {_text(name) for name in value["drop"]}
        changed = {entry.name: entry for entry in given}
        entries, told, names = dict(self._entries), dict(self._told), self._sorted
        for name in dropped:
            entries.pop(name, None)
            told.pop(name, None)
        entries.update(changed)
        told.update((entry.name, _piece(entry)) for entry in given)
        if dropped or not changed.keys() <= self._entries.keys():
            names = sorted(told)
        if digest_of(b"[" + b",".join([told[name] for name in names]) + b"]") != digest:
            raise CorruptRecord(_CHANGED.format(path))
        return tuple(entries.values())


_CHANGED = "{} was changed since it was written: its entries do not have the digest of its name"


def _piece(entry: Entry) -> bytes:
    """Tell a tensor as `weights_digest` does."""
    return encode([entry.name, entry.dtype, list(entry.shape), entry.digest])


def _check_entries(entries: tuple[Entry, ...], path: Path) -> None:
    if len({entry.name for entry in entries}) != len(entries):
        raise CorruptRecord(f"{path} names a tensor twice")
    for entry in entries:
        try:
            stored_form(entry.dtype, entry.shape)
        except UnsupportedTensor as error:
            raise CorruptRecord(
                f"{path}: {entry.name!r:.80} has the unknown dtype {entry.dtype!r:.20}"
            ) from error


def _check(entries: tuple[Entry, ...], digest: str, path: Path) -> None:
    _check_entries(entries, path)
    if weights_digest((entry.name, entry.dtype, entry.shape, entry.digest) for entry in entries) != digest:
        raise CorruptRecord(_CHANGED.format(path))
