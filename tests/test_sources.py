"""Promises of sources: what lies behind loaders and datasets is found without iterating or indexing them."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from source_kit import digest

from mvc_callbacks import fingerprint_data
from mvc_callbacks.fingerprint import EARLY, gather, plan
from mvc_callbacks.sources_values import Untellable, array_digest, encode, indices_digest

torch = pytest.importorskip("torch")
numpy = pytest.importorskip("numpy")

from torch.utils.data import (  # noqa: E402
    BatchSampler,
    ChainDataset,
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    StackDataset,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    random_split,
)


class Untouchable(Dataset[Any]):
    """A dataset that must be looked at, and never used."""

    touchable_length = 10

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)

    def __getitem__(self, index: Any) -> Any:
        raise AssertionError("__getitem__ was called")

    def __iter__(self) -> Iterator[Any]:
        raise AssertionError("__iter__ was called")

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"__getattr__ was called: {name}")

    def __len__(self) -> int:
        return self.touchable_length

    @property
    def surprise(self) -> Any:
        raise AssertionError("a property was called")


class ImageFolder(Untouchable):
    """What torchvision's ImageFolder keeps."""

    def __init__(self, root: Path, **more: Any) -> None:
        samples = [(str(path), int(path.parent.name == "dog")) for path in sorted(root.glob("*/*.png"))]
        super().__init__(
            root=str(root),
            loader=open,
            extensions=(".png",),
            classes=["cat", "dog"],
            class_to_idx={"cat": 0, "dog": 1},
            samples=samples,
            imgs=samples,
            targets=[label for _, label in samples],
            transform=lambda image: image,
            **more,
        )


@pytest.fixture
def images(images: Path) -> Path:
    (images / "README").write_text("no image")
    return images


# ImageFolder and the wrappers of torch.


def test_image_folders_are_found_with_their_labels(images: Path, tmp_path: Path) -> None:
    told = fingerprint_data(ImageFolder(images))
    assert (told.coverage, told.files, told.problems) == ("files", 10, ())
    assert (
        told.how == "ImageFolder-like .samples of test_sources.ImageFolder" or "ImageFolder-like" in told.how
    )
    shutil.copytree(images, tmp_path / "far" / "away")
    assert digest(ImageFolder(tmp_path / "far" / "away")) == told.digest
    relabelled = ImageFolder(images)
    relabelled.samples[0] = (relabelled.samples[0][0], 1)
    assert digest(relabelled) != told.digest
    (images / "cat" / "0.png").write_bytes(b"cat 1")
    assert digest(ImageFolder(images)) != told.digest


def test_a_loader_is_its_dataset_and_its_order_batches_and_transforms_are_not_part(images: Path) -> None:
    dataset = ImageFolder(images)
    expected = digest(dataset)
    assert digest(DataLoader(dataset)) == expected
    assert digest(DataLoader(dataset, batch_size=4, shuffle=True, num_workers=2, drop_last=True)) == expected
    assert digest(DataLoader(dataset, sampler=RandomSampler(dataset))) == expected
    dataset.transform = lambda image: image + 1
    dataset.augment = [1.0] * 20
    dataset.rng = torch.Generator()
    assert digest(dataset) == expected


def test_selected_indices_are_part_nested_too(images: Path) -> None:
    dataset = ImageFolder(images)
    told = {
        digest(each)
        for each in (
            dataset,
            Subset(dataset, [1, 2, 3]),
            Subset(dataset, [1, 2, 4]),
            Subset(dataset, [2, 1, 3]),
            Subset(Subset(dataset, [1, 2, 3]), [0]),
            Subset(Subset(dataset, [0]), [1, 2, 3]),
            ConcatDataset([Subset(dataset, [0]), dataset]),
            Subset(ConcatDataset([dataset, dataset]), [0]),
        )
    }
    assert len(told) == 8
    same = {digest(Subset(dataset, each)) for each in ([1, 2], (1, 2), range(1, 3), torch.tensor([1, 2]))}
    same |= {
        digest(Subset(dataset, each)) for each in (numpy.array([1, 2]), [numpy.int64(1), numpy.int32(2)])
    }
    assert len(same) == 1


def test_random_split_is_found_and_its_parts_differ(images: Path) -> None:
    dataset = ImageFolder(images)

    def split(seed: int) -> list[str]:
        return [digest(each) for each in random_split(dataset, [7, 3], torch.Generator().manual_seed(seed))]

    assert split(1) == split(1)
    assert len({*split(1), *split(2)}) == 4


def test_samplers_that_select_are_part_as_sets(images: Path) -> None:
    dataset = ImageFolder(images)
    first = digest(DataLoader(dataset, sampler=SubsetRandomSampler([1, 2])))
    assert first == digest(DataLoader(dataset, sampler=SubsetRandomSampler([2, 1])))
    assert first != digest(DataLoader(dataset, sampler=SubsetRandomSampler([1, 3])))
    assert first != digest(dataset)
    batches = BatchSampler(SubsetRandomSampler([2, 1]), 2, False)
    assert digest(DataLoader(dataset, batch_sampler=batches)) == first
    assert digest(DataLoader(dataset, sampler=[0, 1])) != digest(dataset)
    weighted = [
        digest(DataLoader(dataset, sampler=WeightedRandomSampler([each, 1.0], 2))) for each in (0.0, 0.5)
    ]
    assert len(set(weighted)) == 2


def test_concatenations_chains_and_stacks_are_looked_into(images: Path, tmp_path: Path) -> None:
    shutil.copytree(images, tmp_path / "other")
    (tmp_path / "other" / "cat" / "0.png").write_bytes(b"other")
    first, second = ImageFolder(images), ImageFolder(tmp_path / "other")
    labels = TensorDataset(torch.arange(10))
    for build in (
        lambda a, b: ConcatDataset([a, b]),
        lambda a, b: ChainDataset([a, b]),
        lambda a, b: StackDataset(a, b),
        lambda a, b: StackDataset(left=a, right=b),
    ):
        told = fingerprint_data(build(first, second))
        assert (told.files, told.coverage) == (20, "files")
        assert told.digest != digest(build(second, first))
    both = fingerprint_data(StackDataset(image=first, label=labels))
    assert (both.files, both.bytes) == (10, fingerprint_data(first).bytes + 80)
    # The same data twice is hashed once.
    assert fingerprint_data(ConcatDataset([first, first])).files == 10


def test_wrappers_of_any_class_are_looked_into(images: Path) -> None:
    class Slotted:
        __slots__ = ("base", "unset")

        def __init__(self, base: Any) -> None:
            self.base = base

    dataset = ImageFolder(images)
    for each in (Untouchable(dataset=dataset), Untouchable(_dataset=dataset), Slotted(dataset)):
        assert digest(each) == digest(dataset)


def test_cycles_end() -> None:
    dataset = Untouchable(data=torch.arange(3))
    dataset.dataset = dataset
    assert fingerprint_data(dataset).coverage == "arrays"
    items: list[Any] = [1]
    items.append(items)
    assert fingerprint_data(items).coverage in ("opaque", "none")


# Files in attributes.


@pytest.mark.parametrize("name", ["files", "paths", "image_paths", "filenames", "_files", "anything"])
@pytest.mark.parametrize("kind", [list, tuple, numpy.array, lambda paths: [Path(each) for each in paths]])
def test_lists_of_paths_are_found_in_any_order(images: Path, name: str, kind: Any) -> None:
    paths = sorted(str(path) for path in images.glob("*/*.png"))
    told = fingerprint_data(Untouchable(**{name: kind(paths)}))
    assert (told.files, told.coverage) == (10, "files")
    # Another machine lists a folder in another order: only a selection by index makes it part of the data.
    assert digest(Untouchable(**{name: kind(paths[::-1])})) == told.digest
    selected = [digest(Subset(Untouchable(**{name: kind(each)}), [0])) for each in (paths, paths[::-1])]
    assert selected[0] != selected[1]


def test_labels_beside_paths_are_part_in_their_order(images: Path) -> None:
    paths = [str(path) for path in sorted(images.glob("*/*.png"))]
    labels = [0] * 5 + [1] * 5
    told = fingerprint_data(Untouchable(files=paths, labels=labels))
    assert (told.files, told.coverage) == (10, "files")
    assert digest(Untouchable(files=paths, labels=labels[::-1])) != told.digest
    assert digest(Untouchable(files=paths[::-1], labels=labels)) != told.digest
    assert digest(Untouchable(files=paths, labels=torch.tensor(labels))) != digest(Untouchable(files=paths))


def test_names_relative_to_a_root_are_found_there(images: Path) -> None:
    names = ["cat/0.png", "dog/1.png"]
    told = fingerprint_data(Untouchable(root=images, files=names))
    assert (told.files, told.bytes) == (2, 10)
    rows = [{"image": name, "label": number, "box": (0.5, 1)} for number, name in enumerate(names)]
    told = fingerprint_data(Untouchable(data_dir=str(images), items=rows))
    assert told.files == 2
    rows[0]["label"] = 7
    assert digest(Untouchable(data_dir=str(images), items=rows)) != told.digest


def test_columns_of_tables_are_found(images: Path) -> None:
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"file": ["cat/0.png", "dog/1.png"], "label": [0, 1]})
    told = fingerprint_data(Untouchable(root=images, frame=table))
    assert (told.files, told.coverage) == (2, "files")
    table.loc[0, "label"] = 1
    assert digest(Untouchable(root=images, frame=table)) != told.digest
    assert fingerprint_data(pandas.DataFrame({"x": [1.5, 2.0]})).coverage == "arrays"


@pytest.mark.parametrize("name", ["root", "data_dir", "_root", "image_dir", "path", "train_folder"])
def test_folders_in_attributes_are_walked(images: Path, name: str) -> None:
    told = fingerprint_data(Untouchable(**{name: str(images)}))
    assert (told.files, told.coverage) == (11, "files")
    assert f"attribute .{name} of" in told.how


def test_a_class_may_hold_the_root_for_all(images: Path) -> None:
    kind = type("Fixed", (Untouchable,), {"root": images})
    assert fingerprint_data(kind()).files == 11


def test_a_root_beside_an_array_named_data_is_where_it_was_read_from(images: Path) -> None:
    """torchvision's MNIST and CIFAR share one root, and hold their content in memory."""
    told = fingerprint_data(Untouchable(root=str(images), data=torch.arange(4), targets=[0, 1, 0, 1]))
    assert (told.coverage, told.files) == ("arrays", 0)


def test_places_that_are_no_data_are_left_alone(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(images)
    told = fingerprint_data(
        Untouchable(cache_dir=str(images), log_dir=str(images), output_path=images, split="cat", mode="dog")
    )
    assert told.coverage == "opaque"


def test_a_missing_root_is_told(tmp_path: Path) -> None:
    told = fingerprint_data(Untouchable(root=str(tmp_path / "gone")))
    assert (told.coverage, told.digest) == ("none", None)
    assert "gone: missing" in told.problems[0]
    told = fingerprint_data(Untouchable(files=[str(tmp_path / "gone.png")]))
    assert (told.coverage, told.digest) == ("none", None)


def test_the_whole_file_system_is_no_dataset() -> None:
    told = fingerprint_data(Untouchable(root="/"))
    assert (told.coverage, told.digest) == ("opaque", None)


def test_folders_in_lists_are_walked(images: Path) -> None:
    told = fingerprint_data(Untouchable(cases=[images / "cat", images / "dog"]))
    assert told.files == 10


def test_other_objects_are_the_last_resort(images: Path) -> None:
    reader = type("Reader", (), {})()
    reader.filename = str(images / "README")
    assert fingerprint_data(Untouchable(reader=reader)).files == 1


# In memory.


def test_tensors_and_arrays_are_told_by_content() -> None:
    told = fingerprint_data(TensorDataset(torch.arange(6.0).reshape(2, 3), torch.tensor([0, 1])))
    assert (told.coverage, told.bytes, told.files) == ("arrays", 40, 0)
    assert digest(torch.arange(6.0)) == digest(numpy.arange(6, dtype="f4"))
    different = [
        torch.arange(6.0),
        torch.arange(6.0).reshape(2, 3),
        torch.arange(6.0).double(),
        torch.arange(6.0).bfloat16(),
        torch.arange(6),
        torch.tensor([0.0, 1, 2, 3, 4, 6]),
    ]
    assert len({digest(each) for each in different}) == 6


@pytest.mark.parametrize(
    "dtype",
    ["bool", "uint8", "float8_e4m3fn", "bfloat16", "float16", "float64", "complex64", "int64", "uint16"],
)
def test_views_have_the_digest_of_what_they_show(dtype: str) -> None:
    whole = torch.arange(24).reshape(4, 6).to(getattr(torch, dtype))
    for view in (whole.T, whole[:, 1:3], whole[::2], whole[:0], whole[0, 0]):
        assert array_digest(view) == array_digest(view.clone(memory_format=torch.contiguous_format))
    if whole.is_complex():
        assert array_digest(whole.conj()) == array_digest(whole.conj().resolve_conj())


@pytest.mark.parametrize(
    "dtype", ["bool", "i2", "f8", "c8", "U3", "S3", "M8[ns]", [("a", "i4"), ("b", "f4")]]
)
def test_arrays_have_the_digest_of_what_they_show(dtype: Any) -> None:
    whole = numpy.arange(12).astype("i8" if isinstance(dtype, list) else dtype).reshape(3, 4)
    if isinstance(dtype, list):
        whole = numpy.zeros((3, 4), dtype=dtype)
    for view in (whole.T, whole[:, 1:3], numpy.asfortranarray(whole), whole[::2], whole[:0]):
        assert array_digest(view) == array_digest(view.copy(order="C"))
    big = whole.astype(whole.dtype.newbyteorder(">"))
    assert array_digest(big) == array_digest(whole)


def test_large_arrays_are_hashed_in_chunks() -> None:
    array = numpy.zeros((3, 9_000_001), dtype="u1")
    array[2, -1] = 1
    assert array_digest(array[:, ::-1]) == array_digest(array[:, ::-1].copy())


def test_arrays_without_content_are_told_as_such() -> None:
    for tensor in (torch.empty(3, device="meta"), torch.eye(3).to_sparse()):
        told = fingerprint_data(tensor)
        assert (told.coverage, told.digest) == ("opaque", None)
        assert "sparse, quantised or without data" in told.problems[0]
    assert fingerprint_data(TensorDataset(torch.eye(3), torch.eye(3).to_sparse())).coverage == "partial"


def test_small_arrays_are_those_of_the_moment_of_planning() -> None:
    array = numpy.zeros(10)
    before = digest(array)
    planned = plan(Untouchable(data=array))
    array[:] = 1
    assert planned.compute().fingerprint.digest != digest(Untouchable(data=array))
    assert digest(array) != before
    large = numpy.zeros(EARLY + 1, dtype="u1")
    assert plan(large).finder.parts[0].early is None


def test_lists_of_plain_values_are_told_by_content() -> None:
    assert fingerprint_data([1.5, 2, 3]).coverage == "arrays"
    assert digest([1, 2, 3]) != digest([1, 3, 2])
    assert digest([numpy.arange(3), numpy.arange(4)]) != digest([numpy.arange(4), numpy.arange(3)])
    rows = [{"text": "a", "label": 0}, {"text": "b", "label": 1}]
    assert digest(Untouchable(data=rows)) != digest(Untouchable(data=rows[:1]))
    assert digest(Untouchable(texts=["a b", "c"], labels=[0, 1])) != digest(
        Untouchable(texts=["a b", "c"], labels=[1, 0])
    )
    many = [numpy.full(2, number) for number in range(100)]
    assert digest(many) != digest(many[::-1])


def test_equal_values_only_are_encoded_alike() -> None:
    values = [
        None,
        True,
        1,
        1.0,
        "1",
        b"1",
        [1],
        ["1"],
        {"1": 1},
        {1: 1},
        {1},
        [[1], []],
        [[], [1]],
        2**70,
        -0.0,
        0.0,
    ]
    assert len({encode(each) for each in values}) == len(values)
    assert encode({"a": 1, "b": 2}) == encode({"b": 2, "a": 1})
    assert encode((1, 2)) == encode([1, 2])
    with pytest.raises(Untellable, match="function"):
        encode([test_cycles_end])


def test_indices_of_any_kind_are_told_or_refused() -> None:
    assert indices_digest([3, 1]) != indices_digest([1, 3])
    assert indices_digest([3, 1], ordered=False) == indices_digest([1, 3], ordered=False)
    assert indices_digest(numpy.array([True, False])) != indices_digest([1, 0])
    for each in ("ab", [2**70], (number for number in [1]), ["a"]):
        with pytest.raises(Untellable):
            indices_digest(each)


# What gives nothing away.


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        raise AssertionError("__iter__ was called")


@pytest.mark.parametrize(
    "source",
    [
        lambda: Untouchable(),
        lambda: Untouchable(n=5, shape=(3, 32, 32), generator=torch.Generator(), transform=[len, print]),
        lambda: Stream(),
        lambda: DataLoader(Stream()),
        lambda: (number for number in [1]),
        lambda: iter([1]),
        lambda: Subset(Untouchable(), [1, 2]),
        lambda: object(),
        lambda: 5,
        lambda: len,
    ],
)
def test_a_source_that_gives_nothing_away_is_opaque_and_has_no_digest(source: Any) -> None:
    told = fingerprint_data(source())
    assert (told.coverage, told.digest) == ("opaque", None)
    assert told.problems


def test_what_is_found_in_part_is_partial(images: Path) -> None:
    told = fingerprint_data(ConcatDataset([ImageFolder(images), Untouchable()]))
    assert (told.coverage, told.files) == ("partial", 10)
    assert "Untouchable: no files" in told.problems[0]


def test_an_object_that_fails_does_not_stop_anything(images: Path) -> None:
    class Broken(Untouchable):
        def mvc_data_files(self) -> Iterable[str]:
            raise RuntimeError("not ready")

    told = fingerprint_data(ConcatDataset([ImageFolder(images), Broken()]))
    assert told.coverage == "partial"
    assert "RuntimeError: not ready" in told.problems[0]


# The protocol.


def test_a_dataset_may_name_its_files(images: Path) -> None:
    class Own(Untouchable):
        def mvc_data_files(self) -> Iterable[Path]:
            yield images / "cat"
            yield images / "README"

    told = fingerprint_data(DataLoader(Own(root="/elsewhere"), batch_size=2))
    assert (told.files, told.coverage, told.problems) == (6, "files", ())
    assert told.how.startswith("mvc_data_files() of ")


def test_a_dataset_may_tell_its_own_fingerprint(images: Path) -> None:
    class Own(Untouchable):
        def mvc_fingerprint(self) -> str:
            return str(self.query)

    told = fingerprint_data(Own(query="SELECT 1"))
    assert (told.coverage, told.files) == ("declared", 0)
    assert told.digest != digest(Own(query="SELECT 2"))

    class Both(Own):
        def mvc_data_files(self) -> Iterable[Path]:
            return [images]

    both = fingerprint_data(Both(query="SELECT 1"))
    assert (both.coverage, both.files) == ("files", 11)
    assert both.digest != digest(Both(query="SELECT 2"))


# Libraries.


def test_memory_maps_are_their_files_and_what_they_show(tmp_path: Path) -> None:
    mapped = numpy.memmap(tmp_path / "x.bin", dtype="f4", mode="w+", shape=(10, 2))
    mapped[:] = 1
    mapped.flush()
    told = fingerprint_data(mapped)
    assert (told.coverage, told.files, told.bytes, told.how) == ("files", 1, 80, "numpy memmap")
    views = [
        mapped,
        mapped[2:],
        mapped[:8],
        mapped[:, 1],
        mapped.T,
        mapped.view("i4"),
        numpy.asarray(mapped)[1:9],
    ]
    assert len({digest(each) for each in views}) == 7
    assert fingerprint_data(Untouchable(x=numpy.asarray(mapped), y=torch.arange(10))).files == 1
    saved = tmp_path / "saved.npy"
    numpy.save(saved, numpy.arange(5))
    assert fingerprint_data(numpy.load(saved, mmap_mode="r")).bytes == saved.stat().st_size


def test_archives_and_open_files_are_their_files(tmp_path: Path) -> None:
    numpy.savez(tmp_path / "x.npz", a=numpy.arange(3))
    with numpy.load(tmp_path / "x.npz") as archive:
        assert fingerprint_data(Untouchable(data=archive)).files == 1
    with zipfile.ZipFile(tmp_path / "x.npz") as archive, (tmp_path / "x.npz").open("rb") as file:
        assert digest(archive) == digest(file) == digest(tmp_path / "x.npz")


def test_hdf5_is_its_file(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["a"] = numpy.arange(5)
        file["b"] = numpy.arange(5)
    file = h5py.File(tmp_path / "x.h5", "r")
    assert fingerprint_data(file).digest == digest(tmp_path / "x.h5")
    assert len({digest(file["a"]), digest(file["b"]), digest(file)}) == 3
    assert fingerprint_data(Untouchable(images=file["a"], labels=torch.arange(5))).files == 1
    file.close()
    assert fingerprint_data(file).coverage == "opaque"


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    return datasets.Dataset.from_dict({"n": list(range(10)), "text": list("abcdefghij")})


def test_hugging_face_datasets_in_memory_are_told_by_content(rows: Any) -> None:
    told = fingerprint_data(rows)
    assert told.coverage == "arrays"
    assert digest(rows.with_format("torch")) == told.digest
    others = [rows.select([0, 2]), rows.select([2, 0]), rows.select(range(3)), rows.remove_columns("n"), rows]
    assert len({digest(each) for each in others}) == 5
    datasets = pytest.importorskip("datasets")
    # However its rows lie in chunks.
    assert (
        digest(datasets.concatenate_datasets([rows.select(range(4)), rows.select(range(4, 10))]))
        == told.digest
    )


def test_hugging_face_datasets_on_disk_are_their_files_and_selections(rows: Any, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows.save_to_disk(tmp_path / "x")
    shutil.copytree(tmp_path / "x", tmp_path / "deep" / "y")
    loaded, moved = datasets.load_from_disk(tmp_path / "x"), datasets.load_from_disk(tmp_path / "deep" / "y")
    told = fingerprint_data(loaded)
    assert (told.coverage, told.files) == ("files", 1)
    assert digest(moved) == told.digest
    chosen = [
        loaded,
        loaded.select([0, 2]),
        loaded.select([2, 0]),
        loaded.select(range(3)),
        loaded.select(range(1, 4)),
        loaded.remove_columns("n"),
        loaded.shuffle(seed=1),
        datasets.concatenate_datasets([loaded, loaded]),
    ]
    assert len({digest(each) for each in chosen}) == 8
    assert fingerprint_data(loaded.to_iterable_dataset(num_shards=2).shuffle(seed=1)).files == 1
    both = fingerprint_data(datasets.DatasetDict(train=loaded, test=rows))
    assert {name: each.coverage for name, each in both.items()} == {"train": "files", "test": "arrays"}


def test_files_that_a_hugging_face_table_only_names_are_found(tmp_path: Path, rows: Any) -> None:
    datasets = pytest.importorskip("datasets")
    image = pytest.importorskip("PIL.Image")
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        image.new("RGB", (2, 2)).save(tmp_path / place / "1.png")
    digests = set()
    for place in ("here", "there"):
        paths = {"image": [str(tmp_path / place / "1.png")], "label": [1]}
        pictures = datasets.Dataset.from_dict(paths).cast_column("image", datasets.Image())
        told = fingerprint_data(pictures)
        assert (told.files, told.coverage) == (1, "files")
        digests.add(told.digest)
    assert len(digests) == 1
    image.new("RGB", (2, 2), 1).save(tmp_path / "there" / "1.png")
    assert digest(pictures) not in digests


def test_webdataset_shards_are_found_and_remote_ones_told(tmp_path: Path) -> None:
    wds = pytest.importorskip("webdataset")
    for number in range(3):
        (tmp_path / f"{number:03}.tar").write_bytes(b"%d" % number)
    local = wds.WebDataset(f"{tmp_path}/{{000..002}}.tar", shardshuffle=False).shuffle(10).batched(2)
    told = fingerprint_data(wds.WebLoader(local, batch_size=None))
    assert (told.coverage, told.files) == ("files", 3)
    shards = [f"{tmp_path}/000.tar", "https://example.org/{000..001}.tar"]
    mixed = fingerprint_data(wds.WebDataset(shards, shardshuffle=False))
    assert (mixed.coverage, mixed.files, len(mixed.problems)) == ("partial", 1, 2)
    remote = fingerprint_data(wds.WebDataset("pipe:curl https://example.org/x.tar", shardshuffle=False))
    assert (remote.coverage, remote.digest) == ("opaque", None)


# Many loaders.


def test_loaders_are_gathered_by_name() -> None:
    loader = DataLoader(TensorDataset(torch.arange(3)))
    other = DataLoader(TensorDataset(torch.arange(4)))
    planned = gather(
        {
            "train": {"a": loader, "b": [loader, other]},
            "val": [loader],
            "test": [loader, other],
            "predict": loader,
            "none": None,
        }
    )
    assert list(planned) == ["train.a", "train.b.0", "train.b.1", "val", "test.0", "test.1", "predict"]
    told = {name: each.compute().fingerprint.digest for name, each in planned.items()}
    assert told["train.a"] == told["val"] == told["predict"] == digest(loader)
    assert told["train.b.1"] == digest(other)


def test_combined_loaders_are_taken_apart() -> None:
    combined = pytest.importorskip("lightning.pytorch.utilities").CombinedLoader
    loader = DataLoader(TensorDataset(torch.arange(3)))
    planned = gather({"train": combined({"a": loader, "b": loader}), "val": combined(loader)})
    assert list(planned) == ["train.a", "train.b", "val"]
    assert fingerprint_data(combined([loader, loader])).coverage == "arrays"


def test_a_list_of_batches_is_one_source() -> None:
    planned = gather({"train": [torch.arange(3), torch.arange(4)]})
    assert list(planned) == ["train"]
    assert planned["train"].compute().fingerprint.coverage == "arrays"


def test_planning_looks_at_a_long_list_by_its_first_items_only(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [str(images / "README")] * 200_000
    looked: list[Any] = []
    stat = os.stat
    monkeypatch.setattr(os, "stat", lambda *args, **options: looked.append(args) or stat(*args, **options))
    plan(DataLoader(Untouchable(files=paths)))
    assert len(looked) < 200


def test_loaders_in_dicts_in_a_list_are_gathered_by_place_and_name() -> None:
    one, other = (DataLoader(TensorDataset(torch.arange(count))) for count in (3, 4))
    assert list(gather({"val": [{"a": one}, {"b": other, "c": one}]})) == ["val.0.a", "val.1.b", "val.1.c"]
