"""A small store made by real commits of neutral tensors; no framework is needed."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from typing import Any

from mvc_callbacks.snapshot import Snapshot
from mvc_callbacks.store import VersionStore
from mvc_callbacks.tensors import ITEM_SIZE, State, Tensor
from mvc_callbacks.versions import Fingerprint, Monitor, Parent, Version

LOSS = Monitor("val_loss", "min")
GIVEN: dict[str, Any] = {
    "api_key": {"$masked": True},
    "lr": 0.1,
    "net": {"act": {"$class": "torch.nn.ReLU"}, "width": 64},
    "root": {"$path": "/data/digits"},
}
CODE: dict[str, Any] = {"branch": "main", "commit": "a" * 40, "dirty": False}
ENVIRONMENT: dict[str, Any] = {"packages": {"numpy": "2.1.0", "torch": "2.13.0"}, "python": "3.11.7"}


def tensor(seed: int, shape: tuple[int, ...] = (4, 3), dtype: str = "F32") -> Tensor:
    """Make a tensor whose bytes follow from a seed."""
    count = ITEM_SIZE[dtype]
    for length in shape:
        count *= length
    return Tensor(dtype, shape, memoryview(random.Random(seed).randbytes(count)))


def snapshot(seed: int, extra: dict[str, Any] | None = None) -> Snapshot:
    """Make a state: a frozen part, the same for every seed, a head that is not, and a training state."""
    return Snapshot(
        weights=State(
            {
                "encoder": tensor(0, (64, 64)),
                "head.bias": tensor(seed + 1),
                "head.weight": tensor(seed + 2, (8, 8)),
            },
            groups={"encoder": "frozen"},
        ),
        extra=extra or {},
        tree={"epoch": seed, "momentum": {"$tensor": "momentum"}},
        tree_tensors=State({"momentum": tensor(seed + 3, (8, 8))}),
    )


def files(store: VersionStore, content: dict[str, str]) -> Fingerprint:
    """Store a listing, and fingerprint it."""
    lines = [
        json.dumps(
            {"path": path, "sha256": hashlib.sha256(text.encode()).hexdigest(), "size": len(text)},
            sort_keys=True,
            separators=(",", ":"),
        )
        for path, text in sorted(content.items())
    ]
    data = "".join(f"{line}\n" for line in lines).encode("ascii")
    listing = store.put_listing([data])
    return Fingerprint(
        listing, "files", len(lines), sum(map(len, content.values())), "ImageFolder", listing=listing
    )


def make_store(path: Path) -> tuple[VersionStore, list[Version]]:
    """Make two runs: ``baseline`` of three versions, and ``finetune`` of two that began from ``baseline/2``.

    The best is ``finetune/2``. The training data of ``finetune`` has one file that changed, and a new one.
    """
    store = VersionStore(path)
    train = {f"{each}/{number}.png": f"{each}{number}" for each in "ab" for number in range(3)}
    before, after = files(store, train), files(store, {**train, "a/0.png": "other", "c/0.png": "new"})
    record = {"code": CODE, "environment": ENVIRONMENT}
    run = store.open_run("baseline", framework="lightning", record=record)
    versions = [
        run.commit(
            snapshot(10 * epoch),
            epoch=epoch,
            step=100 * (epoch + 1),
            metrics={"train_loss": loss / 2, "val_loss": loss},
            monitor=LOSS,
            hyperparameters={"given": GIVEN},
            data={"train": before},
        )
        for epoch, loss in enumerate((0.5, 0.25, 0.3))
    ]
    packages = {**ENVIRONMENT["packages"], "torch": "2.14.0"}
    record = {
        "code": {**CODE, "commit": "b" * 40},
        "environment": {**ENVIRONMENT, "packages": packages},
        "resumes": versions[1].id,
    }
    run = store.open_run("finetune", framework="lightning", record=record)
    for place, loss in enumerate((0.24, 0.2)):
        versions.append(
            run.commit(
                snapshot(1000 + 10 * place),
                epoch=3 + place,
                step=400 + 100 * place,
                metrics={"train_loss": 0.1, "val_loss": loss},
                monitor=LOSS,
                parents=(Parent(versions[1].id, "resume"),) if place == 0 else None,
                hyperparameters={"given": {**GIVEN, "lr": 0.01, "warmup": True}},
                data={"train": after},
            )
        )
    return store, versions
