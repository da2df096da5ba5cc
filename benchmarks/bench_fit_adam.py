"""The same fits of GPT-2 with Adam, whose states have three times the weights."""

from __future__ import annotations

from benchmarks.bench_fit import tables_of
from benchmarks.harness import Table


def tables(quick: bool) -> list[Table]:
    """Measure; about five minutes."""
    if quick:
        return tables_of("tiny", "adam", "a tiny model, Adam", versions=2, repetitions=1)
    return tables_of("gpt2", "adam", "GPT-2 124M, Adam, 1.5 GB", versions=3, repetitions=2)
