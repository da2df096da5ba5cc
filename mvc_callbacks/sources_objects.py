"""Loaders, subsets and datasets of any class: found by the attributes that they have."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvc_callbacks import sources_libraries, sources_loaders
from mvc_callbacks.sources_attributes import (
    SAMPLES,
    WRAPPERS,
    attributes,
    is_composite,
    is_data,
    is_left_out,
    is_place,
    is_plain_object,
    must_exist,
    name_of,
)
from mvc_callbacks.sources_files import FileGroup, absolute, expand, is_url, text_of
from mvc_callbacks.sources_records import as_records, first_of, items_of
from mvc_callbacks.sources_values import Untellable, encode, is_array

if TYPE_CHECKING:
    from mvc_callbacks.sources import Finder

__all__ = ["add_columns", "add_list", "find", "is_table"]

_FEW = 10
_MANY_KEYS = 64
_TOLD_BY_SAMPLES = {*SAMPLES, "targets", "classes", "class_to_idx", "root", "loader", "extensions"}


def find(finder: Finder, value: Any, place: tuple[str, ...], selected: bool) -> None:
    """Look behind an object: a loader, a selection, a wrapper, or a dataset.

    Args:
        finder: Takes what is found.
        value: The object.
        place: Where it is in the source.
        selected: Whether a selection by index is made above it.
    """
    found = attributes(value)
    if sources_loaders.find(finder, found, place, selected):
        return
    before = finder.count()
    wrapped = [each for each in found if each.lstrip("_") in WRAPPERS and _holds_datasets(found[each])]
    if "indices" in found and wrapped:
        finder.say(f"indices of {name_of(value)}")
        finder.add_indices(place, found.pop("indices"))
        selected = True
    for each in wrapped:
        finder.find(found.pop(each), place, selected=selected)
    has_content = _contents(finder, found, name_of(value), place, selected)
    _places(finder, found, name_of(value), has_content)
    if finder.count() == before:
        _last_resort(finder, found, place, selected)
    if finder.count() == before:
        finder.unknown(f"{name_of(value)}: no files, arrays or datasets found behind it")


def _holds_datasets(value: Any) -> bool:
    inside = list(value.values()) if isinstance(value, dict) else value
    if items_of(inside) is not None:
        return any(is_composite(each) for each in first_of(inside))
    return is_composite(value) or is_plain_object(value)


def _contents(
    finder: Finder, found: dict[str, Any], name: str, place: tuple[str, ...], selected: bool
) -> bool:
    """Take lists, arrays, tables and datasets in attributes; tell whether folders need not be looked into."""
    bases = _bases(finder, found)
    for each in [key for key in SAMPLES if _are_samples(found.get(key), bases)][:1]:
        values = found[each]
        for told in _TOLD_BY_SAMPLES:
            found.pop(told, None)
        rest = [key for key, value in _lists(found) if key not in _TOLD_BY_SAMPLES]
        add_list(
            finder,
            f"ImageFolder-like .{each} of {name}",
            values,
            place,
            bases=bases,
            ordered=selected or bool(rest),
        )
        _contents(finder, found, name, place, selected)
        return True
    lists = _lists(found)
    enough = False
    for key, value in lists:
        at = (*place, key)
        if is_array(value) and items_of(value) is None and not sources_libraries.knows(value):
            finder.say(f"array .{key} of {name}, by content")
            finder.add_array(at, value)
            enough |= key in ("data", "_data")
        elif is_composite(value) or sources_libraries.knows(value):
            finder.find(value, at, selected=selected)
            enough = True
        else:
            items = items_of(value)
            first = next(iter(first_of(value, 1)), None)
            if items is not None and is_array(first):
                finder.say(f"list of arrays .{key} of {name}, by content")
                finder.add_arrays(place, key, items)
                enough |= key in ("data", "tensors")
            elif items is not None and is_composite(first):
                for number, each in enumerate(items()):
                    finder.find(each, (*at, str(number)), selected=selected)
                enough = True
            else:
                ordered = selected or len(lists) > 1
                enough |= add_list(
                    finder,
                    f"list .{key} of {name}",
                    value,
                    at,
                    bases=bases,
                    named=must_exist(key),
                    ordered=ordered,
                )
    return enough


def _are_samples(value: Any, bases: list[str]) -> bool:
    """Tell whether a list is one of (path, label), as torchvision's ImageFolder has it."""
    if not isinstance(value, (list, tuple)):
        return False
    return 0 in as_records(value, bases, named_as_paths=False).slots


def _lists(found: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return the attributes that hold data by content: arrays, lists, columns of tables, entries of dicts."""
    lists: list[tuple[str, Any]] = []
    for key, value in found.items():
        if not is_left_out(key) and not callable(value):
            lists += _flat(key.lstrip("_"), value)
    return lists


def _flat(key: str, value: Any) -> list[tuple[str, Any]]:
    if is_table(value):
        return [(f"{key}.{name}", column) for name, column in _columns(value)]
    if isinstance(value, dict):
        if len(value) > _MANY_KEYS or not any(_is_list(each) for each in value.values()):
            pairs = list(value.items())
            return [(key, pairs)] if _is_worth(key, pairs) else []
        return [pair for inner, each in value.items() for pair in _flat(f"{key}.{inner}", each)]
    if isinstance(value, range):
        return []
    return [(key, value)] if _is_list(value) and _is_worth(key, value) else []


def is_table(value: Any) -> bool:
    """Tell whether a value is a DataFrame of pandas."""
    return type(value).__module__.partition(".")[0] == "pandas" and type(value).__name__ == "DataFrame"


def _is_list(value: Any) -> bool:
    return (
        is_array(value)
        or items_of(value) is not None
        or is_composite(value)
        or isinstance(value, dict)
        or sources_libraries.knows(value)
    )


def _is_worth(key: str, value: Any) -> bool:
    """Tell whether a list is data: not a shape, a pair of sizes, or a list of functions."""
    if items_of(value) is None:
        return True
    first = first_of(value, _FEW)
    if len(first) < _FEW:
        if any(is_array(each) or is_composite(each) or isinstance(each, os.PathLike) for each in first):
            return True
        if not first or not (is_data(key) or is_place(key)):
            return False
    try:
        for each in first[:2]:
            if not is_array(each) and not is_composite(each):
                encode(each)
    except (Untellable, RecursionError):
        return is_data(key)  # something that should be told about
    return True


def _bases(finder: Finder, found: Mapping[str, Any]) -> list[str]:
    """Return the folders that relative names may be in: the dataset's own, then the current one."""
    folders = []
    for key, value in found.items():
        if isinstance(value, (str, os.PathLike)) and not is_left_out(key):
            try:
                path = absolute(text_of(value), finder.base)
                if (is_place(key) or isinstance(value, os.PathLike)) and os.path.isdir(path):  # noqa: PTH112
                    folders.append(path)
            except (TypeError, ValueError):
                continue
    return [*folders, finder.base]


def add_list(
    finder: Finder,
    how: str,
    value: Any,
    place: tuple[str, ...],
    *,
    bases: list[str] | None = None,
    named: bool = False,
    ordered: bool,
) -> bool:
    """Take a list of paths, of items with paths in them, or of plain values.

    Args:
        finder: Takes it.
        how: How it was found.
        value: The list.
        place: Where it is in the source.
        bases: Folders that relative paths may be relative to; the current one last.
        named: Whether its name says that it holds paths.
        ordered: Whether the order of items with paths counts; that of plain values always does.

    Returns:
        Whether there are files behind it.
    """
    bases = bases or [finder.base]
    records = as_records(value, bases, named_as_paths=named)
    if not records.slots:
        finder.say(f"{how}, by content")
        finder.add_part(
            place,
            "values",
            lambda names, check: records.digest(names, ordered=True, check=check),
            content=True,
        )
        return False
    finder.say(how)
    # Names are told from the dataset's own folder, so that they stay the same when files come or go.
    finder.groups.append(FileGroup(records.paths, likely=tuple(bases[:-1])))
    finder.add_part(
        place, "records", lambda names, check: records.digest(names, ordered=ordered, check=check)
    )
    return True


def add_columns(finder: Finder, name: str, table: Any, place: tuple[str, ...]) -> None:
    """Take the columns of a DataFrame."""
    for label, column in _columns(table):
        add_list(finder, f"column of {name}", column, (*place, str(label)), ordered=True)


def _columns(table: Any) -> list[tuple[Any, Any]]:
    """Take them by their places: two may have one name, and by that would come as a table."""
    return [(label, table.iloc[:, number]) for number, label in enumerate(table.columns)]


def _places(finder: Finder, found: Mapping[str, Any], name: str, has_content: bool) -> None:
    """Take the files and folders that attributes name.

    Folders are left alone where a list has told which of their files count, or where an array ``data`` is
    what was read from them: a root may hold other datasets as well.
    """
    home = str(Path.home()) if "HOME" in os.environ else ""
    for key, value in found.items():
        if not isinstance(value, (str, os.PathLike)) or is_left_out(key):
            continue
        try:
            text = text_of(value)
        except TypeError:
            continue
        if "\0" in text or not 0 < len(text) < 4096:
            continue
        named = is_place(key)
        if is_url(text) or "://" in text:
            if named:
                finder.say(f"attribute .{key} of {name}")
                finder.add_files([text])
            continue
        path = absolute(text, finder.base)
        if not (named or isinstance(value, os.PathLike) or os.path.isabs(text)):  # noqa: PTH117
            continue
        if os.path.isdir(path):  # noqa: PTH112
            if not has_content and path not in (os.sep, home):
                finder.say(f"attribute .{key} of {name}")
                finder.groups.append(expand(text, finder.base, finder.problem))
            elif not has_content:
                finder.problem(path, f"attribute .{key} of {name}; too much to be data, not looked into")
        elif os.path.lexists(path) or (must_exist(key) and not has_content):
            finder.say(f"attribute .{key} of {name}")
            finder.groups.append(expand(text, finder.base, finder.problem))


def _last_resort(finder: Finder, found: Mapping[str, Any], place: tuple[str, ...], selected: bool) -> None:
    """Look behind other objects that a dataset holds, such as a reader or an index of the user's."""
    for key, value in found.items():
        if not is_left_out(key) and is_plain_object(value):
            branch = finder.branch()
            branch.find(value, (*place, key), selected=selected)
            if branch.groups or branch.parts or branch.urls:
                finder.merge(branch)
