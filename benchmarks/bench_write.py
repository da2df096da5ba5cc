"""Hashing and writing a state durably, beside torch.save with an fsync, and the files that it makes."""

from __future__ import annotations

import functools
import os
import time
from pathlib import Path

import torch

from benchmarks.harness import Row, Table, alternate, apart
from benchmarks.shapes import STATES, state_of
from mvc_callbacks import VersionStore


def tables(quick: bool) -> list[Table]:
    """Measure; about three minutes."""
    names = ["a small one"] if quick else ["ResNet-50", "GPT-2 124M", "1 024 tensors of 0.5 MB"]
    told = [_time_rows(name, 1 if quick else 3) for name in names]
    files = [
        _files_row(name)
        for name in ([*names] if quick else ["ResNet-50", "GPT-2 124M", "3 000 small tensors"])
    ]
    return [
        Table(
            "Hash and durable write",
            "A state that the store does not hold yet, written by `store.commit`: every tensor hashed, "
            "written and fsynced, then manifest, record and history. The peer is `torch.save` of the "
            "same state and an fsync of the file and its folder. The second row of each is a commit of "
            "what is stored already: it costs the hash. States are in memory, the file is new, all that "
            "was dirty before was synced.",
            tuple(row for rows in told for row in rows),
        ),
        Table(
            "Files for one version",
            "Objects with tensors, of which those under 2 MiB share packs; manifest and record are two more.",
            tuple(files),
        ),
    ]


def _time_rows(name: str, repetitions: int) -> list[Row]:
    contenders = {
        "ours": functools.partial(apart, commit, name=name),
        "peer": functools.partial(apart, torch_save, name=name),
    }
    results = alternate(contenders, repetitions)
    ours = results["ours"]
    size = sum(each.numel() * each.element_size() for each in state_of(name).values()) / 1e6
    figure = f"{name} ({len(STATES[name])} tensors, {size:.0f} MB)"
    peer = tuple(results["peer"])
    return [
        Row(figure, tuple(each["new"] for each in ours), "s", peer, "torch.save + fsync", 1.0),
        Row(
            f"{name}, stored already", tuple(each["again"] for each in ours), "s", peer, "torch.save + fsync"
        ),
    ]


def _files_row(name: str) -> Row:
    found = apart(count_files, name=name)
    return Row(f"{name} ({len(STATES[name])} tensors)", (found,), "files", bar=150, bar_on="ours")


def commit(name: str) -> dict[str, float]:
    """Commit a state that is new, and once more what is there."""
    store = VersionStore("store")
    # The run's own facts, such as the code, are told with its first version; that is not what is measured.
    store.commit({"first": torch.zeros(1)}, run="bench")
    state = state_of(name)
    os.sync()
    started = time.perf_counter()
    store.commit(state, run="bench")
    new = time.perf_counter() - started
    started = time.perf_counter()
    store.commit(state, run="bench")
    return {"new": new, "again": time.perf_counter() - started}


def torch_save(name: str) -> float:
    """Save a state with torch, and wait until the disk has it."""
    state = state_of(name)
    torch.save({"first": torch.zeros(1)}, "first.pt")
    os.sync()
    started = time.perf_counter()
    with Path("state.pt").open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    folder = os.open(".", os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)
    return time.perf_counter() - started


def count_files(name: str) -> int:
    """Count a version's files with tensors."""
    store = VersionStore("store")
    store.commit(state_of(name), run="bench")
    return sum(1 for _ in Path("store/objects").rglob("*.safetensors"))
