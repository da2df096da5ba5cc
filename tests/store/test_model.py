"""The real store and a dictionary side by side, through everything that is done with a store."""

from __future__ import annotations

import contextlib
import functools
import shutil
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from store_kit import LOSS, Crash, bits, expected
from torture_kit import TORTURE, Fault, age, disk, figure, scale, shot, staged

from mvc_callbacks import writing
from mvc_callbacks.commit import Run
from mvc_callbacks.errors import BadName, PrunedVersion, UnknownRef
from mvc_callbacks.store import VersionStore


@dataclass
class Known:
    """What a dictionary remembers of a version."""

    seed: int
    run: str
    number: int
    order: int
    loss: float
    gone: set[str] = field(default_factory=set)


def _of_versions(act: Callable[..., None]) -> Callable[..., None]:
    """Do nothing while there is no version.

    A precondition would let the next rule depend on whether a save that crashed had got through, which is not
    the same each time: several threads write.
    """

    @functools.wraps(act)
    def acts(self: Model, **given: Any) -> None:
        if self.versions:
            act(self, **given)

    return acts


class Model(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="mvc-model-"))
        self.path = self.folder / "store"
        self.store = VersionStore(self.path)
        self.runs: dict[str, Run] = {}
        self.versions: dict[str, Known] = {}
        self.aliases: dict[str, list[str]] = {}
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(writing, "LARGE", 32)
        self.order = 0

    def teardown(self) -> None:
        self.patch.undo()
        shutil.rmtree(self.folder)
        figure("versions saved beside the model", self.order)

    def _remember(self, identity: str, run: Run, number: int, seed: int) -> None:
        self.order += 1
        self.versions[identity] = Known(seed, run.label, number, self.order, 1 / (seed + 1))

    def _pick(self, place: int) -> str:
        return list(self.versions)[place % len(self.versions)]

    def _aliased(self) -> set[str]:
        return {moves[-1] for moves in self.aliases.values()}

    @initialize()
    def begin(self) -> None:
        self.open_run("base")

    @rule(label=st.sampled_from(["base", "other"]))
    def open_run(self, label: str) -> None:
        run = self.store.open_run(label, framework="torch")
        assert run.label not in {known.run for known in self.versions.values()}
        self.runs[run.label] = run

    @rule(place=st.integers(0, 9), seed=st.integers(0, 6))
    def save(self, place: int, seed: int) -> None:
        run = list(self.runs.values())[place % len(self.runs)]
        version = run.commit(shot(seed), metrics={"val_loss": 1 / (seed + 1)}, monitor=LOSS)
        self._remember(version.id, run, version.number, seed)

    @rule(place=st.integers(0, 9), seed=st.integers(0, 6), at=st.integers(1, 80))
    def crash_in_a_save(self, place: int, seed: int, at: int) -> None:
        run = list(self.runs.values())[place % len(self.runs)]
        with disk(Fault(at, "kill")), contextlib.suppress(Crash):
            version = run.commit(shot(seed), metrics={"val_loss": 1 / (seed + 1)}, monitor=LOSS)
            self._remember(version.id, run, version.number, seed)
        self.reopen()

    @rule()
    def reopen(self) -> None:
        """A process ends: its runs are not gone on with."""
        self.store = VersionStore(self.path)
        self.runs.clear()
        # What a crash left may have been acknowledged a moment before; then it is whole, and counts.
        for version in self.store.versions():
            if version.id not in self.versions:
                self.order += 1
                seed = round(1 / version.metrics["val_loss"]) - 1
                self.versions[version.id] = Known(
                    seed, version.run, version.number, self.order, version.metrics["val_loss"]
                )
        self.open_run("base")

    @rule(place=st.integers(0, 99), name=st.sampled_from(["production", "staging"]))
    @_of_versions
    def promote(self, place: int, name: str) -> None:
        identity = self._pick(place)
        if "weights" in self.versions[identity].gone:
            with pytest.raises(PrunedVersion):
                self.store.promote(identity, name)
        else:
            self.store.promote(identity, name)
            self.aliases.setdefault(name, []).append(identity)

    @rule(name=st.sampled_from(["production", "staging"]))
    def remove_alias(self, name: str) -> None:
        if name in self.aliases:
            assert self.store.remove_alias(name).previous == self.aliases.pop(name)[-1]
        else:
            with pytest.raises(UnknownRef):
                self.store.remove_alias(name)

    @rule(name=st.sampled_from(["production", "staging"]))
    def rollback(self, name: str) -> None:
        moves = self.aliases.get(name, [])
        if len(moves) < 2 or moves[-2] not in self.versions:
            with pytest.raises(UnknownRef):
                self.store.rollback(name)
        elif "weights" in self.versions[moves[-2]].gone:
            with pytest.raises(PrunedVersion):
                self.store.rollback(name)
        else:
            assert self.store.rollback(name).id == moves[-2]
            moves.pop()

    @rule(place=st.integers(0, 99), what=st.sampled_from(["weights", "state"]))
    @_of_versions
    def prune(self, place: int, what: str) -> None:
        identity = self._pick(place)
        report = self.store.prune(identity, what=what)  # type: ignore[arg-type]
        if identity in self._aliased():
            assert report.kept and not report.versions
        else:
            self.versions[identity].gone.add(what)

    @rule(count=st.integers(0, 3))
    @_of_versions
    def prune_by_rule(self, count: int) -> None:
        self.store.prune(keep_last=count)
        for run in {known.run for known in self.versions.values()}:
            mine = sorted(  # what has no weights any more keeps none of the others from being kept
                (
                    identity
                    for identity, known in self.versions.items()
                    if known.run == run and "weights" not in known.gone
                ),
                key=lambda identity: self.versions[identity].number,
            )
            for identity in mine[: max(0, len(mine) - count)]:
                if identity not in self._aliased():
                    self.versions[identity].gone.add("weights")

    @rule(place=st.integers(0, 99))
    @_of_versions
    def delete(self, place: int) -> None:
        label = self.versions[self._pick(place)].run
        ids = {identity for identity, known in self.versions.items() if known.run == label}
        if ids & self._aliased():
            with pytest.raises(BadName):
                self.store.delete_run(label)
            return
        self.store.delete_run(label)
        for identity in ids:
            del self.versions[identity]
        if self.runs.pop(label, None) is not None and not self.runs:
            self.open_run("other")

    @rule(lost=st.booleans())
    def rebuild(self, lost: bool) -> None:
        if lost and self.versions:
            shutil.rmtree(self.path / "history")
            (self.path / "aliases.json").unlink(missing_ok=True)
        self.store.rebuild()
        self.reopen()  # what a crash left whole has been adopted

    @rule()
    def sweep(self) -> None:
        age(self.path / "tmp")
        self.open_run("other")
        assert staged(self.path / "tmp") == []

    @invariant()
    def both_say_the_same(self) -> None:
        store = VersionStore(self.path)
        if not store.exists():
            return
        shown = {version.id: version for version in store.versions()}
        assert shown.keys() == self.versions.keys()
        for identity, known in self.versions.items():
            version = shown[identity]
            assert (version.run, version.number) == (known.run, known.number)
            if "weights" in known.gone:
                with pytest.raises(PrunedVersion):
                    store.tensors(version)
            else:
                assert bits(store, version) == expected(shot(known.seed))
                if "state" in known.gone:
                    with pytest.raises(PrunedVersion):
                        store.training_state(version)
                else:
                    assert store.training_state(version)[0]["step"] == known.seed
        assert store.aliases() == {name: moves[-1] for name, moves in sorted(self.aliases.items())}
        kept = [known for known in self.versions.values() if "weights" not in known.gone]
        if kept:
            best = min(kept, key=lambda known: known.loss)
            assert store.get("best").metrics["val_loss"] == best.loss
        report = store.verify()
        assert report.ok, report.problems


def test_the_store_is_what_a_dictionary_would_be() -> None:
    budget = settings(
        max_examples=scale(10, 500), stateful_step_count=12 if not TORTURE else 40, database=None
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run_state_machine_as_test(Model, settings=budget)
