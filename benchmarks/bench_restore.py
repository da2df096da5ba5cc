"""Restoring weights into a model, beside torch.load and load_state_dict."""

from __future__ import annotations

import functools
import os
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import Row, Table, alternate, apart

_PEER = "torch.load + load_state_dict"


def tables(quick: bool) -> list[Table]:
    """Measure; about three minutes."""
    rows = []
    for model, figure in (
        (("tiny", "a tiny model"),) if quick else (("512 MB", "512 MB"), ("gpt2", "GPT-2 124M"))
    ):
        ways = ("verified", "unverified", _PEER, f"{_PEER}, mmap=True")
        contenders = {way: functools.partial(apart, restore, model=model, way=way) for way in ways}
        results = {way: tuple(each) for way, each in alternate(contenders, 1 if quick else 3).items()}
        rows += [
            Row(f"{figure}, verified", results["verified"], "s", results[_PEER], _PEER, 1.0),
            Row(f"{figure}, verify=False", results["unverified"], "s", results[_PEER], _PEER, 0.5),
            Row(f"{figure}, verify=False", results["unverified"], "s", results[ways[3]], ways[3]),
        ]
    return [
        Table(
            "Restoring into a model",
            "`restore_version(ref, model)` of a version that was just written, so that the page cache is "
            "warm, into a model that is there; median of three in a process. Verified: the SHA-256 of "
            "every byte is computed and compared before anything is assigned; torch.load checks nothing.",
            tuple(rows),
        )
    ]


def restore(model: str, way: str) -> float:
    """Restore a model three times in one way; return the median of the seconds."""
    from benchmarks import models
    from mvc_callbacks import VersionStore, restore_version

    module = models.module(model, "sgd")
    if way in ("verified", "unverified"):
        VersionStore("store").commit(module.state_dict(), run="bench")
        module = _other(module)

        def load() -> Any:
            restore_version("latest", module, store="store", verify=way == "verified")
    else:
        torch.save(module.state_dict(), "state.pt")
        module = _other(module)

        def load() -> Any:
            state = torch.load(Path("state.pt"), weights_only=True, mmap=way.endswith("mmap=True"))
            module.load_state_dict(state)

    os.sync()
    return statistics.median(_seconds(load) for _ in range(3))


def _other(module: Any) -> Any:
    for each in module.parameters():
        each.data.zero_()
    return module


def _seconds(load: Any) -> float:
    started = time.perf_counter()
    load()
    return time.perf_counter() - started
