"""What the tests that torture a store share: a disk that fails, a small store to copy, and its promises.

The same tests run with small counts among the ordinary ones and with large ones in ``nox -s torture``.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from store_kit import LOSS, Crash, bits, expected, f32, snapshot

from mvc_callbacks import files
from mvc_callbacks.errors import PrunedVersion
from mvc_callbacks.snapshot import Snapshot
from mvc_callbacks.store import VersionStore

TORTURE = bool(os.environ.get("MVC_TORTURE"))
SHARE = float(os.environ.get("MVC_TORTURE") or 1)
"""How much of the counts of a torture run is done: MVC_TORTURE=0.1 does a tenth."""

CHANGING = frozenset({"fsync", "link", "mkdir", "open for writing", "replace", "rmdir", "unlink", "write"})
READING = frozenset({"fstat", "listdir", "lstat", "open", "read", "scandir"})
_HOOKED = (CHANGING | READING) - {"open for writing"}

Hook = Callable[[str, tuple[Any, ...], Callable[..., Any]], Any]


def scale(ordinary: int, torture: int) -> int:
    """Return how often to do something: few times among the ordinary tests, often in the torture session."""
    return max(1, round(torture * SHARE)) if TORTURE else ordinary


def stride() -> int:
    """Return how many to go on by in a torture run that tries each of something, or a share of them."""
    return max(1, round(1 / SHARE))


def figure(name: str, count: int) -> None:
    """Tell the torture session how much was tried; it adds up, and writes docs/reliability.md."""
    path = os.environ.get("MVC_TORTURE_FIGURES")
    if path:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps([name, count]) + "\n")


class Disk:
    """Stands in the room of files where `os` stands, and lets a hook do each operation.

    Args:
        hook: Called with the operation's name, its arguments, and what does it.
    """

    def __init__(self, hook: Hook) -> None:
        self._hook = hook

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in _HOOKED:
            return real

        def call(*args: Any) -> Any:
            told = "open for writing" if name == "open" and args[1] & os.O_WRONLY else name
            return self._hook(told, args, real)

        return call


@contextmanager
def disk(hook: Hook) -> Iterator[None]:
    """Put a disk in."""
    before = files.os
    files.os = Disk(hook)  # type: ignore[assignment]
    try:
        yield
    finally:
        files.os = before


@dataclass
class Fault:
    """Lets operation number ``at`` fail.

    Attributes:
        at: Counted from 1.
        how: An errno; ``short`` writes half; ``kill`` does not come back, nor does anything after it.
        lasting: Whether those after it fail too.
        kinds: Which operations are counted.
        count: How many there were.
    """

    at: int
    how: int | str
    lasting: bool = False
    kinds: frozenset[str] = CHANGING
    count: int = 0
    trace: list[str] = field(default_factory=list)

    def __call__(self, name: str, args: tuple[Any, ...], real: Callable[..., Any]) -> Any:
        counted = name in self.kinds and (self.how != "short" or name == "write")
        if counted:
            self.count += 1
            self.trace.append(name)
        if not (counted and (self.count == self.at or (self.lasting and self.count > self.at))):
            return real(*args)
        if self.how == "kill":
            self.lasting = True
            raise Crash
        if self.how == "short":
            return real(args[0], args[1][: max(1, len(args[1]) // 2)])
        if name == "write" and len(args[1]) > 1:
            real(args[0], args[1][: len(args[1]) // 2])  # a full disk takes what it can
        raise OSError(self.how, os.strerror(int(self.how)))

    @property
    def struck(self) -> bool:
        """Whether it came so far."""
        return self.count >= self.at


HOWS: tuple[tuple[int | str, bool], ...] = (
    (errno.EIO, False),
    (errno.ENOSPC, True),
    (errno.EACCES, False),
    ("short", False),
    (errno.EIO, True),
    (errno.ENOSPC, False),
    (errno.EACCES, True),
    ("short", True),
    ("kill", True),
)


# --- a small store, and what it promises ---

Promise = Mapping[str, dict[str, bytes]]


def shot(seed: float, **more: Any) -> Snapshot:
    """Make a state with packs and with objects of their own (where `writing.LARGE` is 32)."""
    return snapshot(seed, more={"single": f32(*([seed] * 10)), "shared": f32(*range(10))}, **more)


@dataclass(frozen=True)
class Small:
    """A small store, to be copied before it is tortured.

    Attributes:
        path: Where it lies.
        promised: Full id to the bits that must come back.
    """

    path: Path
    promised: dict[str, dict[str, bytes]]

    def copy(self, target: Path) -> VersionStore:
        """Copy it; no file of a store is ever written in place, so links will do."""
        shutil.copytree(self.path, target, copy_function=os.link)
        (target / "tmp" / "lock").unlink()
        return VersionStore(target)


def small_store(path: Path) -> Small:
    """Make a store of two runs, an alias that was moved, an evaluation and a version without weights."""
    store = VersionStore(path)
    promised = {}
    for label, seeds in (("base", (1, 2, 3, 4)), ("other", (11, 12))):
        run = store.open_run(label, framework="torch", record={"code": {}, "environment": {"python": "3"}})
        for seed in seeds:
            version = run.commit(
                shot(seed), metrics={"val_loss": 1 / seed}, monitor=LOSS, step=seed, epoch=seed
            )
            promised[version.id] = expected(shot(seed))
    del promised[store.get("base/1").id]
    store.prune("base/1", policy="an early one")
    store.promote("base/2", "production")
    store.promote("other/1", "production", why="better")
    store.evaluate("base/2", "test", {"accuracy": 0.5})
    return Small(path, promised)


def check(path: Path, promised: Promise, *, maybe_gone: frozenset[str] = frozenset()) -> VersionStore:
    """Assert that a store opens, keeps what it promised, shows nothing that is not whole, and verifies.

    Args:
        path: The store.
        promised: What must come back.
        maybe_gone: Ids of versions that a removal was asked for: they come back exactly, or say so.
    """
    store = VersionStore(path)
    shown = {version.id: version for version in store.versions()}
    lost = promised.keys() - shown.keys() - maybe_gone
    assert not lost, f"acknowledged versions are lost: {lost}"
    for identity, version in shown.items():
        try:
            told = bits(store, version)
        except PrunedVersion:
            assert identity not in promised or identity in maybe_gone
            continue
        assert told == promised.get(identity, told)
        if version.has_training_state:
            store.training_state(version)
    report = store.verify(full=True)
    assert report.ok, report.problems
    return store


def age(folder: Path) -> None:
    """Let two days pass over staged files."""
    before = time.time() - 2 * 24 * 3600
    for path in folder.glob(f"*{files.STAGED}"):
        os.utime(path, (before, before))


def staged(folder: Path) -> list[Path]:
    """Return the staged files of a folder."""
    return list(folder.glob(f"*{files.STAGED}"))
