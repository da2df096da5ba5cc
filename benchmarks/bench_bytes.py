"""Bytes on disk: what ten versions take, beside ten checkpoints and beside their distinct tensors."""

from __future__ import annotations

from typing import Any

from benchmarks.harness import Row, Table, apart
from benchmarks.savers import fit

_STOCK = "ModelCheckpoint"


def tables(quick: bool) -> list[Table]:
    """Measure; about three minutes. Sizes do not vary: everything is measured once."""
    versions = 3 if quick else 10
    frozen = _fits("tiny frozen" if quick else "gpt2 frozen", "sgd", ("ours", _STOCK), versions)
    adam = _fits("tiny" if quick else "100 MB", "adam", ("ours", "ours, all states", _STOCK), versions)
    fits = (frozen["ours"], adam["ours, all states"])
    once = [each["kept"] + versions * each["changed"] for each in fits]
    distinct = "distinct tensors"
    rows = (
        _row("95 % frozen, SGD", frozen["ours"], frozen[_STOCK]["bytes"], _STOCK, 0.15),
        _row("– the same", frozen["ours"], once[0], distinct, 1.03),
        _row("all trained, Adam, all states kept", adam["ours, all states"], once[1], distinct, 1.03),
        _row("– the same", adam["ours, all states"], adam[_STOCK]["bytes"], _STOCK, None),
        _row("all trained, Adam, the default", adam["ours"], adam[_STOCK]["bytes"], _STOCK, 0.55),
    )
    return [
        Table(
            f"Bytes for {versions} versions",
            "Everything in the store's folder, beside everything in ModelCheckpoint's, and beside the "
            "bytes of the tensors that differ. Frozen: GPT-2 124M of which the last block's MLP is "
            "trained. All trained: 100 MB of weights, 300 MB with Adam's. The default keeps the training "
            "state of the newest two versions and the best.",
            rows,
        )
    ]


def _fits(model: str, optimizer: str, savers: tuple[str, ...], versions: int) -> dict[str, dict[str, Any]]:
    # The steps of a frozen model only take time; Adam's have to change every moment of every weight.
    given: dict[str, Any] = {"model": model, "optimizer": optimizer, "every": 2, "versions": versions}
    if "frozen" in model:
        given |= {"steps": "elsewhere", "pause": 0.05}
    return {saver: apart(fit, saver=saver, **given) for saver in savers}


def _row(figure: str, ours: dict[str, Any], peer: float, name: str, bar: float | None) -> Row:
    return Row(figure, (ours["bytes"],), "MB", (peer,), name, bar)
