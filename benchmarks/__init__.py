"""Benchmarks: what versions cost beside what they replace, each figure measured side by side in one run."""
