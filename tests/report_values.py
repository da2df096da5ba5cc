"""Reports of versions that were never saved: rendering takes values, and values can be made."""

from __future__ import annotations

import hashlib
import math

from mvc_callbacks.report import Comparisons, Report
from mvc_callbacks.storage import RunStorage
from mvc_callbacks.versions import Fingerprint, Monitor, Parent, Version, Weights

LOSS = Monitor("val_loss", "min")


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def many_versions(*, runs: int, each: int, tensors: int = 400) -> Report:
    """Make a report of runs of as many versions; every third goes on from the middle of the one before."""
    comparisons = Comparisons()
    versions: list[Version] = []
    code = comparisons.add_facts({"commit": "c" * 40})
    for run in range(runs):
        given = comparisons.add_facts({"lr": round(0.1 / (1 + run * 1.2), 4), "width": 64})
        start = versions[-each // 2] if run % 3 == 2 else None
        first = (start.epoch or 0) + 1 if start else 0
        for number in range(each):
            before = versions[-1] if number else start
            state = digest(f"{run}/{number}")
            versions.append(
                Version(
                    id=digest(f"version {run}/{number}"),
                    run=f"run-{run}",
                    number=number + 1,
                    sequence=len(versions) + 1,
                    created=f"2026-01-{1 + run % 28:02}T{number % 24:02}:00:00+00:00",
                    framework="lightning",
                    epoch=first + number,
                    step=100 * (first + number + 1),
                    metrics={
                        "val_loss": 0.2
                        + 0.01 * ((run * 7) % 13)
                        + 2 * math.exp(-number / 9)
                        + 0.01 * (number % 3),
                        "lr": 0.1 * 0.8**number,
                    },
                    monitor=LOSS,
                    parents=(Parent(before.id, "run" if number else "resume"),) if before else (),
                    weights=Weights(state, tensors, 4 * tensors, 4 * tensors),
                    training_state=None,
                    data={"train": Fingerprint(digest("data"), "files", 100, 1000)},
                )
            )
            forms = {
                f"layer.{at}": ("F32", (1,), digest(f"{run}/{number}/{at}") if number or at else digest("0"))
                for at in range(tensors)
            }
            comparisons.versions[versions[-1].id] = {
                "hyperparameters": given,
                "code": code,
                "environment": code,
                "weights": comparisons.add_weights(state, forms),
                "files": {"train": None},
            }
    return Report(
        path="/models/many/model_versions",
        created="2026-02-01T00:00:00+00:00",
        versions=versions,
        storage=[RunStorage(f"run-{run}", each, each, 1000, 500 + run, 100 * run) for run in range(runs)],
        disk_bytes=10**6,
        comparisons=comparisons,
    )
