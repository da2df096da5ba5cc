"""The time that a callback adds before the first training step."""

from __future__ import annotations

import functools
from pathlib import Path

from benchmarks.harness import Row, Table, alternate, apart
from benchmarks.savers import fit


def tables(quick: bool) -> list[Table]:
    """Measure; about three minutes."""
    model, files = ("tiny", 20) if quick else ("512 MB", 20_000)
    contenders = {
        name: functools.partial(apart, start, saver=saver, model=model, files=files, again=again)
        for name, saver, again in (
            ("none", "none", False),
            ("ours", "ours, with data", False),
            ("ours again", "ours, with data", True),
            ("stock", "ModelCheckpoint", False),
        )
    }
    results = {name: tuple(each) for name, each in alternate(contenders, 1 if quick else 3).items()}
    peer = (results["none"], "no callback", 0.1, "difference")
    return [
        Table(
            "Before the first step",
            "From the call of `trainer.fit` to the first batch: 512 MB of weights and 20 000 files of 4 "
            "KB as data, which are fingerprinted beside training, for the first time. In the second row "
            "the store holds a version of this model already, and it is found out whether training "
            "begins from one.",
            (
                Row("a new store", results["ours"], "s", *peer),
                Row("a store that holds this model", results["ours again"], "s", *peer),
                Row(
                    "a new store, beside ModelCheckpoint",
                    results["ours"],
                    "s",
                    results["stock"],
                    "ModelCheckpoint",
                ),
            ),
        )
    ]


def start(saver: str, model: str, files: int, again: bool) -> float:
    """Return the seconds until the first step, of the first fit or of one that finds a store."""
    folder = Path("data")
    for at in range(files):
        place = folder / f"{at // 1000:02d}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{at:05d}.bin").write_bytes(at.to_bytes(4, "little") * 1024)
    given = {"model": model, "optimizer": "sgd", "every": 1, "versions": 1, "steps": "elsewhere"}
    if again:
        fit(saver="ours", **given)  # type: ignore[arg-type]
    else:
        fit(saver="none", **{**given, "model": "tiny"})  # type: ignore[arg-type]
    seconds: float = fit(saver=saver, **given)["start"]  # type: ignore[arg-type]
    return seconds
