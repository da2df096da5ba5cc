"""Neutral snapshots, faults and questions that the tests of the store share; no framework is needed."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mvc_callbacks import files
from mvc_callbacks.snapshot import Snapshot
from mvc_callbacks.store import VersionStore
from mvc_callbacks.tensors import State, Tensor
from mvc_callbacks.versions import Fingerprint, Monitor, Version

LOSS = Monitor("val_loss", "min")
LARGE = 1024 * 1024
"""Numbers of a tensor that is an object of its own."""


def f32(*values: float) -> Tensor:
    """Make a vector."""
    return Tensor("F32", (len(values),), memoryview(struct.pack(f"<{len(values)}f", *values)))


def large(byte: int) -> Tensor:
    """Make a tensor of 4 MB."""
    return Tensor("F32", (LARGE,), memoryview(bytes([byte]) * (4 * LARGE)))


def snapshot(seed: float, *, state: bool = True, more: dict[str, Tensor] | None = None) -> Snapshot:
    """Make a state: two tensors that train, a frozen one and a buffer that are the same for every seed."""
    weights = State(
        {"w": f32(seed, 1, 2), "b": f32(seed), "frozen": f32(7, 7), "buffer": f32(0.5), **(more or {})},
        groups={"frozen": "frozen", "buffer": "buffer"},
    )
    if not state:
        return Snapshot(weights)
    tree = {"step": seed, "momentum": {"$tensor": "momentum"}}
    return Snapshot(weights, tree=tree, tree_tensors=State({"momentum": f32(seed * 2, seed)}))


def many(seed: float, count: int = 60) -> Snapshot:
    """Make a state of many small tensors of which one changes with the seed."""
    tensors = {f"layer.{place}": f32(place, -place) for place in range(count)}
    return Snapshot(State({**tensors, "head": f32(seed)}))


def commit(store: VersionStore, run: str = "base", count: int = 1, **more: Any) -> list[Version]:
    """Make versions 1, 2, ... of a run whose loss falls."""
    opened = store.open_run(run, framework="torch", record={"code": {}, "environment": {"python": "3"}})
    return [
        opened.commit(
            snapshot(number),
            **{
                "epoch": number - 1,
                "step": number * 10,
                "metrics": {"val_loss": 1 / number},
                "monitor": LOSS,
                **more,
            },
        )
        for number in range(1, count + 1)
    ]


def bits(store: VersionStore, version: str | Version) -> dict[str, bytes]:
    """Read the weights of a version."""
    return {name: bytes(tensor.data) for name, tensor in store.tensors(version).items()}


def expected(shot: Snapshot) -> dict[str, bytes]:
    """Tell what `bits` must say of a version made of a snapshot."""
    return {name: bytes(tensor.data) for name, tensor in shot.weights.tensors.items()}


def answers(store: VersionStore) -> dict[str, Any]:
    """Ask a store everything that it answers from its history."""
    versions = store.versions()
    return {
        "versions": [version.without_loader() for version in versions],
        "aliases": store.aliases(),
        "log": store.alias_log(),
        "runs": store.runs(),
        "best": store.get("best").id,
        "latest": store.get("latest").id,
        "pruned": [version.pruned for version in versions],
        "evaluations": [version.evaluations for version in versions],
    }


def objects(store: VersionStore) -> dict[str, int]:
    """Return the names and bytes of a store's objects."""
    return {path.name: path.stat().st_size for path in (store.path / "objects").glob("*/*")}


def chunk(store: VersionStore, run: str = "base") -> Path:
    """Return a run's first history file."""
    return store.path / "history" / run / "0001.json"


def edit(path: Path, change: Callable[[Any], Any]) -> None:
    """Change a JSON file as somebody else's program would."""
    value = json.loads(path.read_bytes())
    changed = change(value)
    path.write_text(json.dumps(value if changed is None else changed), "utf-8")


def fingerprint(digit: str, coverage: str = "files") -> Fingerprint:
    """Make a fingerprint."""
    return Fingerprint(digit * 64, coverage, 3, 30, "test")  # type: ignore[arg-type]


class Crash(BaseException):
    """What a fault raises; a BaseException, so that nothing may take it for an error of its own."""


_OPERATIONS = ("fsync", "mkdir", "open", "replace", "unlink", "write")


@contextmanager
def fault(
    monkeypatch: pytest.MonkeyPatch, at: int, error: Callable[[], BaseException], *, dead: bool = False
) -> Iterator[list[str]]:
    """Let the operation number ``at`` of the room of files fail.

    Args:
        monkeypatch: Puts the fault in.
        at: Counted from 1 over all threads.
        error: Makes what is raised.
        dead: Whether every operation after it fails too, as after a kill: nothing is cleaned up.

    Yields:
        The operations, as far as they came.
    """
    trace: list[str] = []

    class Faulty:
        def __getattr__(self, name: str) -> Any:
            real = getattr(os, name)
            if name not in _OPERATIONS:
                return real

            def call(*args: Any, **kwargs: Any) -> Any:
                if name != "open" or args[1] & os.O_WRONLY:
                    trace.append(name)
                    if len(trace) == at or (dead and len(trace) > at):
                        raise error()
                return real(*args, **kwargs)

            return call

    with monkeypatch.context() as patch:
        patch.setattr(files, "os", Faulty())
        yield trace
