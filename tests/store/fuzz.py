"""Fuzz one target, led by branches: ``python fuzz.py TARGET RUNS [FIGURES]``, see ``nox -s fuzz``."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parent))
with atheris.instrument_imports(include=["mvc_callbacks"]):
    from fuzz_targets import TARGETS, examples, seeds, within
from test_mutations import _KEYS, _TAGS, mutated

_LONGEST = 8192
_MEGABYTES = 1024
_HANGS = 300  # seconds of the clock, for what never ends: `within` refuses more than one of its own time


def main(name: str, runs: str, figures: str | None) -> int:
    """Fuzz in a process of its own, which the fuzzer ends; return its exit status."""
    child = os.fork()
    if child == 0:
        _fuzz(name, runs)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status == 0 and figures is not None:
        with Path(figures).open("a", encoding="utf-8") as file:
            file.write(json.dumps([f"inputs fuzzed: {name}", int(runs)]) + "\n")
    return status


def _fuzz(name: str, runs: str) -> None:
    folder = Path(tempfile.mkdtemp(prefix="mvc-fuzz-corpus-"))
    whole = seeds(name)
    drawn = [data for seed in whole[:4] for data in examples(mutated(seed), 50)]
    for data in (*whole, *drawn):
        (folder / hashlib.sha256(data).hexdigest()).write_bytes(data)
    words = folder.with_name(f"{folder.name}.dict")
    quoted = (f'"\\"{word}\\""' for word in sorted({*_KEYS, *_TAGS}))
    words.write_text("\n".join(quoted), "utf-8")
    target = TARGETS[name]
    told = [f"-runs={runs}", f"-max_len={_LONGEST}", f"-rss_limit_mb={_MEGABYTES}", f"-timeout={_HANGS}"]
    told += ["-seed=1", "-print_final_stats=1", f"-dict={words}", f"-artifact_prefix={folder}.failed-"]
    atheris.Setup([sys.argv[0], *told, str(folder)], lambda data: within(target, data))
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else None))
