"""Attributes of a dataset, read without calling anything of its class, and what their names say of them."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any

__all__ = [
    "SAMPLES",
    "WRAPPERS",
    "attributes",
    "is_composite",
    "is_data",
    "is_left_out",
    "is_place",
    "is_plain_object",
    "must_exist",
    "name_of",
]

SAMPLES = ("samples", "imgs")
"""Where torchvision's ImageFolder and those like it keep (path, label)."""

WRAPPERS = (
    "base",
    "base_dataloader",
    "base_dataset",
    "data_source",
    "dataloader",
    "datapipe",
    "datapipes",
    "dataset",
    "datasets",
    "ds",
    "inner",
    "loader",
    "main_datapipe",
    "source_datapipe",
    "subset",
    "wrapped",
)
"""Where wrappers keep what they wrap; compared without leading underscores."""

_PLACE = re.compile(
    r"(?:.*_)?(?:root|dir|directory|folder|path|paths|file|files|filename|filenames|fname|fnames|filepath|filepaths"
    r"|location|csv|tsv|json|jsonl|parquet|h5|hdf5|lmdb|npy|npz|zip|tar|tfrecord|tfrecords|archive|db|database"
    r"|url|urls|shard|shards|shardlist|manifest|annfile)(?:_(?:path|dir|file|name|list))?"
)
_MUST_EXIST = re.compile(
    r"(?:data_?|img_|image_|file_?)?(?:root|dir|path|file|filename|filepath)|(?:files|paths|filenames)"
)
_DATA = re.compile(
    r"(?:.*_)?(?:data|samples?|items|values|x|xs|y|ys|inputs?|outputs?|labels?|targets?|texts?|sentences|documents"
    r"|examples?|records?|rows|annotations?|images?|imgs?|masks?|tokens?|sequences?|tensors?|arrays?|features?|entries"
    r"|files|paths|filenames|ids|keys|questions|answers|captions|captions|points|array|df|frame|table)",
    re.IGNORECASE,
)
_LEFT_OUT = re.compile(
    r".*(?:transform|augment|generator|rng|random|sampler|collate|cache|log_|_log|logs|logger|output|result|save"
    r"|checkpoint|ckpt|tokenizer|processor|model|trainer|device|cumulative_sizes|mirror|resources|_repr|hparams|config"
    r"|cfg|kwargs|lock|prefetch|worker|download|extensions|loader).*|args|mean|std|training_file|test_file",
    re.IGNORECASE,
)
_LIBRARIES = sys.stdlib_module_names | {"jax", "keras", "lightning", "numpy", "torch", "torchaudio"}


def name_of(value: Any) -> str:
    """Return the class of a value, as it is told to people."""
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def attributes(value: Any) -> dict[str, Any]:
    """Return the attributes of an object: its own, those in slots, and paths that its class has for all.

    No property, ``__getattr__`` or other code of its class runs.
    """
    kind = type(value)
    found: dict[str, Any] = {}
    for each in reversed(kind.__mro__):
        own = vars(each)
        if each.__module__.partition(".")[0] not in _LIBRARIES:
            found.update({name: thing for name, thing in own.items() if _is_shared_place(name, thing)})
        slots = own.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else tuple(slots):
            slot: Any = own.get(name)
            if type(slot).__name__ == "member_descriptor":
                try:
                    found[name] = slot.__get__(value, kind)
                except AttributeError:
                    continue  # not set
    try:
        own_ones = object.__getattribute__(value, "__dict__")
    except AttributeError:
        own_ones = {}
    if isinstance(own_ones, dict):
        found.update(own_ones)
    return {name: each for name, each in found.items() if isinstance(name, str) and not name.startswith("__")}


def _is_shared_place(name: str, value: Any) -> bool:
    return (
        not name.startswith("__")
        and _MUST_EXIST.fullmatch(_plain(name)) is not None
        and isinstance(value, (str, os.PathLike, list, tuple))
    )


def _plain(name: str) -> str:
    return name.lstrip("_").lower()


def is_place(name: str) -> bool:
    """Tell whether an attribute's name says that it holds a path."""
    return _PLACE.fullmatch(_plain(name)) is not None


def must_exist(name: str) -> bool:
    """Tell whether an attribute's name says that data is there, so that it is a fault when it is not."""
    return _MUST_EXIST.fullmatch(_plain(name)) is not None


def is_data(name: str) -> bool:
    """Tell whether an attribute's name says that it holds data, however little."""
    return (
        _DATA.fullmatch(_plain(name.rpartition(".")[2])) is not None
        or _DATA.fullmatch(_plain(name)) is not None
    )


def is_left_out(name: str) -> bool:
    """Tell whether an attribute's name says that it is no data: transforms, caches, logs, models."""
    return _LEFT_OUT.fullmatch(_plain(name)) is not None


def is_composite(value: Any) -> bool:
    """Tell whether a value is a dataset or loader, by its class or by what it has."""
    if value is None or isinstance(value, (str, bytes, int, float, os.PathLike, type, ModuleType, Mapping)):
        return False
    kind = type(value)
    if any(callable(getattr(kind, name, None)) for name in ("mvc_data_files", "mvc_fingerprint")):
        return True
    for each in kind.__mro__:
        home = each.__module__.partition(".")[0]
        if each.__name__ in ("Dataset", "IterableDataset", "DataLoader") and home in ("torch", "datasets"):
            return True
        if home in ("webdataset", "h5py"):
            return True
    own = attributes(value)
    return "dataset" in own or "datasets" in own or any(each in own for each in SAMPLES)


def is_plain_object(value: Any) -> bool:
    """Tell whether a value is an instance of a class that the user or some data library wrote."""
    kind = type(value)
    return (
        not callable(value)
        and not isinstance(value, (type, ModuleType))
        and kind.__module__.partition(".")[0] not in _LIBRARIES
        and bool(attributes(value))
    )
