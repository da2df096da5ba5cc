"""Every operation of the disk fails in turn, and again while the store recovers."""

from __future__ import annotations

import contextlib
import errno
import re
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from store_kit import LOSS, Crash, expected
from torture_kit import (
    CHANGING,
    HOWS,
    READING,
    TORTURE,
    Fault,
    Small,
    age,
    check,
    disk,
    figure,
    shot,
    small_store,
    staged,
    stride,
)

from mvc_callbacks import files, writing
from mvc_callbacks.errors import MVCError
from mvc_callbacks.export import write_safetensors
from mvc_callbacks.store import VersionStore


@dataclass(frozen=True)
class Act:
    """One thing done with a store.

    Attributes:
        do: Does it; returns what it acknowledged: full id to bits.
        removes: Ref of a version that may be gone after it.
        reads: Whether the operations that read are counted too: those that change nothing have no other.
    """

    do: Callable[[VersionStore, Path], dict[str, dict[str, bytes]]]
    removes: str | None = None
    reads: bool = False


def _save(seed: float) -> Callable[[VersionStore, Path], dict[str, dict[str, bytes]]]:
    def save(store: VersionStore, _: Path) -> dict[str, dict[str, bytes]]:
        run = store.open_run("new", framework="torch", record={"code": {}})
        version = run.commit(shot(seed), metrics={"val_loss": 0.1}, monitor=LOSS)
        return {version.id: expected(shot(seed))}

    return save


def _quietly(what: Callable[[VersionStore, Path], object]) -> Callable[[VersionStore, Path], dict]:
    def act(store: VersionStore, beside: Path) -> dict[str, dict[str, bytes]]:
        what(store, beside)
        return {}

    return act


ACTS = {
    "save": Act(_save(77)),
    "save what is there": Act(_save(2)),
    "prune": Act(_quietly(lambda store, _: store.prune("base/3")), removes="base/3"),
    "prune by rule": Act(_quietly(lambda store, _: store.prune(keep_last=1, run="base")), removes="base"),
    "delete": Act(_quietly(lambda store, _: store.delete_run("base")), removes="base"),
    "promote": Act(_quietly(lambda store, _: store.promote("base/4", "production"))),
    "remove an alias": Act(
        _quietly(lambda store, _: "production" in store.aliases() and store.remove_alias("production"))
    ),
    "rollback": Act(_quietly(lambda store, _: store.rollback("production"))),
    "evaluate": Act(_quietly(lambda store, _: store.evaluate("base/2", "test", {"accuracy": 1.0}))),
    "rebuild": Act(_quietly(lambda store, _: store.rebuild())),
    "restore": Act(_quietly(lambda store, _: store.tensors("other/1")), reads=True),
    "export": Act(
        _quietly(
            lambda store, beside: write_safetensors(store.tensors("base/2"), beside / "out.safetensors")
        ),
    ),
}


_WRITING = re.compile(
    r"os\.(open|replace|rename|link|symlink|unlink|remove|rmdir|mkdir|makedirs|fsync|write|truncate|utime)\("
    r"|\.(write_text|write_bytes)\(|(?<![\w.])open\(|import shutil|import tempfile"
    r"|[Pp]ath\.(unlink|mkdir|rmdir|touch|rename|replace|open)\("
)


def test_no_other_room_of_the_store_writes_files() -> None:
    rooms = {
        "aliases", "commit", "comparing", "export", "finding", "history", "holding", "layout", "lineage",
        "manifests", "objects", "packs", "pruning", "reading", "rebuilding", "records", "retention", "rows",
        "store", "store_reader", "verifying", "writing",
    }  # fmt: skip
    folder = Path(files.__file__).parent
    found = {
        room: match[0]
        for room in rooms
        for match in _WRITING.finditer((folder / f"{room}.py").read_text("utf-8"))
    }
    assert found == {}  # locks.py writes who holds a lock into the lock itself, and nothing else


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "LARGE", 32)
        return small_store(tmp_path_factory.mktemp("small") / "store")


@pytest.fixture(autouse=True)
def _small_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "LARGE", 32)
    monkeypatch.setattr(writing, "_THREADS", 1)  # the same order each time


def _ids(store: VersionStore, act: Act) -> frozenset[str]:
    if act.removes is None:
        return frozenset()
    if "/" in act.removes:
        return frozenset({store.get(act.removes).id})
    return frozenset(version.id for version in store.versions(act.removes))


def _try(act: Act, store: VersionStore, beside: Path, fault: Fault) -> dict[str, dict[str, bytes]]:
    """Do it with a fault; only what the disk said, or an error of ours, may come out."""
    with disk(fault), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return act.do(store, beside)
        except (OSError, MVCError, Crash):
            return {}


def _assert_nothing_stays(path: Path, beside: Path) -> None:
    """Assert that what a fault left is taken away a day later at the latest."""
    for folder in (path / "tmp", beside):
        age(folder)
    store = VersionStore(path)
    store.open_run("sweeps", framework="torch")
    write_safetensors({}, beside / "sweeps.safetensors")
    assert staged(path / "tmp") == staged(beside) == []


@pytest.mark.parametrize("name", ACTS)
def test_bad_input_42_43_44_45_46_whatever_operation_fails_nothing_acknowledged_is_lost(
    small: Small, tmp_path: Path, name: str
) -> None:
    act, tried = ACTS[name], 0
    kinds = CHANGING | READING if act.reads else CHANGING
    for turn, (how, lasting) in enumerate(HOWS):
        # The ordinary tests take each operation with some of the faults, and each fault with some operations.
        step, first = (stride(), 1 + turn % stride()) if TORTURE else (len(HOWS) * 2, 1 + turn * 2)
        for at in range(first, 10_000, step):
            path, beside = tmp_path / f"{turn}-{at}", tmp_path / f"beside-{turn}-{at}"
            beside.mkdir()
            store = small.copy(path)
            fault = Fault(at, how, lasting, kinds)
            removed = _ids(store, act)
            kept = {**small.promised, **_try(act, store, beside, fault)}
            after = check(path, kept, maybe_gone=removed)
            assert (
                after.aliases()["production"] in {after.get("base/4").id, *small.promised}
                if act.removes != "base" and (name != "remove an alias" or after.aliases())
                else True
            )
            if how != "kill" and not lasting:
                assert staged(path / "tmp") == staged(beside) == []
            tried += fault.struck
            if at % 5 == 0 or TORTURE:
                _assert_nothing_stays(path, beside)
                check(path, kept, maybe_gone=removed)
            shutil.rmtree(path)
            shutil.rmtree(beside)
            if not fault.struck:
                break
    assert tried > 1
    figure("faults", tried)


@pytest.mark.parametrize("name", [name for name in ACTS if name not in ("restore", "export")])
def test_bad_input_42_46_a_fault_during_the_recovery_from_a_fault_loses_nothing(
    small: Small, tmp_path: Path, name: str
) -> None:
    act, tried = ACTS[name], 0

    def recover(store: VersionStore, _: Path) -> dict[str, dict[str, bytes]]:
        store.rebuild()
        return _save(78)(store, tmp_path)

    for at in range(3, 10_000, 3 if TORTURE else 17):
        fault = Fault(at, "kill")
        for again in range(1 + at % 7, 10_000, 1 + stride() if TORTURE else 23):
            path = tmp_path / f"{at}-{again}"
            store = small.copy(path)
            removed = _ids(store, act)
            fault = Fault(at, "kill")
            kept = {**small.promised, **_try(act, store, tmp_path, fault)}
            how, lasting = HOWS[again % len(HOWS)]
            second = Fault(again, how, lasting)
            kept |= _try(Act(recover), VersionStore(path), tmp_path, second)
            check(path, kept, maybe_gone=removed)
            kept |= recover(VersionStore(path), tmp_path)
            check(path, kept, maybe_gone=removed)
            shutil.rmtree(path)
            tried += second.struck
            if not second.struck:
                break
        if not fault.struck:
            break
    assert tried
    figure("faults during a recovery", tried)


@pytest.mark.parametrize("name", ACTS)
def test_bad_input_42_43_a_read_that_fails_changes_no_answer(small: Small, tmp_path: Path, name: str) -> None:
    act, tried = ACTS[name], 0
    for at in range(1 if TORTURE else 2, 10_000, stride() if TORTURE else 29):
        path = tmp_path / f"{at}"
        store = small.copy(path)
        removed = _ids(store, act)
        fault = Fault(at, errno.EIO, at % 3 == 0, READING)
        kept = {**small.promised, **_try(act, store, tmp_path, fault)}
        check(path, kept, maybe_gone=removed)
        with contextlib.suppress(FileNotFoundError):
            (tmp_path / "out").unlink()
        shutil.rmtree(path)
        tried += fault.struck
        if not fault.struck:
            break
    figure("faults of reading", tried)
