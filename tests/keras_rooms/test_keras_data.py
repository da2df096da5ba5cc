"""Promises of the data that fit's own arguments tell: found without being iterated, and told how."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras_models import BACKEND, data, small

from mvc_callbacks import Fingerprint, VersionStore, fingerprint_data
from mvc_callbacks.keras import VersionCheckpoint

X, Y = data()


def found(store: VersionStore, x: Any, y: Any = None, **options: Any) -> dict[str, Fingerprint]:
    """Fit, and return what the version says about the data."""
    declared = {"data": options.pop("data")} if "data" in options else {}
    callback = VersionCheckpoint(store, **declared)
    small().fit(x, y, epochs=1, verbose=0, callbacks=[callback], **options)
    assert callback.last_version is not None
    return dict(callback.last_version.data)


def test_arrays_are_known_by_content(store: VersionStore) -> None:
    one, same, other = (found(store, x, Y)["train"] for x in (X, X.copy(), X + 1))
    assert one.coverage == "arrays"
    assert one.how.startswith("argument x and y of fit")
    assert one.bytes == X.nbytes + Y.nbytes
    assert one.digest == same.digest != other.digest


def test_validation_data_is_known_likewise(store: VersionStore) -> None:
    given = found(store, X, Y, validation_data=(X[:8], Y[:8]))
    assert given["val"].bytes == X[:8].nbytes + Y[:8].nbytes
    assert "validation_data" in given["val"].how
    split = found(store, X, Y, validation_split=0.25)
    assert split["train"].bytes == (X.nbytes + Y.nbytes) * 3 // 4
    assert split["val"].bytes == (X.nbytes + Y.nbytes) // 4


def test_tensors_of_the_backend_are_known_by_content(store: VersionStore) -> None:
    told = found(store, keras.ops.convert_to_tensor(X), keras.ops.convert_to_tensor(Y))["train"]
    assert told.coverage == "arrays"
    assert told.bytes == X.nbytes + Y.nbytes


def test_declared_data_comes_first(store: VersionStore, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("1,2")
    told = found(store, X, Y, data={"train": str(tmp_path / "*.csv")})
    assert set(told) == {"train"}
    assert told["train"].files == 1
    assert told["train"].digest == fingerprint_data({"train": str(tmp_path / "*.csv")})["train"].digest


class Batches(keras.utils.PyDataset):
    """A dataset that counts how often it is asked."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__()
        self.asked = 0
        for name, value in attributes.items():
            setattr(self, name, value)

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Any:
        self.asked += 1
        return X[index * 8 : index * 8 + 8], Y[index * 8 : index * 8 + 8]


def test_a_pydataset_is_known_by_its_attributes(store: VersionStore, tmp_path: Path) -> None:
    arrays = found(store, Batches(x=X, y=Y))["train"]
    assert (arrays.coverage, arrays.bytes >= X.nbytes + Y.nbytes) == ("arrays", True)
    paths = []
    for number in range(3):
        paths.append(tmp_path / f"{number}.npy")
        np.save(paths[-1], X)
    files = found(store, Batches(files=[str(path) for path in paths]))["train"]
    assert files.files == 3


def test_the_data_is_never_asked_for_more_than_training_asks(store: VersionStore) -> None:
    without, with_ours = Batches(x=X), Batches(x=X)
    small().fit(without, epochs=2, verbose=0)
    small().fit(with_ours, epochs=2, verbose=0, callbacks=[VersionCheckpoint(store)])
    assert with_ours.asked == without.asked


def test_generators_are_opaque_and_lose_no_batch(store: VersionStore) -> None:
    drawn = []

    def batches() -> Iterator[Any]:
        for index in range(3):
            drawn.append(index)
            yield X[index * 8 : index * 8 + 8], Y[index * 8 : index * 8 + 8]

    told = found(store, batches(), steps_per_epoch=3)["train"]
    assert (told.coverage, told.digest) == ("opaque", None)
    assert "generator" in told.problems[0]
    assert drawn == [0, 1, 2]


def test_a_torch_loader_is_known_as_with_lightning(store: VersionStore) -> None:
    torch = pytest.importorskip("torch")
    from torch.utils.data import DataLoader, TensorDataset

    loader = DataLoader(TensorDataset(torch.tensor(X), torch.tensor(Y)), batch_size=8, shuffle=True)
    told = found(store, loader)["train"]
    assert told.coverage == "arrays"
    assert told.digest == fingerprint_data(loader).digest


def test_what_is_not_found_is_recorded_as_such_in_a_loop_of_ones_own(store: VersionStore) -> None:
    callback = VersionCheckpoint(store)
    model = small()
    callbacks = keras.callbacks.CallbackList([callback], model=model, epochs=1)
    callbacks.on_train_begin()
    callbacks.on_epoch_begin(0)
    model.train_on_batch(X, Y)
    callbacks.on_epoch_end(0, {"val_loss": 1.0})
    callbacks.on_train_end()
    assert callback.last_version is not None
    assert callback.last_version.data["train"].coverage == "none"
    assert "data=" in callback.last_version.data["train"].problems[0]


@pytest.mark.skipif(BACKEND != "tensorflow", reason="tf.data is TensorFlow's")
class TestTfData:
    """Pipelines of tf.data, walked back to files and tensors."""

    @pytest.fixture(autouse=True)
    def files(self, tmp_path: Path) -> None:
        import tensorflow as tf

        self.folder = tmp_path / "data"
        for number in range(3):
            (self.folder / "images" / f"class{number}").mkdir(parents=True)
            keras.utils.save_img(
                self.folder / "images" / f"class{number}" / "a.png", np.full((8, 8, 3), number)
            )
            (self.folder / f"{number}.txt").write_text("1 2 3 4\n" * 4)
            (self.folder / f"{number}.csv").write_text("a,b\n1,2\n3,4\n")
            with tf.io.TFRecordWriter(str(self.folder / f"{number}.tfrecord")) as writer:
                writer.write(b"record")

    def names(self, ending: str) -> list[str]:
        return sorted(str(path) for path in self.folder.glob(f"*.{ending}"))

    def plan(self, dataset: Any) -> Fingerprint:
        from mvc_callbacks.keras_data import fit_plans

        return fit_plans(None, {"x": dataset})["train"].compute().fingerprint

    def assert_files(self, dataset: Any, ending: str, count: int = 3) -> None:
        told = self.plan(dataset)
        assert (told.coverage, told.files) == ("files", count)
        assert told.digest == fingerprint_data(self.names(ending)).digest
        assert "tf.data" in told.how

    def test_records_through_map_batch_and_prefetch(self) -> None:
        import tensorflow as tf

        dataset = tf.data.TFRecordDataset(self.names("tfrecord"), num_parallel_reads=2)
        self.assert_files(dataset.map(lambda each: each).shuffle(3).batch(2).repeat().prefetch(1), "tfrecord")

    def test_text_lines(self) -> None:
        import tensorflow as tf

        self.assert_files(tf.data.TextLineDataset(self.names("txt")).cache().batch(2), "txt")

    def test_list_files_and_interleave(self) -> None:
        import tensorflow as tf

        listed = tf.data.Dataset.list_files(str(self.folder / "*.tfrecord"))
        self.assert_files(listed.interleave(tf.data.TFRecordDataset), "tfrecord")

    def test_files_read_in_a_map(self) -> None:
        import tensorflow as tf

        named = tf.data.Dataset.from_tensor_slices(self.names("txt"))
        self.assert_files(named.map(tf.io.read_file), "txt")

    def test_csv(self) -> None:
        import tensorflow as tf

        self.assert_files(tf.data.experimental.make_csv_dataset(self.names("csv"), 2, num_epochs=1), "csv")

    def test_zip(self) -> None:
        import tensorflow as tf

        both = (tf.data.TextLineDataset(self.names("txt")), tf.data.TFRecordDataset(self.names("tfrecord")))
        told = self.plan(tf.data.Dataset.zip(both))
        assert told.files == 6

    def test_image_folders(self) -> None:
        dataset = keras.utils.image_dataset_from_directory(
            self.folder / "images", image_size=(8, 8), verbose=False
        )
        told = self.plan(dataset.map(lambda image, label: (image, label)).prefetch(1))
        assert told.files == 3

    def test_tensors(self) -> None:
        import tensorflow as tf

        told = self.plan(tf.data.Dataset.from_tensor_slices((X, Y)).batch(8))
        assert (told.coverage, told.bytes) == ("arrays", X.nbytes + Y.nbytes)

    def test_a_generator_is_opaque(self) -> None:
        import tensorflow as tf

        dataset = tf.data.Dataset.from_generator(lambda: iter([1.0]), output_signature=tf.TensorSpec(()))
        assert self.plan(dataset.batch(1)).coverage == "opaque"

    def test_in_a_fit(self, store: VersionStore) -> None:
        import tensorflow as tf

        dataset = tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(48).batch(8)
        told = found(store, dataset, validation_data=dataset.take(2))
        assert told["train"].digest == told["val"].digest
        assert told["train"].how.startswith("argument x of fit; tensors of the tf.data pipeline")
