"""What `nox -s fuzz` fuzzes keeps its promise on its seeds, and on what Hypothesis makes of them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from fuzz_targets import TARGETS, examples, seeds, within
from test_mutations import mutated

from mvc_callbacks.errors import MVCError


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_accepts_its_seeds_and_keeps_its_promise_on_others(name: str) -> None:
    whole = seeds(name)
    assert whole
    accepted = 0
    for seed in whole:
        try:
            TARGETS[name](seed)
            accepted += 1
        except MVCError:
            pass  # such as one of two files that a target reads as both
    assert accepted, "a target that refuses all of its seeds fuzzes its first lines only"
    for seed in whole[:3]:
        for data in examples(mutated(seed), 20):
            within(TARGETS[name], data)


def test_the_session_fuzzes_every_target() -> None:
    session = (Path(__file__).parents[2] / "noxfile.py").read_text("utf-8")
    named = [
        name
        for part in re.findall(r"^FUZZED \+?= (\[.*\])$", session, re.MULTILINE)
        for name in json.loads(part)
    ]
    assert named == list(TARGETS)


def test_a_target_that_breaks_its_promise_is_seen() -> None:
    def broken(data: bytes) -> None:
        raise KeyError(data)

    with pytest.raises(KeyError):
        within(broken, b"x")
