"""Models of very many tensors: what removing a version costs, and what is written of one."""

from __future__ import annotations

from pathlib import Path

from benchmarks import big
from benchmarks.harness import Row, Table, scratch
from mvc_callbacks.store import VersionStore


def tables(quick: bool) -> list[Table]:
    """Measure; about three minutes, of which making the store takes two."""
    with scratch() as folder, big.caches(folder / "cache"):
        return [_removals(folder, quick)]


def _removals(folder: Path, quick: bool) -> Table:
    versions, tensors = (20, 60) if quick else (10_000, 3_000)
    store = big.fill_with_manifests(folder / "removals", versions, tensors, 60 if not quick else 10)
    removed = []
    for number in range(5, 10):
        removed.append(big.python(big.MVC, "prune", f"run-0000/{number}", "--store", str(store.path)))
    run = store.open_run("lora", framework="torch")
    before = _bytes(store)
    history = 3 if quick else 100
    for at in range(history):
        big.commit(run, f"lora {at}", tensors=tensors + 60, size=64, frozen=tensors)
    kilobytes = [each / history / 1000 for each in (_bytes(store) - before,)]
    return Table(
        "Models of very many tensors",
        f"`mvc prune` of one version of a model of {tensors} tensors beside {versions} others, which share "
        "all but 60: a new process each time. What others need is asked of the host's index, which saves "
        "keep; what was saved on another host is read once. And the manifests and records of "
        f"{history} versions of {tensors} frozen tensors and 60 that are trained.",
        (
            Row("prune of one version", tuple(removed), "s", bar=1.0, bar_on="ours"),
            Row("– the first of these, which reads the history", (removed[0],), "s"),
            Row("manifests and records of a version", tuple(kilobytes), "KB", bar=20.0, bar_on="ours"),
        ),
    )


def _bytes(store: VersionStore) -> int:
    found = (each for name in ("manifests", "versions", "runs") for each in (store.path / name).glob("*/*"))
    return sum(each.stat().st_size for each in found)
