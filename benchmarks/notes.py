"""Notes: what is to be said of bars that are missed: where the limit is, and what was tried.

They are written after a measurement was looked at, so they are no part of its results.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["NOTES"]

NOTES: Mapping[str, str] = {}
"""Markdown by table and figure as the page shows them, as ``Commits: commit, 1000 runs of 100``."""
