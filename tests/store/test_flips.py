"""Each byte of every file of a small store is changed in turn: told, or without harm."""

from __future__ import annotations

import random
import shutil
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from store_kit import bits, fingerprint
from torture_kit import TORTURE, figure, shot, stride

from mvc_callbacks import writing
from mvc_callbacks.errors import MVCError
from mvc_callbacks.store import VersionStore


@pytest.fixture(autouse=True)
def _small_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "LARGE", 32)


def _answers(store: VersionStore) -> dict[str, Any]:
    """Ask everything; the uuid is left out, which only names caches."""
    versions = store.versions()
    return {
        "versions": [(version.without_loader(), store.details(version.id)) for version in versions],
        "bits": [bits(store, version) for version in versions if version.has_weights],
        "states": [
            (tree, {name: bytes(tensor.data) for name, tensor in tensors.items()})
            for version in versions
            if version.has_training_state
            for tree, tensors in [store.training_state(version)]
        ],
        "aliases": store.aliases(),
        "log": store.alias_log(),
        "runs": store.runs(),
        "latest": store.get("latest").id,
    }


def _fate(path: Path, before: dict[str, Any]) -> str:
    store = VersionStore(path)
    try:
        same = _answers(store) == before
    except MVCError:
        return "refused when it is read"
    if store.verify(full=True).ok:
        assert same, "a wrong answer is believed"
        return "harmless"
    return "told by verify"


def test_bad_input_15_each_byte_of_each_file_is_told_or_harmless(tmp_path: Path) -> None:
    whole = VersionStore(tmp_path / "whole")
    run = whole.open_run("base", framework="torch", record={"code": {}, "environment": {"python": "3"}})
    for seed in (1, 2):
        run.commit(shot(seed), metrics={"loss": 1 / seed}, data={"train": fingerprint("a")})
    whole.prune("base/1", what="state")
    whole.promote("base/1", "production", why="it is the first")
    whole.evaluate("base/2", "test", {"accuracy": 0.5})
    before = _answers(whole)
    assert whole.verify(full=True).ok
    dice, fates, tried = random.Random(15), Counter[str](), 0
    names = [
        path.relative_to(whole.path)
        for path in sorted(whole.path.rglob("*"))
        if path.is_file() and path.name not in ("lock", "shared.json")
    ]
    for name in names:
        data = (whole.path / name).read_bytes()
        places = sorted(dice.sample(range(len(data)), min(len(data), 12)))
        if TORTURE:
            places = list(range(dice.randrange(stride()), len(data), stride()))
        for place in places:
            path = tmp_path / "flipped"
            shutil.copytree(whole.path, path)
            changed = bytearray(data)
            changed[place] ^= 1 << dice.randrange(8)
            (path / name).write_bytes(changed)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    fate = _fate(path, before)
                except AssertionError as error:
                    around = bytes(changed[max(0, place - 30) : place + 30])
                    raise AssertionError(f"{name}, byte {place}: {error}: {around!r}") from error
            fates[f"{name.parts[0].removesuffix('.json')}: {fate}"] += 1
            tried += 1
            shutil.rmtree(path)
    assert fates["objects: harmless"] == fates["versions: harmless"] == fates["events: harmless"] == 0
    figure("bytes flipped", tried)
    for fate in ("refused when it is read", "told by verify", "harmless"):
        count = sum(each for told, each in fates.items() if told.endswith(fate))
        figure(f"bytes flipped: {fate}", count)


def test_what_writers_share_is_expendable_whatever_it_says(tmp_path: Path) -> None:
    store = VersionStore(tmp_path / "store")
    run = store.open_run("base", framework="torch")
    run.commit(shot(1))
    path = store.path / "tmp" / "shared.json"
    data = path.read_bytes()
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 1
        path.write_bytes(changed)
        there = VersionStore(store.path)
        assert there.get("latest").id == run.chain[-1]
        assert there.verify(full=True).ok
