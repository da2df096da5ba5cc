"""Data of libraries: memory-mapped arrays, HDF5, archives, open files and webdataset."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mvc_callbacks.sources_arrow import from_dataset, from_stream, from_table
from mvc_callbacks.sources_attributes import attributes, name_of
from mvc_callbacks.sources_files import absolute, expand_braces, text_of

if TYPE_CHECKING:
    from mvc_callbacks.sources import Finder

__all__ = ["find", "knows"]

Way = Callable[["Finder", Any, tuple[str, ...], bool], None]
_STAGES = ("urls", "url", "shards", "shardlist", "source", "sources", "dataset", "datasets", "pipeline")


def find(finder: Finder, value: Any, place: tuple[str, ...], selected: bool) -> bool:
    """Look behind an object of a library; tell whether it is one that is known."""
    way = _way(value)
    if way is None:
        return False
    way(finder, value, place, selected)
    return True


def knows(value: Any) -> bool:
    """Tell whether `find` has a way for a value."""
    return _way(value) is not None


def _way(value: Any) -> Way | None:
    if _memory_map(value) is not None:
        return _from_memory_map
    for kind in type(value).__mro__:
        home = kind.__module__.partition(".")[0]
        if home == "numpy" and kind.__name__ == "NpzFile":
            return _from_npz
        way = _WAYS.get((home, kind.__name__))
        if way is not None:
            return way
        if home == "webdataset":
            return _from_webdataset
    return None


# Files under another name: memory maps, HDF5, archives, open files.


def _memory_map(value: Any) -> Any:
    """Return the memmap that an array is, or is a view of."""
    numpy = sys.modules.get("numpy")
    kind = getattr(numpy, "memmap", None)
    array = getattr(numpy, "ndarray", None)
    if kind is None or array is None:
        return None
    whole = None
    while isinstance(value, array):
        if isinstance(value, kind) and value.filename is not None:
            whole = value
        value = array.base.__get__(value)
    return whole


def _from_memory_map(finder: Finder, value: Any, place: tuple[str, ...], selected: bool) -> None:
    whole = _memory_map(value)
    start = value.__array_interface__["data"][0] - whole.__array_interface__["data"][0]
    finder.say("numpy memmap")
    finder.add_files([text_of(whole.filename)])
    # Which part of the file it shows, and as what.
    finder.add_text(
        place,
        "view",
        [value.dtype.str, list(value.shape), list(value.strides) if value.size else [], whole.offset + start],
    )


def _from_hdf5(finder: Finder, value: Any, place: tuple[str, ...], selected: bool) -> None:
    if not value:  # h5py's own test of whether it is open
        finder.unknown(f"{name_of(value)}: closed, and no longer says which file it was")
        return
    finder.say("h5py")
    finder.add_files([text_of(value.file.filename)])
    if value.name != "/":
        finder.add_text(place, "part", value.name)
    external = getattr(value, "external", None) or ()
    virtual = value.virtual_sources() if getattr(value, "is_virtual", False) else ()
    folder = os.path.dirname(absolute(text_of(value.file.filename), finder.base))  # noqa: PTH120
    names = [text_of(each[0]) for each in external] + [text_of(each.file_name) for each in virtual]
    finder.add_files(sorted({absolute(name, folder) for name in names if name not in ("", ".")}))


def _from_npz(finder: Finder, value: Any, place: tuple[str, ...], selected: bool) -> None:
    _from_archive(finder, value.zip, place, selected)


def _from_archive(finder: Finder, value: Any, place: tuple[str, ...], selected: bool) -> None:
    """Take the file behind a zip or tar archive, or any open file."""
    name = getattr(value, "filename", None) or getattr(value, "name", None)
    if isinstance(name, (str, bytes, os.PathLike)):
        finder.say(f"file of {name_of(value)}")
        finder.add_files([text_of(name)])
    else:
        finder.unknown(f"{name_of(value)}: has no file with a name")


def _from_lmdb(finder: Finder, value: Any, place: tuple[str, ...], selected: bool) -> None:
    finder.say("lmdb")
    finder.declare(value.path())


# webdataset: a pipeline whose first stage lists shards.


def _from_webdataset(finder: Finder, value: Any, place: tuple[str, ...], selected: bool) -> None:
    before = finder.count()
    inside = attributes(value)
    for name in _STAGES:
        each = inside.get(name)
        if isinstance(each, str) or (isinstance(each, (list, tuple)) and each and isinstance(each[0], str)):
            finder.say(f"webdataset .{name}")
            finder.add_files(
                [url for text in ([each] if isinstance(each, str) else each) for url in _shards(text)]
            )
        elif isinstance(each, (list, tuple)):
            for number, stage in enumerate(each):
                if knows(stage) or attributes(stage).get("dataset") is not None:
                    finder.find(stage, (*place, str(number)), selected=selected)
        elif each is not None and not callable(each):
            finder.find(each, place, selected=selected)
    if finder.count() == before and "pipeline" in inside:
        finder.unknown(f"{name_of(value)}: no shards found in its pipeline")


def _shards(text: str) -> list[str]:
    if text.startswith("pipe:"):
        return [text]
    return [part for each in text.split("::") for part in expand_braces(each)]


_WAYS: dict[tuple[str, str], Way] = {
    ("datasets", "Dataset"): from_dataset,
    ("datasets", "IterableDataset"): from_stream,
    ("h5py", "Dataset"): _from_hdf5,
    ("h5py", "File"): _from_hdf5,
    ("h5py", "Group"): _from_hdf5,
    ("_io", "BufferedReader"): _from_archive,
    ("_io", "BufferedRandom"): _from_archive,
    ("_io", "FileIO"): _from_archive,
    ("_io", "TextIOWrapper"): _from_archive,
    ("lmdb", "Environment"): _from_lmdb,
    ("builtins", "Environment"): _from_lmdb,
    ("pyarrow", "RecordBatch"): from_table,
    ("pyarrow", "Table"): from_table,
    ("tarfile", "TarFile"): _from_archive,
    ("zipfile", "ZipFile"): _from_archive,
}
