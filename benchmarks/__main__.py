"""``python -m benchmarks [topic …]``: measure topics, show them, and write them into the page."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import time
from pathlib import Path

from benchmarks import harness, page
from benchmarks.notes import NOTES

TOPICS = (
    "fit",
    "fit_adam",
    "peers",
    "small",
    "write",
    "bytes",
    "start",
    "memory",
    "restore",
    "keras",
    "fingerprint",
    "history",
    "tensors",
)
"""Modules ``bench_<topic>``, in the order of the page."""

_ALONE = ("keras", "peers")
"""Topics whose contenders change the process that they are in: a backend, patches, a process group."""

_PACKAGES = (
    "mvc-callbacks",
    "torch",
    "lightning",
    "keras",
    "tensorflow",
    "safetensors",
    "tinydb",
    "dvc",
    "dvclive",
    "mlflow-skinny",
)


def measure(topic: str, *, quick: bool) -> page.Result:
    """Measure one topic."""
    started = time.monotonic()
    with harness.together() if quick and topic not in _ALONE else contextlib.nullcontext():
        tables = tuple(importlib.import_module(f"benchmarks.bench_{topic}").tables(quick))
    seconds = time.monotonic() - started
    return page.Result(topic, harness.machine(), harness.versions_of(*_PACKAGES), seconds, tables)


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "topics", nargs="*", metavar="topic", help=f"which of {', '.join(TOPICS)}; all when none is given"
    )
    parser.add_argument(
        "--quick", action="store_true", help="small sizes, once: only to see whether everything runs"
    )
    parser.add_argument(
        "--write",
        type=Path,
        metavar="PAGE",
        help="put the results into the page; what it says of other topics stays",
    )
    given = parser.parse_args()
    unknown = set(given.topics) - set(TOPICS)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; topics are {', '.join(TOPICS)}")
    if given.quick and given.write is not None:
        parser.error("what --quick gives is no measurement; leave --write out")
    for topic in given.topics or TOPICS:
        result = measure(topic, quick=given.quick)
        for table in result.tables:
            print(f"\n{table.title}\n", *page.table_lines(table), *table.notes, sep="\n")
        print(f"\n{topic}: {result.seconds:.0f} s", flush=True)
        if given.write is not None:  # at once: hours of measuring are not lost with the last topic
            before = given.write.read_text("utf-8") if given.write.exists() else ""
            given.write.write_text(page.render([result], TOPICS, NOTES, before), "utf-8")
        for name in (name for table in result.tables for name in page.missed(table)):
            if name not in NOTES:
                print(f"missed, and benchmarks/notes.py does not say why: {name}")


if __name__ == "__main__":
    main()
