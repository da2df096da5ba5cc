"""A small model that is saved often: what each version costs beside its bytes."""

from __future__ import annotations

import functools
import statistics

from benchmarks.harness import Row, Table, alternate, apart
from benchmarks.savers import fit

_STOCK = "ModelCheckpoint"


def tables(quick: bool) -> list[Table]:
    """Measure; about three minutes."""
    rows = []
    for pause in (0.02,) if quick else (0.02, 0.1):
        given = {
            "model": "tiny" if quick else "8 MB",
            "optimizer": "sgd",
            "steps": "elsewhere",
            "pause": pause,
        }
        given |= {"every": 1 if quick else 2, "versions": 3 if quick else 20}
        contenders = {name: functools.partial(apart, fit, saver=name, **given) for name in ("ours", _STOCK)}
        results = alternate(contenders, 1 if quick else 3)
        ours, peer = (
            tuple(statistics.mean(each["taken"]) * 1e3 for each in results[name]) for name in contenders
        )
        figure = f"a save every {given['every'] * pause * 1e3:.0f} ms"
        rows.append(Row(figure, ours, "ms", peer, _STOCK, 0.5))
    return [
        Table(
            "A small model, 20 versions",
            "8 MB of weights, SGD; time taken from the training thread per version, mean over the fit, "
            "as above. A save that comes before the last one is durable waits for it: the first row "
            "shows the floor of a durable version, whatever its size.",
            tuple(rows),
        )
    ]
