"""Checkpoint files of Lightning and torch: versions written as such, and such taken in as versions."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch

from mvc_callbacks import files, lineage
from mvc_callbacks.errors import Misconfigured, UnsupportedFormat
from mvc_callbacks.export import check_target
from mvc_callbacks.hyperparameters import hiding, tell
from mvc_callbacks.lightning_io import checkpoint_of
from mvc_callbacks.markers import without_markers
from mvc_callbacks.progress import Progress
from mvc_callbacks.snapshot import Snapshot
from mvc_callbacks.store import VersionStore
from mvc_callbacks.tensors import State, Tensor
from mvc_callbacks.torch_state import snapshot
from mvc_callbacks.torch_tensors import to_neutral
from mvc_callbacks.versions import Monitor, Version
from mvc_callbacks.weight_files import digest_of_file, read_safetensors

__all__ = ["import_file", "tensors_of", "write_checkpoint"]

_PICKLED = (".ckpt", ".pt", ".pth", ".bin")
_MODE = re.compile(r"'mode': '(min|max)'")
_UNSAFE = re.compile(r"GLOBAL ([\w.]+)")


def write_checkpoint(
    store: VersionStore, ref: str, path: str | os.PathLike[str], *, overwrite: bool = False
) -> int:
    """Write a version as a ``.ckpt`` that Lightning opens where this package is not installed.

    ``MyModel.load_from_checkpoint(path)`` and ``trainer.fit(model, ckpt_path=path)`` take it.
    Without a training state (pruned, or never saved) only the first does.

    Returns:
        Its size in bytes.

    Raises:
        FileExistsError: If the file is there already.
        Misconfigured: If the version is of Keras.
        OSError: If the disk refuses; nothing is left behind.
    """
    target = check_target(path, overwrite=overwrite)
    version = store.get(ref)
    if version.framework == "keras":
        raise Misconfigured(
            f"{version.run}/{version.number} is of Keras and no Lightning checkpoint: "
            "export it as safetensors"
        )
    checkpoint = without_markers(checkpoint_of(store, version.id, for_fit=False))
    files.sweep(target.parent)
    staged = files.stage(target.parent, [])
    try:
        torch.save(checkpoint, staged)
        with staged.open("rb+") as file:
            os.fsync(file.fileno())
    except BaseException:
        staged.unlink(missing_ok=True)
        raise
    files.move(staged, target)
    files.sync_folder(target.parent)
    return target.stat().st_size


def tensors_of(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read the weights of a file: safetensors, Lightning's ``.ckpt``, or a saved state dict.

    Raises:
        UnsupportedFormat: If it is none of these, or only unpickling could open it.
    """
    taken = _read(Path(path).expanduser())[0]
    return dict(taken.weights.tensors)


def import_file(
    store: VersionStore,
    paths: list[Path],
    *,
    run: str = "imported",
    framework: str | None = None,
    progress: Progress | None = None,
) -> list[Version]:
    """Take files in as the versions of one run.

    Args:
        store: The store; made where there is none.
        paths: Files, in the order of the versions.
        run: The run's label.
        framework: Else found out from the files.
        progress: Called with the files' bytes that are in the store, and all of them.

    Returns:
        The versions.

    Raises:
        UnsupportedFormat: If one of them cannot be read without unpickling; then none is taken in.
    """
    read = [(path, *_read(path)) for path in map(Path.expanduser, paths)]  # all, before anything is written
    kinds = {known["framework"] for _, _, known in read}
    opened = store.open_run(
        run,
        framework=framework or ("lightning" if "lightning" in kinds else "torch"),
        record={"imported": True},
    )
    made = []
    done, whole = 0, sum(path.stat().st_size for path, _, _ in read)
    for path, taken, known in read:
        parent = lineage.by_content(store, taken.weights)
        size = path.stat().st_size
        source = {"file": path.name, "sha256": digest_of_file(path), "bytes": size}
        made.append(
            opened.commit(
                taken,
                epoch=known["epoch"],
                step=known["step"],
                metrics=known["metrics"],
                monitor=known["monitor"],
                parents=(parent,) if parent is not None else (),
                hyperparameters=known["hyperparameters"],
                facts={"imported": {**source, **known["told"]}, **known["facts"]},
            )
        )
        done += size
        if progress is not None:
            progress(done, whole)
    return made


def _read(path: Path) -> tuple[Snapshot, dict[str, Any]]:
    if path.suffix.lower() in _PICKLED:
        return _read_checkpoint(path)
    tensors, metadata = read_safetensors(path)
    nothing: dict[str, Any] = {"epoch": None, "step": None, "metrics": {}, "monitor": None, "facts": {}}
    known = {**nothing, "framework": "torch", "hyperparameters": {}, "told": {"metadata": metadata}}
    return Snapshot(State(tensors)), known


def _read_checkpoint(path: Path) -> tuple[Snapshot, dict[str, Any]]:
    if not path.is_file():
        raise FileNotFoundError(2, "there is no such file", str(path))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # pickle, zipfile, torch and the codecs each have errors of their own
        named = _UNSAFE.search(str(error))
        why = (
            f"it needs {named[1]}, which only unpickling could make" if named else str(error).splitlines()[0]
        )
        raise UnsupportedFormat(
            f"{path} is not opened: {why[:300]}. Nothing is unpickled here; if you trust it, load "
            "it yourself and save it with plain values, or commit its state dict with VersionStore.commit"
        ) from error
    if not isinstance(checkpoint, Mapping):
        raise UnsupportedFormat(
            f"{path} holds a {type(checkpoint).__name__}, and no checkpoint or state dict"
        )
    if not isinstance(checkpoint.get("state_dict"), Mapping):
        if not any(isinstance(each, torch.Tensor) for each in checkpoint.values()):
            raise UnsupportedFormat(f"{path} holds no 'state_dict', and is none itself")
        checkpoint = {"state_dict": checkpoint}
    return snapshot(checkpoint, copy=False, masked=hiding(())), _known(checkpoint)


def _known(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    lightning = checkpoint.get("pytorch-lightning_version")
    monitor, metrics = _watched(checkpoint.get("callbacks"))
    sections = {
        "module": checkpoint.get("hyper_parameters"),
        "datamodule": checkpoint.get("datamodule_hyper_parameters"),
    }
    found: dict[str, Any] = {name: dict(each) for name, each in sections.items() if isinstance(each, Mapping)}
    name = checkpoint.get("hparams_name")
    if found.get("module") and isinstance(name, str):
        found["module_meta"] = {"class": None, "hparams_name": name, "hparams_type": None}
    return {
        "framework": "lightning" if isinstance(lightning, str) else "torch",
        "epoch": _whole(checkpoint.get("epoch")),
        "step": _whole(checkpoint.get("global_step")),
        "metrics": metrics,
        "monitor": monitor,
        "hyperparameters": tell(found, inline=to_neutral) if found else {},
        "facts": {"lightning": lightning} if isinstance(lightning, str) else {},
        "told": {},
    }


def _whole(value: object) -> int | None:
    return value if type(value) is int and 0 <= value < 2**63 else None


def _watched(callbacks: Any) -> tuple[Monitor | None, dict[str, float]]:
    """Return what ModelCheckpoint watched, and its value when the file was written."""
    for key, state in callbacks.items() if isinstance(callbacks, Mapping) else ():
        if "ModelCheckpoint" not in str(key) or not isinstance(state, Mapping):
            continue
        name, score, mode = state.get("monitor"), state.get("current_score"), _MODE.search(str(key))
        if isinstance(name, str) and isinstance(score, (int, float, torch.Tensor)):
            direction: Literal["min", "max"] = "max" if mode is not None and mode[1] == "max" else "min"
            return (Monitor(name, direction) if mode else None), {name: float(score)}
    return None, {}
