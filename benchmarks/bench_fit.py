"""Fits with a checkpoint each while: what a version takes from the training thread, and the whole fit."""

from __future__ import annotations

import functools
import statistics
from typing import Any

from benchmarks.harness import Row, Table, alternate, apart
from benchmarks.savers import fit

_STOCK = "ModelCheckpoint"


def tables(quick: bool) -> list[Table]:
    """Measure the 512 MB; about four minutes."""
    if quick:
        return tables_of("tiny", "sgd", "a tiny model, SGD", versions=3, repetitions=1)
    return tables_of("512 MB", "sgd", "512 MB of weights, SGD", versions=4, repetitions=3)


def tables_of(model: str, optimizer: str, figure: str, *, versions: int, repetitions: int) -> list[Table]:
    """Measure fits of one model; see `models.module`."""
    taken: list[Row] = []
    whole: list[Row] = []
    for steps, told in (("cpu", "steps on the same two cores"), ("elsewhere", "steps elsewhere")):
        ours, peer = _compare(model, optimizer, steps, versions, repetitions)
        taken.append(Row(told, _each(ours, "taken"), "s", _each(peer, "taken"), _STOCK, 0.10))
        whole.append(Row(told, _each(ours, "fit"), "s", _each(peer, "fit"), _STOCK, 0.7))
        whole.append(Row("– of it after the last step", _each(ours, "end"), "s", _each(peer, "end"), _STOCK))
    return [
        Table(
            f"Time taken from the training thread, per version: {figure}",
            "From the end of an optimizer step to the moment when Lightning is done with its hooks, mean "
            "over the versions of a fit. Ours is durable (fsynced) when it is acknowledged, "
            'ModelCheckpoint\'s files are in the page cache only. "On the same two cores": each step '
            'computes with both, while ours hashes and writes. "Elsewhere": a step only takes time, as '
            "when an accelerator computes.",
            tuple(taken),
        ),
        Table(
            f"The whole fit: {figure}",
            "`trainer.fit`, from call to return: the same fits, where the steps between two checkpoints "
            "take about as long as one save of ModelCheckpoint. Ours returns when everything is on disk, "
            "ModelCheckpoint before.",
            tuple(whole),
        ),
    ]


def _compare(
    model: str, optimizer: str, steps: str, versions: int, repetitions: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Fit with ours and the peer; as many steps between saves as last about one save of the peer."""
    given: dict[str, Any] = {"model": model, "optimizer": optimizer, "steps": steps}
    first = apart(fit, saver=_STOCK, every=2, versions=2, **given)
    save = statistics.mean(first["taken"])
    given["every"] = max(1, round(save / first["step"]))
    given["versions"] = versions
    contenders = {name: functools.partial(apart, fit, saver=name, **given) for name in ("ours", _STOCK)}
    results = alternate(contenders, repetitions)
    return results["ours"], results[_STOCK]


def _each(results: list[dict[str, Any]], what: str) -> tuple[float, ...]:
    return tuple(
        statistics.mean(each[what]) if isinstance(each[what], list) else each[what] for each in results
    )
