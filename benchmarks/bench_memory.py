"""The largest memory of a process that trains and saves, beside one that only trains."""

from __future__ import annotations

import functools

from benchmarks.harness import Row, Table, alternate, apart
from benchmarks.savers import fit

_CASES = (("512 MB", "sgd", "512 MB of weights, SGD"), ("gpt2", "adam", "GPT-2 124M, Adam, 1.5 GB"))
_SAVERS = ("none", "ours", "ModelCheckpoint", "AsyncCheckpointIO")


def tables(quick: bool) -> list[Table]:
    """Measure; about three minutes. Peaks hardly vary: they are measured once."""
    rows = []
    for model, optimizer, figure in (("tiny", "sgd", "a tiny model"),) if quick else _CASES:
        given = {"model": model, "optimizer": optimizer, "every": 2, "versions": 1 if quick else 3}
        contenders = {name: functools.partial(apart, fit, saver=name, **given) for name in _SAVERS}
        results = alternate(contenders, 1)
        above = {
            name: tuple(
                (each["peak"] - alone["peak"]) / each["state"]
                for each, alone in zip(results[name], results["none"], strict=True)
            )
            for name in _SAVERS
        }
        for peer in _SAVERS[2:]:
            bar = 1.2 if peer == "ModelCheckpoint" else None
            rows.append(Row(figure, above["ours"], "states", above[peer], peer, bar, "ours"))
    return [
        Table(
            "Peak memory",
            "The largest resident memory of a fit with three versions, less that of the same fit without "
            "a callback, in sizes of the saved state (weights and optimizer).",
            tuple(rows),
        )
    ]
