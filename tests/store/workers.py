"""What processes do that a test kills, or lets work at once; no framework is imported."""

from __future__ import annotations

import errno
import os
import random
import socket
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from store_kit import LOSS
from torture_kit import CHANGING, READING, disk, shot

from mvc_callbacks import cli, locks, writing
from mvc_callbacks.errors import MVCError, PrunedVersion
from mvc_callbacks.store import VersionStore

Tell = Callable[[Any], None]
writing.LARGE = 32
os.fsync = lambda descriptor: None  # type: ignore[assignment]  # a kill cuts no power


def save(tell: Tell, path: str, run: str, first: int, count: int) -> None:
    """Save versions, telling each one's id and seed once it is acknowledged."""
    tell(["ready"])
    store = VersionStore(path)
    opened = store.open_run(run, framework="torch", record={"code": {}, "environment": {}})
    for seed in range(first, first + count):
        version = opened.commit(shot(seed), metrics={"val_loss": 1 / (seed + 1)}, monitor=LOSS)
        tell(["saved", version.id, seed])
    tell(["done"])


def command(tell: Tell, path: str, *args: str) -> None:
    """Do what ``mvc`` does."""
    tell(["ready"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            cli.mvc.main(["--store", path, *args])
        except SystemExit as left:
            tell(["done", left.code])


def prune(tell: Tell, path: str, seconds: float) -> None:
    """Prune versions of runs called ``victim``, again and again, telling what is about to go."""
    store = VersionStore(path)
    end = time.monotonic() + seconds
    tell(["ready"])
    while time.monotonic() < end and not Path(path, "..", "stop").exists():
        chosen = [
            version.id
            for version in store.versions()
            if version.run.startswith("victim") and version.has_weights
        ]
        tell(["pruning", chosen])
        store.prune_ids(chosen, what="weights", policy="the test's")
        store.prune(older_than="1980-01-01T00:00:00Z")  # sweeps
        time.sleep(0.02)
    tell(["done"])


def verify(tell: Tell, path: str, seconds: float) -> None:
    """Verify again and again, telling what is wrong, and restore versions at random."""
    dice = random.Random(1)
    end = time.monotonic() + seconds
    tell(["ready"])
    rounds = 0
    while time.monotonic() < end and not Path(path, "..", "stop").exists():
        report = VersionStore(path).verify()
        if not report.ok:
            tell(["problem", [problem.to_dict() for problem in report.problems]])
        versions = VersionStore(path).versions()
        if versions:
            try:
                VersionStore(path).tensors(dice.choice(versions))
            except PrunedVersion:
                pass
            except MVCError as error:
                tell(["problem", repr(error)])
        rounds += 1
    tell(["done", rounds])


def save_slowly(tell: Tell, path: str, run: str, first: int, count: int, host: str) -> None:
    """Save from another host, where each operation on names takes 5 ms."""
    socket.gethostname = lambda: host  # type: ignore[assignment]
    slow = (CHANGING | READING) - {"write", "read", "fstat"}

    def wait(name: str, args: tuple[Any, ...], real: Callable[..., Any]) -> Any:
        if name in slow:
            time.sleep(0.005)
        return real(*args)

    with disk(wait):
        save(tell, path, run, first, count)


def save_without_locks(tell: Tell, path: str, run: str, first: int, count: int) -> None:
    """Save where the file system has no locks."""

    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    locks._try_lock = refuse
    save(tell, path, run, first, count)


def hold(tell: Tell, path: str) -> None:
    """Hold the store's lock until killed."""
    with VersionStore(path)._layout.lock("holding on to it"):
        tell(["holding"])
        time.sleep(600)
