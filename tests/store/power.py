"""A model of what a disk keeps when the power goes, and a recorder of the operations that it is asked about.

What is written into a file is kept once the file was fsynced; a name is kept once its folder was fsynced, and
may be kept before. What was not fsynced may be kept or not, each operation for itself and in any order: this
is less than any journaling file system promises.
"""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Inode = str
_NAMING = ("create", "rename", "unlink", "mkdir", "rmdir")
Data = Literal["kept", "none", "half", "zeros"]


@dataclass(frozen=True)
class Step:
    """One operation.

    Attributes:
        kind: ``create``, ``write``, ``sync`` (a file), ``sync folder``, ``rename``, ``unlink``, ``mkdir``,
            ``rmdir``, or ``told``: the caller was told that something is durable.
        path: The name that it makes or takes away, or the folder; relative to the store.
        inode: The file.
        source: The name that a rename takes away.
        data: What was written, or told.
    """

    kind: str
    path: str = ""
    inode: Inode = ""
    source: str = ""
    data: Any = None


class Recorder:
    """A hook of `torture_kit.disk` that records what is done in a store.

    Args:
        root: The store; all of it is durable when the recording begins.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.steps: list[Step] = []
        self.before = {
            str(path.relative_to(root)): path.read_bytes()
            for path in root.rglob("*")
            if path.is_file() and path.name != "lock"
        }
        self.folders = {"."} | {str(path.relative_to(root)) for path in root.rglob("*") if path.is_dir()}
        self._names: dict[str, Inode] = {path: f"before:{path}" for path in self.before}
        self._open: dict[int, tuple[str, Inode | None]] = {}
        self.stop: Callable[[Step], bool] | None = None

    def _path(self, path: Path) -> str:
        return os.path.relpath(path, self.root)

    def __call__(self, name: str, args: tuple[Any, ...], real: Callable[..., Any]) -> Any:
        step = self._step(name, args)
        if step is not None and self.stop is not None and self.stop(step):
            from store_kit import Crash

            raise Crash
        result = real(*args)
        if name in ("open", "open for writing"):
            inode = f"new:{len(self.steps)}" if name == "open for writing" else None
            path = self._path(args[0])
            self._open[result] = (path, inode)
            if inode is not None:
                self._names[path] = inode
                self.steps.append(Step("create", path, inode))
        elif step is not None:
            if step.kind == "rename":
                self._names[step.path] = self._names.pop(step.source)
            elif step.kind == "unlink":
                self._names.pop(step.path, None)
            elif step.kind == "write":
                step = Step("write", step.path, step.inode, data=bytes(args[1][:result]))
            self.steps.append(step)
        return result

    def _step(self, name: str, args: tuple[Any, ...]) -> Step | None:
        if name == "write":
            path, inode = self._open[args[0]]
            return Step("write", path, inode or "")
        if name == "fsync":
            path, inode = self._open[args[0]]
            return Step("sync", path, inode) if inode else Step("sync folder", path)
        if name == "replace":
            source = self._path(args[0])
            return Step("rename", self._path(args[1]), self._names.get(source, ""), source)
        if name in ("unlink", "mkdir", "rmdir"):
            return Step(name, self._path(args[0]))
        return None

    def told(self, what: Any) -> None:
        """Note that the caller was told something."""
        self.steps.append(Step("told", data=what))


@dataclass
class Crash:
    """What is left on the disk.

    Attributes:
        at: Number of operations that had been asked for.
        files: Path to bytes.
        folders: Those that are there.
    """

    at: int
    files: dict[str, bytes]
    folders: set[str] = field(default_factory=set)

    @property
    def digest(self) -> bytes:
        """Return the same bytes for the same disk."""
        hasher = hashlib.sha256(repr(sorted(self.folders)).encode())
        for path, data in sorted(self.files.items()):
            hasher.update(f"{path}\0{hashlib.sha256(data).hexdigest()}".encode())
        return hasher.digest()

    def write(self, target: Path) -> None:
        """Make the disk as it is left."""
        for folder in sorted(self.folders):
            (target / folder).mkdir(parents=True, exist_ok=True)
        for path, data in self.files.items():
            (target / path).write_bytes(data)


class Power:
    """Cuts the power in a recording.

    Args:
        recorder: The recording.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self.steps = recorder.steps

    def undecided(self, at: int) -> list[int]:
        """Return the operations on names that may be kept or not when the power goes before step ``at``."""
        synced: set[str] = set()
        found = []
        for place in range(at - 1, -1, -1):
            step = self.steps[place]
            if step.kind == "sync folder":
                synced.add(step.path)
            elif step.kind in _NAMING and str(Path(step.path).parent) not in synced:
                found.append(place)
        return found[::-1]

    def cut(self, at: int, dropped: frozenset[int] = frozenset(), data: Data = "kept") -> Crash:
        """Return what is left when the power goes before step ``at``.

        Args:
            at: The step.
            dropped: Undecided operations that are not kept.
            data: What is left of bytes that were not fsynced.
        """
        names: dict[str, Inode] = {path: f"before:{path}" for path in self._recorder.before}
        folders = set(self._recorder.folders)
        written: dict[Inode, bytes] = {}
        durable: dict[Inode, int] = {}
        for place, step in enumerate(self.steps[:at]):
            if step.kind == "write":
                written[step.inode] = written.get(step.inode, b"") + step.data
            elif step.kind == "sync":
                durable[step.inode] = len(written.get(step.inode, b""))
            elif place in dropped:
                continue
            elif step.kind == "create":
                names[step.path] = step.inode
            elif step.kind == "rename":
                if names.get(step.source) == step.inode:
                    del names[step.source]
                names[step.path] = step.inode
            elif step.kind == "unlink":
                names.pop(step.path, None)
            elif step.kind == "mkdir":
                folders.add(step.path)
            elif step.kind == "rmdir":
                folders.discard(step.path)
        left = {}
        for path, inode in names.items():
            if self._is_reachable(path, folders):
                left[path] = self._content(inode, written, durable, data)
        return Crash(at, left, {each for each in folders if self._is_reachable(each, folders)})

    def _is_reachable(self, path: str, folders: set[str]) -> bool:
        return all(str(parent) in folders for parent in Path(path).parents)

    def _content(
        self, inode: Inode, written: dict[Inode, bytes], durable: dict[Inode, int], data: Data
    ) -> bytes:
        if inode.startswith("before:"):
            return self._recorder.before[inode[len("before:") :]]
        whole, safe = written.get(inode, b""), durable.get(inode, 0)
        rest = whole[safe:]
        kept = {"kept": rest, "none": b"", "half": rest[: len(rest) // 2], "zeros": bytes(len(rest))}[data]
        return whole[:safe] + kept

    def every(self) -> Iterator[Crash]:
        """Go through every prefix: all kept, none, each undecided operation dropped, each one alone."""
        for at in range(len(self.steps) + 1):
            undecided = frozenset(self.undecided(at))
            chosen = [frozenset[int](), undecided]
            chosen += [frozenset({each}) for each in undecided]
            chosen += [undecided - {each} for each in undecided]
            for dropped in dict.fromkeys(chosen):
                yield self.cut(at, dropped)
            yield self.cut(at, data="none")
            yield self.cut(at, data="half")
            yield self.cut(at, data="zeros")

    def samples(self, seed: int, count: int) -> Iterator[Crash]:
        """Draw a moment, and what is kept of what is undecided then."""
        dice = random.Random(seed)
        kinds: list[Data] = ["kept", "none", "half", "zeros"]
        for _ in range(count):
            at = dice.randrange(len(self.steps) + 1)
            undecided = self.undecided(at)
            dropped = frozenset(each for each in undecided if dice.random() < 0.5)
            yield self.cut(at, dropped, dice.choice(kinds))
