"""Other ways to keep checkpoints, run as their users run them, in the same fit."""

from __future__ import annotations

import functools
import statistics

from benchmarks.harness import Row, Table, alternate, apart, installed
from benchmarks.savers import NAMES, fit

_PEERS = (
    "ModelCheckpoint",
    "AsyncCheckpointIO",
    "torch.distributed async_save",
    "DVCLive log_model",
    "MLflow autologging",
)


def tables(quick: bool) -> list[Table]:
    """Measure; about four minutes."""
    peers = [name for name in _PEERS if name not in NAMES or installed(NAMES[name])]
    given = {
        "model": "tiny",
        "optimizer": "sgd",
        "every": 1,
        "versions": 2,
        "steps": "elsewhere",
        "pause": 0.05,
    }
    if not quick:
        given |= {"model": "512 MB", "versions": 4, "every": 10, "pause": 0.1}
    contenders = {name: functools.partial(apart, fit, saver=name, **given) for name in ("ours", *peers)}
    results = alternate(contenders, 1 if quick else 2)
    taken = {name: tuple(statistics.mean(each["taken"]) for each in results[name]) for name in contenders}
    whole = {name: tuple(each["fit"] for each in results[name]) for name in contenders}
    size = {name: tuple(each["bytes"] for each in results[name]) for name in contenders}
    about = (
        "512 MB of weights, SGD, 4 versions, 1 s of steps between two of them (steps take time, no "
        "cores). Ours is fsynced; of the peers only torch.distributed.checkpoint syncs its files. "
        "AsyncCheckpointIO and async_save are waited for at the end. DVCLive copies each checkpoint into "
        "DVC's cache; MLflow logs to a local folder."
    )
    return [
        Table(
            "Other ways to keep checkpoints: time taken from the training thread, per version",
            about,
            tuple(Row("per version", taken["ours"], "s", taken[name], name) for name in peers),
        ),
        Table(
            "Other ways to keep checkpoints: the whole fit",
            "The same fits, until everything is written.",
            tuple(Row("the fit", whole["ours"], "s", whole[name], name) for name in peers),
        ),
        Table(
            "Other ways to keep checkpoints: bytes on disk",
            "The same fits.",
            tuple(Row("4 versions", size["ours"], "MB", size[name], name) for name in peers),
        ),
    ]
