"""Stores with very many versions: in the format itself, but without waiting for the disk."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mvc_callbacks.canonical import digest_of, encode
from mvc_callbacks.commit import Run
from mvc_callbacks.layout import Shared
from mvc_callbacks.manifests import Entry, Manifest
from mvc_callbacks.rows import row_of
from mvc_callbacks.snapshot import Snapshot
from mvc_callbacks.store import VersionStore
from mvc_callbacks.tensors import State, Tensor, weights_digest
from mvc_callbacks.versions import Monitor, Version

__all__ = ["MVC", "caches", "commit", "fill", "fill_with_manifests", "python", "state"]

MVC = "import sys; sys.argv[0] = 'mvc'; from mvc_callbacks.cli import main; main()"


@contextmanager
def caches(folder: Path) -> Iterator[None]:
    """Put the caches of this host into a folder that goes: nobody's own are measured or filled."""
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(folder)
    try:
        yield
    finally:
        os.environ.pop("XDG_CACHE_HOME")
        if before is not None:
            os.environ["XDG_CACHE_HOME"] = before


def python(code: str, *arguments: str) -> float:
    """Run code in a new process with its modules compiled; return its seconds, from start to end."""
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", code, *arguments],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONDONTWRITEBYTECODE": ""},
    )
    return time.perf_counter() - began


def state(tensors: int, size: int, seed: str, frozen: int = 0) -> State:
    """Make a state of tensors of some bytes each; the frozen ones are the same for every seed."""
    made = {}
    for at in range(tensors):
        name = f"base_model.model.layers.{at // 12}.self_attn.{at % 12}.lora_A.default.weight"
        digest = hashlib.sha256(f"{'frozen' if at < frozen else seed} {at}".encode()).digest()
        made[name] = Tensor("F32", (size // 4,), memoryview((digest * (size // 32 + 1))[:size]))
    names = list(made)
    return State(made, groups=dict.fromkeys(names[:frozen], "frozen"))


def commit(run: Run, seed: str, *, tensors: int = 8, size: int = 4096, frozen: int = 0) -> Version:
    """Make a version of a small model, as a callback does."""
    number = run.next_number
    return run.commit(
        Snapshot(state(tensors, size, seed, frozen)),
        epoch=number,
        step=number * 100,
        metrics={"val_loss": 1 / number, "val_acc": 0.5, "train_loss": 2.0},
        monitor=Monitor("val_loss", "min"),
    )


@contextmanager
def _at_once() -> Iterator[None]:
    """Wait for no disk: what is made here is only measured on."""
    real = os.fsync
    os.fsync = lambda descriptor: None
    try:
        yield
    finally:
        os.fsync = real


def fill(path: Path, runs: int, each: int) -> VersionStore:
    """Make a store of some runs of so many versions, which all have the weights of the first of their run."""
    store = VersionStore(path)
    with _at_once():
        for at in range(runs):
            run = store.open_run(f"run-{at:04d}", framework="torch")
            first = commit(run, f"run {at}")
            _copy(store, first, each, [first.weights.digest] * each)
    return store


def fill_with_manifests(path: Path, versions: int, tensors: int, trained: int) -> VersionStore:
    """Make a store of one run, whose versions share all tensors but the trained ones."""
    store = VersionStore(path)
    with _at_once():
        run = store.open_run("run-0000", framework="torch")
        first = commit(run, "first", tensors=tensors, size=64, frozen=tensors - trained)
        layout = store._layout
        base = layout.manifests.read(first.weights.digest)
        digests = [base.digest]
        pending: list[Manifest] = []
        for number in range(2, versions + 1):
            other = layout.manifests.write(_trained(base, trained, number), base)
            digests.append(other.digest)
            pending.append(other)
        # As each commit does.
        store.note_manifests(pending)
        _copy(store, first, versions, digests)
    return store


def _trained(base: Manifest, trained: int, number: int) -> Manifest:
    pack = _digest(f"pack {number}")
    kept = base.entries[: len(base.entries) - trained]
    changed = [
        Entry(
            each.name,
            each.dtype,
            each.shape,
            _digest(f"{number} {each.name}"),
            pack,
        )
        for each in base.entries[len(kept) :]
    ]
    entries = (*kept, *changed)
    digest = weights_digest((each.name, each.dtype, each.shape, each.digest) for each in entries)
    return Manifest(digest, entries)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _copy(store: VersionStore, first: Version, each: int, digests: list[str]) -> None:
    """Write records and rows like a run's first version's."""
    layout = store._layout
    record = layout.versions.read(first.id)
    rows = [row_of(first.id, record)]
    for number in range(2, each + 1):
        told = _next(record, number, rows[-1]["id"], digests[number - 1])
        data = encode(told)
        identity = digest_of(data)
        place = layout.versions.path_of(identity)
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(data)
        rows.append(row_of(identity, told))
    layout.history.replace(first.run, rows)
    layout.share(Shared(layout.shared().epoch, rows[-1]["sequence"], first.run))


def _next(record: dict[str, Any], number: int, parent: str, weights: str) -> dict[str, Any]:
    noise = int.from_bytes(hashlib.sha256(f"{parent}".encode()).digest()[:4], "little") / 2**32
    return {
        **record,
        "number": number,
        "sequence": record["sequence"] + number - 1,
        "epoch": number,
        "step": number * 100,
        "metrics": {"val_loss": 1 / number + noise, "val_acc": 0.5 + noise / 2, "train_loss": 2 / number},
        "parents": [{"id": parent, "how": "run", "shared": None}],
        "weights": {**record["weights"], "digest": weights},
    }
