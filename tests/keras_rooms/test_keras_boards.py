"""Promises beside TensorBoard's callback: versions are written beside the metrics of their epochs."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import keras
import pytest
from keras_models import data, small

from mvc_callbacks import MVCWarning, VersionStore
from mvc_callbacks.keras import VersionCheckpoint

pytest.importorskip("tensorboard")
pytest.importorskip("tensorflow")
from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer


def fit(*callbacks: Any, **options: Any) -> None:
    x, y = data()
    small().fit(x, y, callbacks=list(callbacks), epochs=3, batch_size=8, verbose=0, **options)


def texts(folder: Path) -> dict[int, str]:
    """Return step to text, as TensorBoard reads them."""
    runs = EventMultiplexer().AddRunsFromDirectory(str(folder)).Reload()
    told = runs.Tensors("train", "mvc_version")
    metrics = [each.step for each in runs.Tensors("train", "epoch_loss")]
    assert metrics == [0, 1, 2], "what TensorBoard's own callback wrote is still read"
    return {each.step: each.tensor_proto.string_val[0].decode() for each in told}


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("first", ["versions", "board"])
def test_each_versions_id_is_a_text_at_its_epoch(
    store: VersionStore, tmp_path: Path, first: str, background: bool
) -> None:
    board = keras.callbacks.TensorBoard(tmp_path / "board")
    versions = VersionCheckpoint(store, run="first", background=background)
    fit(*([versions, board] if first == "versions" else [board, versions]))
    told = texts(tmp_path / "board")
    made = store.versions()
    assert list(told) == [0, 1, 2]
    for version, text in zip(made, told.values(), strict=True):
        assert version.id in text and f"first/{version.number}" in text
    assert made[0].details.run_record["loggers"] == {"TensorBoard": {"log_dir": str(tmp_path / "board")}}
    assert "architecture" in made[0].details.run_record


def test_a_board_that_fails_ends_no_training_and_is_told_of_once(store: VersionStore, tmp_path: Path) -> None:
    class Full(keras.callbacks.TensorBoard):  # type: ignore[misc, name-defined]
        @property
        def summary(self) -> Any:
            raise OSError("no space left")

        def set_model(self, model: Any) -> None: ...
        def on_train_begin(self, logs: Any = None) -> None: ...
        def on_train_end(self, logs: Any = None) -> None: ...
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None: ...
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None: ...
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None: ...
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None: ...

    with pytest.warns(MVCWarning, match="TensorBoard took no note of the version first/1") as seen:
        fit(VersionCheckpoint(store, run="first"), Full(tmp_path / "board"))
    assert len([each for each in seen if "took no note" in str(each.message)]) == 1
    assert len(store.versions()) == 3


def test_a_fit_without_boards_tells_of_none(store: VersionStore) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", MVCWarning)
        fit(VersionCheckpoint(store))
    assert "loggers" not in store.get("latest").details.run_record
