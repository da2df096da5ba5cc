"""The power goes at any moment, and the disk keeps of what was not fsynced whatever it likes."""

from __future__ import annotations

import itertools
import shutil
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from power import Crash as Cut
from power import Power, Recorder, Step
from store_kit import LOSS, Crash, expected
from torture_kit import TORTURE, check, disk, figure, scale, shot, stride

from mvc_callbacks import files, writing
from mvc_callbacks.store import VersionStore

ACTS = ("save", "save what another run did not finish", "prune", "promote")


@pytest.fixture(autouse=True)
def _small_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "LARGE", 32)
    monkeypatch.setattr(writing, "_THREADS", 1)


def _save(store: VersionStore, run: str, seed: float) -> tuple[str, dict[str, bytes]]:
    version = store.open_run(run, framework="torch").commit(shot(seed), metrics={"val_loss": 1}, monitor=LOSS)
    return version.id, expected(shot(seed))


def _is_sync_of_objects(step: Step) -> bool:
    return step.kind == "sync folder" and step.path.startswith("objects/")


def _act(name: str, turn: int, store: VersionStore, recorder: Recorder) -> None:
    """Do it in a process that has synced nothing yet, and note what the caller is told."""
    files._durable.clear()
    if name == "save":
        recorder.told(("saved", *_save(store, f"run{turn}", 20 + turn)))
    elif name == "save what another run did not finish":
        recorder.stop = _is_sync_of_objects
        with pytest.raises(Crash):
            _save(store, f"unfinished{turn}", 30 + turn)
        recorder.stop = None
        files._durable.clear()
        recorder.told(("saved", *_save(store, f"run{turn}", 30 + turn)))
    elif name == "prune":
        identity = store.get(f"base/{turn}").id
        recorder.told(("pruning", identity))
        store.prune(identity)
        recorder.told(("pruned", identity))
    else:
        identity = store.get(f"base/{3 + turn}").id
        recorder.told(("moving", identity))
        store.promote(identity, "production")
        recorder.told(("moved", identity))


def _record(pair: tuple[str, str], path: Path) -> tuple[Power, dict[str, dict[str, bytes]]]:
    store = VersionStore(path)
    run = store.open_run("base", framework="torch")
    promised = {run.commit(shot(seed)).id: expected(shot(seed)) for seed in range(1, 6)}
    store.promote("base/3", "production")
    recorder = Recorder(path)
    with disk(recorder):
        for turn, name in enumerate(pair, 1):
            _act(name, turn, VersionStore(path), recorder)
    return Power(recorder), promised


def _assert_kept(cut: Cut, steps: list[Step], promised: dict[str, dict[str, bytes]], path: Path) -> None:
    told: list[Any] = [step.data for step in steps[: cut.at] if step.kind == "told"]
    kept = {**promised, **{each[1]: each[2] for each in told if each[0] == "saved"}}
    maybe = frozenset(each[1] for each in told if each[0] == "pruning")
    cut.write(path)
    store = check(path, kept, maybe_gone=maybe)
    for kind, identity, *_ in told:
        if kind == "pruned":
            assert not store.get(identity).has_weights
    moves = [store.get("base/3").id, *(each[1] for each in told if each[0] == "moving")]
    done = sum(each[0] == "moved" for each in told)
    assert store.aliases()["production"] in moves[done:]


def _try_all(cuts: Iterable[Cut], steps: list[Step], promised: dict[str, dict[str, bytes]], at: Path) -> int:
    seen = set()
    for place, cut in enumerate(cuts):
        if cut.digest in seen:
            continue
        seen.add(cut.digest)
        path = at / str(place)
        _assert_kept(cut, steps, promised, path)
        if len(seen) % 10 == 1:  # it goes on, and a rebuild finds the same
            store = VersionStore(path)
            before = store.versions()
            saved = _save(store, "after", 99)
            store.rebuild()
            assert {each.id for each in before} | {saved[0]} <= {each.id for each in store.versions()}
            check(path, {**dict([saved])})
        shutil.rmtree(path)
    return len(seen)


@pytest.mark.parametrize("pair", list(itertools.product(ACTS, ACTS)), ids="-".join)
def test_bad_input_46_a_power_cut_at_any_moment_loses_nothing_acknowledged(
    tmp_path: Path, pair: tuple[str, str]
) -> None:
    power, promised = _record(pair, tmp_path / "store")
    every = list(itertools.islice(power.every(), 0, None, stride())) if TORTURE else []
    if not TORTURE:
        # The last moments, where most is at stake, and a few others.
        step = max(1, len(power.steps) // 6)
        for at in range(len(power.steps), 0, -step):
            undecided = frozenset(power.undecided(at))
            every += [power.cut(at, undecided), power.cut(at, data="none")]
    figure(
        "power cuts: every moment, each operation dropped", _try_all(every, power.steps, promised, tmp_path)
    )
    drawn = scale(6, 625)
    samples = power.samples(zlib.crc32(repr(pair).encode()), drawn)
    figure(
        "power cuts: seeded samples that left different disks",
        _try_all(samples, power.steps, promised, tmp_path),
    )
    figure("power cuts: seeded samples drawn", drawn)


def test_the_model_of_the_disk_sees_a_missing_fsync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that never finds anything proves nothing."""
    monkeypatch.setattr(files, "sync_folder", lambda path: None)
    power, promised = _record(("save", "promote"), tmp_path / "store")
    with pytest.raises(AssertionError):
        _assert_kept(
            power.cut(len(power.steps), frozenset(power.undecided(len(power.steps)))),
            power.steps,
            promised,
            tmp_path / "cut",
        )
