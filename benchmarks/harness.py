"""The harness: what was measured, beside what, against which bar; and how each thing is measured apart."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

__all__ = [
    "MB",
    "Row",
    "Table",
    "alternate",
    "apart",
    "installed",
    "machine",
    "scratch",
    "together",
    "versions_of",
]

MB = 1e6
_LONGEST = 600  # seconds that one measured process may take


@dataclass(frozen=True, slots=True)
class Row:
    """One figure.

    Attributes:
        figure: What was measured.
        ours: Every repetition's value; the median is shown.
        unit: ``s``, ``ms``, ``MB``, ``KB``, ``files``, ``states`` or another word that follows the number.
        peer: Every repetition's value of what it is compared with; empty where there is none.
        peer_name: What that is.
        bar: What is to be reached; None for information.
        bar_on: Whether the bar holds for ours / peer, for ours alone, or for ours - peer.
    """

    figure: str
    ours: tuple[float, ...]
    unit: str = "s"
    peer: tuple[float, ...] = ()
    peer_name: str = ""
    bar: float | None = None
    bar_on: Literal["ratio", "ours", "difference"] = "ratio"

    @property
    def ratio(self) -> float | None:
        """Ours by the peer's."""
        return _median(self.ours) / _median(self.peer) if self.peer and _median(self.peer) else None

    @property
    def met(self) -> bool | None:
        """Whether the bar is reached; None where there is none."""
        if self.bar is None:
            return None
        ours = _median(self.ours)
        value = {"ours": ours, "ratio": self.ratio, "difference": ours - _median(self.peer or (0.0,))}[
            self.bar_on
        ]
        return value is not None and value <= self.bar


@dataclass(frozen=True, slots=True)
class Table:
    """Rows that belong together.

    Attributes:
        title: What it is about.
        about: Markdown: what is fsynced and what not, whether caches are warm, sizes.
        rows: The figures.
        notes: Markdown, below the table, whether bars are met or not.
    """

    title: str
    about: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()


def _median(values: Sequence[float]) -> float:
    return statistics.median(values)


def apart(function: Callable[..., Any], /, **arguments: Any) -> Any:
    """Call a function in a Python of its own, in an empty folder that is removed afterwards.

    The disk is brought to rest before: what the last measurement left to be written would count for this one.

    Args:
        function: A module's function; it returns plain JSON.
        arguments: Plain JSON.

    Returns:
        What it returned.

    Raises:
        RuntimeError: If it failed; with its output.
    """
    if _together:
        return _here(function, arguments)
    os.sync()
    with scratch() as folder:
        answer = folder / "answer.json"
        call = [f"{function.__module__}:{function.__qualname__}", str(answer), json.dumps(arguments)]
        work = folder / "work"
        work.mkdir()
        ended = subprocess.run(
            [sys.executable, "-m", "benchmarks.apart", *call],
            cwd=work,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(str(Path(each).absolute()) for each in sys.path),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_LONGEST,
        )
        if ended.returncode or not answer.exists():
            raise RuntimeError(f"{call[0]}({call[2]}) failed:\n{ended.stdout[-5000:]}")
        return json.loads(answer.read_text("utf-8"))


_together: list[bool] = []


@contextmanager
def together() -> Iterator[None]:
    """Let `apart` call functions in this process: where nothing is judged, each need not load torch anew."""
    _together.append(True)
    try:
        yield
    finally:
        _together.pop()


def _here(function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    before = Path.cwd()
    with scratch() as folder:
        os.chdir(folder)
        try:
            return json.loads(json.dumps(function(**json.loads(json.dumps(arguments)))))
        finally:
            os.chdir(before)


def alternate(contenders: Mapping[str, Callable[[], Any]], repetitions: int) -> dict[str, list[Any]]:
    """Call every contender so often, in turns, each round in the other order.

    Returns:
        What each returned, by name.
    """
    results: dict[str, list[Any]] = {name: [] for name in contenders}
    for repetition in range(repetitions):
        names = list(contenders)
        for name in names if repetition % 2 == 0 else reversed(names):
            results[name].append(contenders[name]())
    return results


@contextmanager
def scratch() -> Iterator[Path]:
    """Give an empty folder, on the file system of ``$TMPDIR``, and remove it."""
    folder = Path(tempfile.mkdtemp(prefix="mvc-bench-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def installed(name: str) -> bool:
    """Tell whether a peer's module can be imported."""
    return importlib.util.find_spec(name) is not None


def versions_of(*names: str) -> dict[str, str]:
    """Return the installed versions of distributions, without those that are missing."""
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """Tell what it was measured on."""
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "cpu": _cpu(),
        "memory": _memory(),
        "file system": _file_system(Path(tempfile.gettempdir())),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
    }


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory() -> str:
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9:.0f} GB"
    except (AttributeError, ValueError, OSError):
        return "unknown"


def _file_system(path: Path) -> str:
    mounts = Path("/proc/mounts")
    if not mounts.exists():
        return "unknown"
    best, kind = "", "unknown"
    for line in mounts.read_text("utf-8").splitlines():
        _, place, name, *_ = line.split()
        if str(path.resolve()).startswith(place) and len(place) >= len(best):
            best, kind = place, name
    return kind
