"""What sources make of things that hardly anybody trains from: each is found, or told as not found."""

from __future__ import annotations

import datetime
import enum
import hashlib
import io
import os
import shutil
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from source_kit import digest

from mvc_callbacks import fingerprint_data, sources_files, sources_libraries, sources_records
from mvc_callbacks.fingerprint import plan
from mvc_callbacks.sources import Finder
from mvc_callbacks.sources_arrow import from_stream
from mvc_callbacks.sources_files import FileGroup, Names, common_folder, expand_braces
from mvc_callbacks.sources_values import Untellable, array_digest, encode, indices_digest

numpy = pytest.importorskip("numpy")


class Thing:
    """A data set of nobody's library."""

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


class NoPath(os.PathLike[str]):
    """A path that does not say where."""

    def __fspath__(self) -> str:
        return 5  # type: ignore[return-value]


# Places.


def test_a_path_may_begin_with_the_home_folder(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(images.parent))
    assert digest("~/images") == digest(images)


def test_paths_may_be_a_set_or_have_others_beside_them(images: Path) -> None:
    first, second = images / "cat", images / "dog"
    assert digest({first, second}) == digest([first, second])
    both = fingerprint_data([first, numpy.arange(3)])
    assert (both.coverage, both.files, both.bytes) == ("files", 5, 5 * 5 + 24)
    both = fingerprint_data(Thing(parts=[Thing(dataset=numpy.arange(3)), str(first)]))
    assert both.files == 5


def test_braces_that_stand_for_too_many_are_told_and_others_are_names(images: Path) -> None:
    for name in ("a", "b"):
        (images / f"shard-{name}.tar").write_text(name)
    assert fingerprint_data(f"{images}/shard-{{a,b}}.tar").files == 2
    for pattern in ("{0..9999999}.tar", "{0..999}-{0..9999}.tar"):
        told = fingerprint_data(pattern)
        assert (told.coverage, told.digest) == ("none", None)
        assert "more than 1000000 files" in told.problems[0]
        with pytest.raises(ValueError, match="more than 1000000"):
            expand_braces(pattern)


def test_a_glob_may_name_folders(images: Path) -> None:
    assert digest(f"{images}/*") == digest(images)


def test_a_folder_that_goes_before_it_is_walked_is_told(images: Path) -> None:
    planned = plan([images / "cat", images / "dog"])
    shutil.rmtree(images / "cat")
    told = planned.compute().fingerprint
    assert (told.coverage, told.files) == ("partial", 5)
    assert "cat: unreadable (No such file or directory)" in told.problems[0]


def test_folders_without_end_are_not_followed_for_ever(tmp_path: Path) -> None:
    deep = tmp_path / "deep"
    deep.joinpath(*["d"] * 103).mkdir(parents=True)
    (deep / "a.txt").write_text("a")
    told = fingerprint_data(deep)
    assert (told.coverage, told.files) == ("partial", 1)
    assert "more than 100 folders deep; not followed" in told.problems[0]


def test_a_folder_in_a_list_of_one_is_named_as_the_place_that_names_are_told_from(images: Path) -> None:
    told = fingerprint_data(Thing(cases=[images / "cat"]))
    shutil.copytree(images / "cat", images / "far" / "cat")
    assert (told.files, digest(Thing(cases=[images / "far" / "cat"]))) == (5, told.digest)


def test_a_file_outside_of_all_roots_keeps_its_whole_name() -> None:
    names = Names.of([FileGroup(lambda _: ("/a/b/1", "/a/b/2"))])
    assert [names("/a/b/1"), names("/a/b"), names("/c/3")] == [b"1", b".", b"/c/3"]
    assert common_folder(["one", "two"]) == ""


def test_a_list_of_what_is_elsewhere_is_told_item_by_item() -> None:
    urls = [f"https://example.org/{number}.png" for number in range(3)]
    told = fingerprint_data(Thing(files=urls))
    assert (told.coverage, told.files, told.digest) == ("none", 0, None)
    assert told.problems == tuple(f"{url}: not on this machine; not hashed" for url in urls)


def test_attributes_that_are_no_paths_are_passed_over(images: Path) -> None:
    for attributes in (
        {"root": NoPath()},
        {"root": "a\0b"},
        {"path": ""},
        {"csv": str(images / "gone.csv")},
        {"origin": "https://example.org/data"},
        {"reader": Thing(size=5)},
    ):
        told = fingerprint_data(Thing(**attributes))
        assert (told.coverage, told.digest) == ("opaque", None), attributes
    told = fingerprint_data(Thing(url="https://example.org/data", labels=[1, 2]))
    assert told.coverage == "partial"
    assert told.problems == ("https://example.org/data: not on this machine; not hashed",)


# Lists.


def test_items_without_a_file_are_part_beside_those_with_one(images: Path) -> None:
    path = images / "cat" / "0.png"
    for items in (
        [{"image": path, "label": 0}, {"label": 1}],
        [(path, 0), (None, 1)],
        [(path, 0), None],
        [path, 5],
    ):
        told = fingerprint_data(Thing(samples=items))
        assert (told.coverage, told.files) == ("files", 1), items
        assert digest(Thing(samples=items[:1])) != told.digest


def test_items_that_look_like_no_path_are_values(images: Path) -> None:
    assert fingerprint_data(Thing(files=["hello", "you"])).coverage == "arrays"
    told = fingerprint_data(Thing(rows=[str(images), NoPath()]))
    assert (told.coverage, told.files) == ("partial", 10)
    assert "rows: records without a digest: TypeError" in told.problems[0]


def test_lists_that_hold_what_has_no_digest_are_told_where_their_name_says_data() -> None:
    told = fingerprint_data(Thing(data=[object() for _ in range(12)]))
    assert (told.coverage, told.digest) == ("opaque", None)
    assert "values without a digest: a builtins.object" in told.problems[0]
    told = fingerprint_data(Thing(things=[object() for _ in range(12)]))
    assert "no files, arrays or datasets found behind it" in told.problems[0]


def test_more_items_than_fit_into_memory_are_sorted_in_files(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = sorted(images.glob("*/*.png"))
    expected = digest(Thing(files=paths))
    monkeypatch.setattr(sources_records, "_IN_MEMORY", 3)
    assert digest(Thing(files=paths[::-1])) == expected
    assert digest(Thing(files=[*paths, paths[0]])) != expected


def test_sets_and_ranges_are_told_by_content() -> None:
    assert digest({3, 1, 2}) == digest({1, 2, 3}) == digest([1, 2, 3])
    assert fingerprint_data(range(5)).coverage == "arrays"
    assert digest(range(5)) != digest(range(1, 6))
    assert fingerprint_data(Thing(steps=range(5))).coverage == "opaque"


def test_data_sets_and_arrays_in_lists_are_looked_into(images: Path, tmp_path: Path) -> None:
    parts = [Thing(dataset=numpy.arange(3)), Thing(dataset=numpy.arange(4))]
    assert digest(Thing(parts=parts)) != digest(Thing(parts=parts[::-1]))
    arrays = [numpy.arange(number) for number in range(12)]
    assert digest(Thing(parts=arrays)) != digest(Thing(parts=arrays[::-1]))
    mapped = numpy.memmap(tmp_path / "x.bin", dtype="u1", mode="w+", shape=(4,))
    told = fingerprint_data([numpy.arange(3), mapped])
    assert (told.coverage, told.files) == ("files", 1)


def test_data_sets_in_a_list_may_name_their_files(images: Path) -> None:
    class Own(Thing):
        def mvc_data_files(self) -> list[Path]:
            return [images / str(self.name)]

    told = fingerprint_data(Thing(parts=[Own(name="cat"), Own(name="dog")]))
    assert (told.coverage, told.files) == ("files", 10)


def test_entries_of_a_dict_are_lists_or_one_list_together() -> None:
    lists = {"x": list(range(12)), "y": list(range(12))}
    one, other = digest(Thing(tables=lists)), digest(Thing(tables={**lists, "y": [0] * 12}))
    assert one != other
    assert digest(Thing(labels={"a": 1, "b": 2})) != digest(Thing(labels={"a": 1, "b": 3}))
    assert fingerprint_data(Thing(sizes={"a": 1, "b": 2})).coverage == "opaque"
    many = {str(number): [number] for number in range(100)}
    assert digest(Thing(tables=many)) != digest(Thing(tables={**many, "99": [0]}))


def test_columns_of_one_name_are_all_told() -> None:
    pandas = pytest.importorskip("pandas")
    values = [[1, 2], [3, 4]]
    for wrapped in (lambda table: table, lambda table: Thing(frame=table)):
        table = pandas.DataFrame(values, columns=["x", "x"])
        told = fingerprint_data(wrapped(table))
        assert told.coverage == "arrays"
        table.iloc[1, 1] = 5
        assert digest(wrapped(table)) != told.digest


# Attributes.


def test_slots_that_are_no_values_and_classes_give_nothing_away() -> None:
    class Slotted:
        __slots__ = ("__dict__", "data")

    holder = Slotted()
    holder.data = numpy.arange(3)
    assert fingerprint_data(holder).coverage == "arrays"
    assert fingerprint_data(Slotted).coverage == "opaque"


# Libraries.


def test_without_numpy_nothing_is_taken_for_a_memory_map(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numpy", None)
    assert not sources_libraries.knows(object())


def test_a_memory_map_is_found_behind_any_number_of_views(tmp_path: Path) -> None:
    class Own(numpy.ndarray):  # type: ignore[misc]
        pass

    mapped = numpy.memmap(tmp_path / "x.bin", dtype="u1", mode="w+", shape=(4,))
    view = mapped
    for number in range(40):
        view = view.view(Own if number % 2 else numpy.ndarray)
    assert fingerprint_data(view).files == 1


def test_an_archive_in_memory_has_no_file() -> None:
    with zipfile.ZipFile(io.BytesIO(), "w") as archive:
        told = fingerprint_data(archive)
    assert (told.coverage, told.digest) == ("opaque", None)
    assert "has no file with a name" in told.problems[0]


def test_lmdb_is_its_folder(images: Path) -> None:
    kind = type("Environment", (), {"__module__": "lmdb", "path": lambda self: str(images)})
    told = fingerprint_data(Thing(env=kind()))
    assert (told.files, told.how.split(";")[0]) == (10, "lmdb")


def test_parts_of_hdf5_in_a_list_are_its_file(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["a"], file["b"] = numpy.arange(5), numpy.arange(6)
        told = fingerprint_data([file["a"], file["b"]])
        assert (told.coverage, told.files) == ("files", 1)
        assert digest([file["b"], file["a"]]) != told.digest


def test_pipelines_of_webdataset_have_a_source_or_are_told(images: Path) -> None:
    wds = pytest.importorskip("webdataset")
    pipeline = wds.DataPipeline(lambda: iter([]))
    assert "no shards found in its pipeline" in fingerprint_data(pipeline).problems[0]
    pipeline.source = Thing(root=str(images))
    assert fingerprint_data(pipeline).files == 10


# Arrow and Hugging Face.


def test_tables_of_arrow_are_their_rows() -> None:
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table({"n": [1, 2, 3]})
    told = fingerprint_data(Thing(data=table))
    assert (told.coverage, told.how) == ("arrays", "Arrow table, by content")
    assert digest(table.to_batches()[0]) == digest(table)
    assert digest(pyarrow.concat_tables([table[:1], table[1:]])) == digest(table)
    assert digest(table.take([2, 1, 0])) != digest(table)


@pytest.fixture
def datasets(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found = pytest.importorskip("datasets")
    found.disable_progress_bars()
    return found


def test_pictures_that_lie_in_a_table_or_are_none_are_rows(datasets: Any, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    file = io.BytesIO()
    image.new("RGB", (2, 2)).save(file, "PNG")
    for rows in ([{"bytes": file.getvalue(), "path": None}], []):
        features = datasets.Features({"image": datasets.Image()})
        told = fingerprint_data(datasets.Dataset.from_dict({"image": rows}, features=features))
        assert (told.coverage, told.files) == ("arrays", 0)


def test_files_that_are_streamed_are_found_through_whatever_was_done(datasets: Any, tmp_path: Path) -> None:
    paths = []
    for number in range(2):
        paths.append(tmp_path / f"{number}.txt")
        paths[-1].write_text(f"line {number}\n")
    streamed = datasets.load_dataset(
        "text", data_files=[str(each) for each in paths], split="train", streaming=True, cache_dir=tmp_path
    )
    assert fingerprint_data(streamed.map(len).take(1)).files == 2

    def lines(given: list[Any]) -> Iterator[dict[str, str]]:
        raise AssertionError("it was called")
        yield {}

    generated = datasets.IterableDataset.from_generator(
        lines, gen_kwargs={"given": [{"path": str(paths[0])}, 5, "", ["no file"]]}
    )
    assert fingerprint_data(generated).files == 1
    told = fingerprint_data(datasets.IterableDataset.from_generator(lines, gen_kwargs={"given": [1, 2]}))
    assert (told.coverage, told.digest) == ("opaque", None)


def test_a_stream_that_leads_back_to_itself_ends(tmp_path: Path) -> None:
    inner = SimpleNamespace()
    inner.ex_iterable = inner
    finder = Finder(str(tmp_path))
    from_stream(finder, SimpleNamespace(_ex_iterable=inner), (), False)
    assert finder.problems == ["types.SimpleNamespace: streams from what does not say which files it reads"]


# Values.


class Colour(enum.StrEnum if sys.version_info >= (3, 11) else str):  # type: ignore[misc]
    RED = "red"


class Number(enum.IntEnum):
    TWO = 2


class Metres(float):
    """A number with a unit."""


def test_values_are_told_by_what_they_are() -> None:
    assert encode(Colour("red")) == encode("red")
    assert encode(Number.TWO) == encode(2)
    assert encode(Metres(1.5)) == encode(numpy.float32(1.5)) == encode(1.5)
    assert encode(range(3)) == encode([0, 1, 2])
    assert encode(Path("a")) == encode("a")
    assert encode(bytearray(b"a")) == encode(b"a")
    assert encode(numpy.arange(3)) != encode([0, 1, 2])
    moment = datetime.datetime(2024, 5, 6, 7)
    assert len({encode(each) for each in (moment, moment.date(), moment.time(), str(moment))}) == 4


def test_arrays_of_any_library_and_without_axes_have_one_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = array_digest(numpy.array(5.0))
    assert expected != array_digest(numpy.array([5.0]))

    class Array:
        def __array__(self, *_: Any, **__: Any) -> Any:
            return numpy.array(5.0)

    class Tensor:
        def numpy(self) -> Any:
            return numpy.array(5.0)

    monkeypatch.setitem(sys.modules, "jax", SimpleNamespace(Array=Array))
    monkeypatch.setitem(sys.modules, "tensorflow", SimpleNamespace(Tensor=Tensor))
    assert digest(Array()) == digest(Tensor()) == digest(numpy.array(5.0))
    assert array_digest(Array()) == array_digest(Tensor()) == expected


def test_arrays_of_objects_and_of_half_precision_have_digests() -> None:
    objects = numpy.array([["a", 1], ["b", None]], dtype=object)
    assert array_digest(objects) == array_digest(objects.copy())
    assert array_digest(objects) != array_digest(objects.T)
    half = pytest.importorskip("ml_dtypes").bfloat16
    torch = pytest.importorskip("torch")
    values = torch.arange(6.0).bfloat16()
    assert array_digest(numpy.arange(6).astype(half)) == array_digest(values)


def test_indices_are_whole_numbers_however_they_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    assert indices_digest([torch.tensor(1.0), torch.tensor(2)]) == indices_digest([1, 2])
    with pytest.raises(Untellable, match="an index that is a float"):
        indices_digest([1, 1.5])
    # The definition is little-endian: another machine turns its own numbers round.
    little = hashlib.sha256((1).to_bytes(8, "little") + (258).to_bytes(8, "little")).digest()
    assert indices_digest([258]) == little
    monkeypatch.setattr(sys, "byteorder", {"little": "big", "big": "little"}[sys.byteorder])
    turned = hashlib.sha256((1).to_bytes(8, "little") + (258).to_bytes(8, "big")).digest()
    assert indices_digest([258]) == turned


def test_a_walk_tells_of_what_is_no_folder(tmp_path: Path) -> None:
    told: list[str] = []
    (tmp_path / "file").write_text("")
    assert list(sources_files.walk(str(tmp_path / "file"), lambda *each: told.append(each[1]))) == []
    assert told == ["unreadable (Not a directory)"]
