"""Arrow tables and Hugging Face datasets: the files that hold their rows, or the rows."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from mvc_callbacks.sources_attributes import attributes, name_of
from mvc_callbacks.sources_files import FileGroup, absolute, is_url
from mvc_callbacks.sources_records import Records
from mvc_callbacks.sources_values import frame, u64

if TYPE_CHECKING:
    from mvc_callbacks.sources import Finder

__all__ = ["from_dataset", "from_stream", "from_table"]

_ROWS = 8192


def from_table(finder: Finder, value: Any, place: tuple[str, ...], selected: bool) -> None:
    """Take a table of pyarrow by its rows."""
    finder.say("Arrow table, by content")
    finder.add_part(
        place, "arrow", lambda names, check: _table_digest(value, check), size=value.nbytes, content=True
    )


def from_dataset(finder: Finder, value: Any, place: tuple[str, ...], selected: bool) -> None:
    """Take a ``datasets.Dataset``: its Arrow files, or its rows where it is not one with some files."""
    how = "Hugging Face dataset"
    indices = value._indices
    if indices is not None:
        finder.add_part(
            place, "indices", lambda names, check: _table_digest(getattr(indices, "table", indices), check)
        )
        how = f"selected rows of a {how}"
    table = value._data
    outside = [name for name, feature in value.features.items() if _is_media(feature)]
    pointed = [name for name in outside if _points_to_files(table, name)]
    blocks = [each for row in getattr(table, "blocks", [[table]]) for each in row]
    if not pointed and all(type(each).__name__ == "MemoryMappedTable" for each in blocks):
        finder.say(f"{how}, its cache_files")
        finder.add_files([each.path for each in blocks])
        # The files may hold more columns and rows than the dataset: what was done to each since it was
        # opened.
        done = [[step[:2] for step in each.replays if "metadata" not in step[0]] for each in blocks]
        shape = [len(row) for row in getattr(table, "blocks", [[table]])]
        finder.add_text(place, "columns", [list(value.features), value.num_rows, shape, repr(done)])
        paths = [absolute(each.path, finder.base) for each in blocks]
        finder.add_part(
            place,
            "order",
            lambda names, check: hashlib.sha256(b"".join(frame(names(path)) for path in paths)).digest(),
        )
        return
    finder.say(f"{how}, by content")
    plain = table.table.drop_columns(pointed) if pointed else table.table
    finder.add_part(
        place, "arrow", lambda names, check: _table_digest(plain, check), size=plain.nbytes, content=True
    )
    for name in pointed:
        finder.say(f"files that its column {name!r} names")
        _add_paths(finder, list(_paths_in(table.column(name))), (*place, name))


def _add_paths(finder: Finder, paths: list[str], place: tuple[str, ...]) -> None:
    records = Records(lambda: paths, (None,), finder.base)
    finder.groups.append(FileGroup(records.paths))
    finder.add_part(place, "records", lambda names, check: records.digest(names, ordered=True, check=check))


def _is_media(feature: Any) -> bool:
    return type(feature).__name__ in ("Image", "Audio", "Video", "Pdf", "Nifti")


def _points_to_files(table: Any, name: str) -> bool:
    """Tell whether the rows of a column of images hold paths rather than the images."""
    column = table.column(name)
    kind = column.type
    names = [kind.field(number).name for number in range(kind.num_fields)]
    if "bytes" not in names or "path" not in names or not len(column):
        return False
    first = column[0].as_py()
    return isinstance(first, dict) and first.get("bytes") is None and bool(first.get("path"))


def _paths_in(column: Any) -> Iterator[str]:
    for chunk in column.chunks:
        yield from (path for path in chunk.field("path").to_pylist() if path)


def from_stream(finder: Finder, value: Any, place: tuple[str, ...], selected: bool) -> None:
    """Take a ``datasets.IterableDataset``: the files that its innermost iterables were given."""
    left = [attributes(value).get("_ex_iterable")]
    found = False
    for _ in range(1000):
        if not left:
            break
        inside = attributes(left.pop(0))
        left += [inside["ex_iterable"]] if "ex_iterable" in inside else list(inside.get("ex_iterables") or ())
        for each in (inside.get("kwargs") or {}).values():
            found |= _from_argument(finder, each, place, selected)
    if found:
        finder.say("files that a streamed Hugging Face dataset reads")
    else:
        finder.unknown(f"{name_of(value)}: streams from what does not say which files it reads")


def _from_argument(finder: Finder, value: Any, place: tuple[str, ...], selected: bool) -> bool:
    if isinstance(value, (list, tuple)) and value and _is_dataset(value[0]):
        for number, each in enumerate(value):
            finder.find(each, (*place, str(number)), selected=selected)
        return True
    paths = [text for text in _texts(value, 0) if is_url(text) or _is_file(absolute(text, finder.base))]
    if paths:
        finder.add_files(list(dict.fromkeys(paths)))
    return bool(paths)


def _is_file(path: str) -> bool:
    return os.path.isfile(path)  # noqa: PTH113


def _texts(value: Any, depth: int) -> Iterator[str]:
    if isinstance(value, str):
        if 0 < len(value) < 4096 and "\0" not in value:
            yield value
    elif isinstance(value, (list, tuple, dict)) and depth < 6:
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each, depth + 1)
    elif type(value).__name__ in ("FilesIterable", "ArchiveIterable", "TrackedIterableFromGenerator"):
        yield from _texts(list(getattr(value, "args", ())), depth + 1)


def _table_digest(table: Any, check: Callable[[], None]) -> bytes:
    """Return the digest of a table's rows, however they are chunked: of its Arrow stream, 8192 rows each."""
    import pyarrow

    if isinstance(table, pyarrow.RecordBatch):
        table = pyarrow.Table.from_batches([table])
    table = table.replace_schema_metadata(None)  # it holds places and times
    sink = _Sink()
    with pyarrow.ipc.new_stream(pyarrow.PythonFile(sink, mode="w"), table.schema) as writer:
        for start in range(0, table.num_rows, _ROWS):
            check()
            for batch in table.slice(start, _ROWS).combine_chunks().to_batches():
                writer.write_batch(batch)
    return hashlib.sha256(u64(table.num_rows) + sink.hash.digest()).digest()


class _Sink(io.RawIOBase):
    """A file that is hashed rather than kept."""

    def __init__(self) -> None:
        self.hash = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B") if len(memoryview(data)) else memoryview(b"")
        self.hash.update(view)
        return len(view)


def _is_dataset(value: Any) -> bool:
    return any(
        each.__module__.startswith("datasets.") and each.__name__ == "Dataset" for each in type(value).__mro__
    )
