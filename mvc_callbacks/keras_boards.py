"""TensorBoard callbacks beside ours: each version's id is written beside the metrics of its epoch."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mvc_callbacks import logger_runs
from mvc_callbacks.errors import MVCWarning
from mvc_callbacks.versions import Version

__all__ = ["Boards"]

TAG = "mvc_version"


class Boards:
    """The TensorBoard callbacks of one fit.

    One that fails is warned about once, and left alone from then on; training goes on.

    Args:
        arguments: Of ``fit``; None where Keras' own does not run, and there are none.
    """

    def __init__(self, arguments: Mapping[str, Any] | None) -> None:
        given = (arguments or {}).get("callbacks")
        self._callbacks: list[Any] = list(_flat(given))
        self._boards = [each for each in self._callbacks if _is_board(each)]

    def told(self) -> dict[str, dict[str, str]]:
        """Tell where they write, and which runs of W&B and MLflow are open."""
        boards = {
            f"TensorBoard-{place}" if place > 1 else "TensorBoard": {"log_dir": str(each.log_dir)}
            for place, each in enumerate(self._boards, 1)
        }
        return {**boards, **logger_runs.active_runs()}

    def tell(self, version: Version) -> None:
        """Write a version that is on disk."""
        for board in list(self._boards):
            try:
                _write(board, version)
            except Exception as error:
                self._boards.remove(board)
                warnings.warn(
                    f"TensorBoard took no note of the version {version.run}/{version.number}, and of no "
                    f"later one: {type(error).__name__}: {error}",
                    MVCWarning,
                    stacklevel=2,
                )


def _write(board: Any, version: Version) -> None:
    # Private, and the one place: TensorBoard reads one file of a folder after the other, and would miss what
    # its callback writes after a second file was begun.
    try:
        _write_into(board._train_writer, board, version)
    except RuntimeError as error:
        if "closed" not in str(error):
            raise
        # Its turn at the end of training came before ours, and it writes no more.
        own = board.summary.create_file_writer(str(Path(board.log_dir) / "train"))
        _write_into(own, board, version)
        own.close()


def _write_into(writer: Any, board: Any, version: Version) -> None:
    with writer.as_default(), board.summary.record_if(True):
        text = f"{version.run}/{version.number}  \n`{version.id}`"
        board.summary.text(TAG, text, step=version.epoch or 0)
    writer.flush()


def _flat(given: Any) -> Iterable[Any]:
    inside = getattr(given, "callbacks", given)
    return inside if isinstance(inside, (list, tuple)) else [inside] if inside is not None else []


def _is_board(callback: Any) -> bool:
    return any(each.__name__ == "TensorBoard" for each in type(callback).__mro__)
