"""The history: what a commit, a look-up and a log cost in a store of 100 000 versions."""

from __future__ import annotations

import time
from collections.abc import Callable

from benchmarks import big
from benchmarks.harness import Row, Table, scratch
from mvc_callbacks.store import VersionStore

_IMPORT = "import tinydb, safetensors"


def tables(quick: bool) -> list[Table]:
    """Measure; about four minutes, of which making the stores takes three."""
    runs, each, one = (4, 10, 40) if quick else (1000, 100, 100_000)
    repetitions = 3 if quick else 9
    with scratch() as folder, big.caches(folder / "cache"):
        small = big.fill(folder / "small", 1, 10 if quick else 100)
        many = big.fill(folder / "many", runs, each)
        long = big.fill(folder / "long", 1, one)
        shapes = {f"{runs} runs of {each}": many, f"one run of {one}": long}
        return [
            _commits(small, shapes, repetitions),
            _lookups(small, shapes, repetitions),
            _commands(small, shapes, repetitions),
        ]


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _commits(small: VersionStore, shapes: dict[str, VersionStore], repetitions: int) -> Table:
    stores = {"few": small, **shapes}
    opened = {name: store.open_run("measured", framework="torch") for name, store in stores.items()}
    for run in opened.values():
        for _ in range(3):  # what is done once for a run, and for a store, is done
            run.prune([big.commit(run, f"before {len(run.chain)}").id], what="weights", policy="benchmark")
    plain: dict[str, list[float]] = {name: [] for name in stores}
    pruned: dict[str, list[float]] = {name: [] for name in stores}
    for _ in range(5 * repetitions):  # in turns: the disk is not the same from one minute to the next
        for name, run in opened.items():
            plain[name].append(_seconds(lambda run=run: big.commit(run, f"a {len(run.chain)}")))
            last = run.chain[-1]
            pruned[name].append(
                _seconds(
                    lambda run=run, last=last: (
                        big.commit(run, f"b {len(run.chain)}"),
                        run.prune([last], what="weights", policy="benchmark"),
                    )
                )
            )
    return Table(
        "Commits",
        f"A version of 8 tensors of 4 KB, fsynced as always, in a store that holds 100 000 versions, beside "
        f"one that holds 100; medians of {5 * repetitions}, taken in turns. With a removal: as a callback "
        "does with `save_top_k`, after each version the one before loses its weights.",
        tuple(
            row
            for name in shapes
            for row in (
                Row(f"commit, {name}", _ms(plain[name]), "ms", _ms(plain["few"]), "100 versions", 1.5),
                Row(
                    f"– with a removal, {name}",
                    _ms(pruned[name]),
                    "ms",
                    _ms(pruned["few"]),
                    "100 versions",
                    1.5,
                ),
            )
        ),
    )


def _ms(seconds: list[float]) -> tuple[float, ...]:
    return tuple(1000 * each for each in seconds)


def _lookups(small: VersionStore, shapes: dict[str, VersionStore], repetitions: int) -> Table:
    rows = []
    for name, store in shapes.items():
        run = "run-0000"
        there, few = store.get(run), small.get(run)
        for what, ref, other in (
            ("id", there.id, few.id),
            ("`latest`", "latest", "latest"),
            ("`<run>/<n>`", f"{run}/{there.number}", f"{run}/{few.number}"),
            ("prefix", there.short_id, few.short_id),
            ("`best`", "best", "best"),
            ("`<run>/best`", f"{run}/best", f"{run}/best"),
        ):
            store.get(ref)
            ours = [_seconds(lambda store=store, ref=ref: store.get(ref)) for _ in range(repetitions)]
            peer = [_seconds(lambda other=other: small.get(other)) for _ in range(repetitions)]
            rows.append(Row(f"{what}, {name}", _ms(ours), "ms", _ms(peer), "100 versions"))
    return Table(
        "Look-ups",
        "`VersionStore.get`, in a process that asked before; the caches of the host are warm. What names one "
        "version costs the reading of one database of at most 500 rows, in a store of any size.",
        tuple(rows),
    )


def _commands(small: VersionStore, shapes: dict[str, VersionStore], repetitions: int) -> Table:
    def log(store: VersionStore) -> float:
        return big.python(big.MVC, "log", "-n", "20", "--no-pager", "--store", str(store.path))

    def minimum() -> float:
        return big.python(_IMPORT)

    rows = []
    first = {name: log(store) for name, store in shapes.items()}
    nothing, base, package = [], [], []
    logs: dict[str, list[float]] = {name: [] for name in ("few", *shapes)}
    for _ in range(repetitions):
        base.append(minimum())
        nothing.append(big.python("pass"))
        package.append(big.python("import mvc_callbacks"))
        for name, store in {"few": small, **shapes}.items():
            logs[name].append(log(store))
    peer = (_ms(base), f"`{_IMPORT}`")
    rows.append(Row("`import mvc_callbacks`", _ms(package), "ms", _ms(nothing), "`pass`"))
    rows.append(Row("`mvc log -n 20`, 100 versions", _ms(logs["few"]), "ms", *peer))
    for name in shapes:
        rows.append(Row(f"`mvc log -n 20`, {name}", _ms(logs[name]), "ms", *peer, 3.0))
        rows.append(Row(f"– for the first time on a host, {name}", _ms([first[name]]), "ms", *peer))
    return Table(
        "Start-up",
        "Whole processes, beside `python -c`. Files and the host's summaries of the history are warm, but in "
        "the rows that say so: there the whole history is read once.",
        tuple(rows),
    )
