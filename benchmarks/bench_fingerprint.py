"""Fingerprints: data hashed for the first time and again, beside `dvc add --no-commit`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.harness import Row, Table, alternate, apart, installed

_MB = 1024 * 1024
_CODE = (
    "import sys, time; from mvc_callbacks import fingerprint_data\n"
    "began = time.perf_counter(); found = fingerprint_data(sys.argv[1])\n"
    "assert found.coverage == 'files', found; print(time.perf_counter() - began)"
)


def tables(quick: bool) -> list[Table]:
    """Measure; about four minutes."""
    shapes = {"20 000 files of 4 KB": (20_000, 4096), "4 files of 512 MB": (4, 512 * _MB)}
    if quick:
        shapes = {"20 files of 4 KB": (20, 4096), "4 files of 1 MB": (4, _MB)}
    bars = (0.2, 0.4)
    rows, notes = [], []
    for (name, (files, size)), bar in zip(shapes.items(), bars, strict=True):
        contenders = {"ours": lambda files=files, size=size: apart(ours, files=files, size=size)}
        if _dvc():
            contenders["dvc"] = lambda files=files, size=size: apart(dvc, files=files, size=size)
        results = alternate(contenders, 1 if quick else 3)
        first = tuple(each["process"] for each in results["ours"])
        again = tuple(each["again"] for each in results["ours"])
        call = tuple(each["first"] for each in results["ours"])
        if "dvc" in results:
            theirs = tuple(each["process"] for each in results["dvc"])
            rows.append(Row(f"{name}, first time", first, "s", theirs, "`dvc add --no-commit`", bar))
            starts = sorted(each["start"] for each in results["dvc"])
            notes.append(f"`dvc version` alone, without data, took {starts[len(starts) // 2]:.2f} s.")
        else:
            rows.append(Row(f"{name}, first time", first, "s"))
        rows.append(Row(f"{name}, nothing changed", again, "s", call, "the first time", 0.15))
    return [
        Table(
            "Fingerprints of data",
            "First time: whole processes, with the start of Python; files are in the memory of the system, "
            "and neither tool knows them. SHA-256 here, MD5 there. Nothing is fsynced. Again: the call "
            "alone, in a new process, beside the call alone of the first time.",
            tuple(rows),
            tuple(notes[:1]),
        )
    ]


def _dvc() -> list[str]:
    if installed("dvc"):
        return [sys.executable, "-m", "dvc"]
    found = shutil.which("dvc")
    return [found] if found else []


def _data(files: int, size: int) -> Path:
    """Make the data; they must be older than two seconds to be remembered."""
    folder = Path("data").absolute()
    block = os.urandom(min(size, _MB))
    for at in range(files):
        place = folder / f"{at // 1000:02d}"
        place.mkdir(parents=True, exist_ok=True)
        with (place / f"{at:05d}.bin").open("wb") as file:
            for part in range(max(1, size // _MB)):
                file.write(at.to_bytes(4, "little") + part.to_bytes(4, "little") + block[8:])
    os.sync()
    time.sleep(2.5)
    return folder


def _run(command: list[str], **variables: str) -> tuple[float, str]:
    began = time.perf_counter()
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, env={**os.environ, **variables}
    )
    return time.perf_counter() - began, done.stdout


def ours(files: int, size: int) -> dict[str, float]:
    """Hash twice, each time in a new process with the same cache."""
    folder = _data(files, size)
    command = [sys.executable, "-c", _CODE, str(folder)]
    cache = str(Path("cache").absolute())
    process, first = _run(command, XDG_CACHE_HOME=cache)
    _, again = _run(command, XDG_CACHE_HOME=cache)
    return {"process": process, "first": float(first), "again": float(again)}


def dvc(files: int, size: int) -> dict[str, float]:
    """Add the data to an empty repository of DVC."""
    _data(files, size)
    places = {
        "HOME": "home",
        "XDG_CACHE_HOME": "cache",
        "DVC_SITE_CACHE_DIR": "site",
        "DVC_NO_ANALYTICS": "1",
    }
    variables = {name: str(Path(each).absolute()) if each != "1" else each for name, each in places.items()}
    for each in ("home", "cache", "site"):
        Path(each).mkdir()
    _run([*_dvc(), "init", "--no-scm", "-q"], **variables)
    start, _ = _run([*_dvc(), "version"], **variables)
    process, _ = _run([*_dvc(), "add", "--no-commit", "-q", "data"], **variables)
    return {"process": process, "start": start}
