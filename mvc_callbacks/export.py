"""Export: a stock safetensors file of neutral tensors, under their own names."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mvc_callbacks import files
from mvc_callbacks.errors import BadName, UnsafeFile, UnsupportedTensor
from mvc_callbacks.tensors import STORED_AS_BYTES, Tensor, item_size

__all__ = ["check_target", "write_huggingface", "write_safetensors"]

_LONGEST_HEADER = 100_000_000  # stock safetensors refuses longer ones
# Stock safetensors knows these by now, although our objects keep them as bytes; None: it has no name for it.
_STOCK: Mapping[str, str | None] = {
    **dict.fromkeys(STORED_AS_BYTES),
    "C64": "C64",
    "F4_E2M1X2": "F4",
    "F8_E4M3FNUZ": "F8_E4M3FNUZ",
    "F8_E5M2FNUZ": "F8_E5M2FNUZ",
    "F8_E8M0": "F8_E8M0",
}


def write_safetensors(
    tensors: Mapping[str, Tensor],
    path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    metadata: Mapping[str, str] | None = None,
) -> int:
    """Write tensors into a file that ``safetensors.torch.load_file`` opens.

    The file appears whole or not at all. Tied tensors are written once for each name: the format has no ties.

    Args:
        tensors: Name to tensor.
        path: The file.
        overwrite: Replace a file that is there.
        metadata: Texts for the header.

    Returns:
        Its size in bytes.

    Raises:
        FileExistsError: If the file is there already.
        BadName: If safetensors cannot hold a tensor of some name.
        UnsupportedTensor: If it has no dtype for a tensor.
        UnsafeFile: If the path is a folder, a device, or the like.
        OSError: If the disk refuses; nothing is left behind.
    """
    target = check_target(path, overwrite=overwrite)
    header, ordered = _layout(tensors, metadata or {})
    files.sweep(target.parent)
    staged = files.stage(target.parent, _chunks(header, ordered))
    files.move(staged, target)
    files.sync_folder(target.parent)
    return len(header) + sum(tensor.nbytes for tensor in ordered)


def write_huggingface(
    tensors: Mapping[str, Tensor], folder: str | os.PathLike[str], card: str, *, overwrite: bool = False
) -> int:
    """Write a folder as Hugging Face lays it out: ``model.safetensors`` and the card ``README.md``.

    A ``config.json`` is not written: only the code that made the model knows what should be in it.

    Args:
        tensors: Name to tensor.
        folder: The folder; made where there is none.
        card: Markdown with front matter.
        overwrite: Replace what is there of the two files.

    Returns:
        Size of the weights in bytes.

    Raises:
        OSError, BadName, UnsupportedTensor: As `write_safetensors`.
    """
    target = Path(folder).expanduser()
    if target.exists() and not target.is_dir():
        raise UnsafeFile(f"{target} is a file: give the name of a folder")
    made = not target.exists()
    if made:
        if not target.parent.is_dir():
            raise FileNotFoundError(2, "there is no such folder; make it first", str(target.parent))
        target.mkdir()
    try:
        readme = check_target(target / "README.md", overwrite=overwrite)
        # Without this transformers refuses the file.
        written = write_safetensors(
            tensors, target / "model.safetensors", overwrite=overwrite, metadata={"format": "pt"}
        )
    except BaseException:
        if made and not any(target.iterdir()):
            target.rmdir()
        raise
    files.move(files.stage(target, [card.encode("utf-8", "backslashreplace")]), readme)
    files.sync_folder(target)
    return written


def check_target(path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Tell whether a file could be written, before anything is read for it.

    Returns:
        The file, links followed.

    Raises:
        OSError: As `write_safetensors`.
    """
    target = Path(path).expanduser()
    if target.is_symlink():
        target = target.resolve()  # the link stays, what it leads to is replaced
    if not target.parent.is_dir():
        raise FileNotFoundError(2, "there is no such folder; make it first", str(target.parent))
    if target.exists() and not target.is_file():
        raise UnsafeFile(f"{target} is not a regular file: give the name of a file")
    if target.exists() and not overwrite:
        raise FileExistsError(
            17, "the file is there already; give another name, or overwrite it (--force)", str(target)
        )
    return target


def _chunks(header: bytes, tensors: list[Tensor]) -> Iterator[files.Buffer]:
    yield header
    for tensor in tensors:
        yield tensor.data


def _layout(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> tuple[bytes, list[Tensor]]:
    """Return the header, and the tensors in the order of their data: largest items first, to be aligned."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    ordered = []
    at = 0
    for name in sorted(tensors, key=lambda each: (-item_size(tensors[each].dtype), each)):
        tensor = tensors[name]
        if name == "__metadata__":
            raise BadName(
                "safetensors cannot hold a tensor named '__metadata__': the format itself uses this name"
            )
        dtype, shape = _stock_form(name, tensor)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + tensor.nbytes]}
        at += tensor.nbytes
        ordered.append(tensor)
    text = json.dumps(header, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % 8)
    if len(text) > _LONGEST_HEADER:
        raise UnsupportedTensor(
            f"the names of {len(header)} tensors take {len(text)} bytes, more than safetensors accepts"
        )
    return len(text).to_bytes(8, "little") + text, ordered


def _stock_form(name: str, tensor: Tensor) -> tuple[str, list[int]]:
    dtype = _STOCK.get(tensor.dtype, tensor.dtype)
    shape = list(tensor.shape)
    if dtype == "F4":  # two values in a byte: torch counts bytes, safetensors values
        dtype, shape = (dtype, [*shape[:-1], shape[-1] * 2]) if shape else (None, shape)
    if dtype is None:
        raise UnsupportedTensor(
            f"safetensors has no dtype for {name!r:.100} ({tensor.dtype}, {list(tensor.shape)}): "
            "read this version with VersionStore().state_dict(ref)"
        )
    return dtype, shape
