"""The recorder: one fit on its way into a store, whichever framework runs it."""

from __future__ import annotations

import logging
import shutil
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from mvc_callbacks import code, data_change, environment, lineage
from mvc_callbacks.data_change import DataChange
from mvc_callbacks.errors import MVCError, MVCWarning, SaveFailed
from mvc_callbacks.masking import without_secrets
from mvc_callbacks.progress import progress_bar
from mvc_callbacks.run_data import RunData
from mvc_callbacks.saver import Saver, SideWork
from mvc_callbacks.store import VersionStore
from mvc_callbacks.versions import Monitor, Parent, Version

if TYPE_CHECKING:
    from mvc_callbacks.commit import Run
    from mvc_callbacks.fingerprint import Plan
    from mvc_callbacks.snapshot import Snapshot

__all__ = ["Facts", "Recorder", "report_failed_save"]

_log = logging.getLogger(__name__)
_MARKS = {
    "nonfinite": "holds NaN or Inf in its weights; it and those after it are marked in `mvc log`",
    "stale": "has the weights of the version before it, although steps have passed: is anything trained, and "
    "is the learning rate more than 0? Such versions are marked in `mvc log`",
}
_SOON = 0.1  # seconds between two looks
MOST_UNTOLD = 8  # in one warning; the record names them all


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of one version beside its tensors.

    Attributes:
        number: Its number in the run.
        epoch: Epoch counted from 0, or None.
        step: Optimizer steps, or None.
        metrics: Name to number.
        best: The number of the run's best version by now, this one included; None where nothing is compared.
        monitor: What the policy watches, where it is known only by now; else the recorder's.
        more: Further fields of the record.
    """

    number: int
    epoch: int | None
    step: int | None
    metrics: Mapping[str, float]
    best: int | None = None
    monitor: Monitor | None = None
    more: Mapping[str, Any] = field(default_factory=dict)


class Recorder:
    """Takes snapshots and facts of one fit, and makes versions of them in the background.

    Nothing is written before the first version.

    Args:
        store: The store.
        label: The run's label, or None.
        framework: ``lightning``, ``pytorch_lightning`` or ``keras``.
        background: Whether saving goes on beside training.
        keep_training_state: How many versions keep their training state, beside the best one.
        monitor: What the policy watches.
        hyperparameters: As a tagged tree.
    """

    def __init__(
        self,
        store: VersionStore,
        *,
        label: str | None,
        framework: str,
        background: bool = True,
        keep_training_state: int | Literal["all"] = 2,
        monitor: Monitor | None = None,
        hyperparameters: Any = None,
    ) -> None:
        self.store = store
        self.saver = Saver(background=background)
        self.parents: tuple[Parent, ...] = ()
        self.resumed: Version | None = None
        self.policy: Mapping[str, Any] = {}
        self.run_facts: Mapping[str, Any] = {}  # further fields of the run's record
        self.last: Version | None = None
        self.hyperparameters = hyperparameters
        self._label = label
        self._framework = framework
        self._keep = keep_training_state
        self._monitor = monitor
        self._run: Run | None = None
        self._ids: dict[int, str] = {}
        self._with_state: dict[int, str] = {}
        self._provenance: SideWork | None = None
        self._told: dict[str, Any] = {}
        self._data = RunData(store)
        self._failed: set[int] = set()
        self._warned_of: set[str] = set()
        self._came_from: dict[str, Any] | None = None
        self._marked: dict[str, str] = {}  # mark to the first version that has it, until it is told
        self._told_marks: set[str] = set()

    def begin(self, *, module_class: type | None, plans: Mapping[str, Plan]) -> None:
        """Start to find out, beside training, about the code, the environment and the data."""

        def find_out(cancelled: Callable[[], bool]) -> None:
            self._told["code"] = code.capture(module_class=module_class, exclude=(self.store.path,))
            self._told["environment"] = environment.capture()

        self._provenance = SideWork(find_out, name="mvc-provenance")
        self._data.begin(plans)

    def note_loggers(self, told: Mapping[str, Mapping[str, str]]) -> None:
        """Note the runs of other trackers that this fit is logged to."""
        if told:
            self.run_facts = {**self.run_facts, "loggers": {name: dict(each) for name, each in told.items()}}

    def find_parent(self, snapshot: Snapshot) -> None:
        """Look, in the background, for the version that a fit's first weights came from."""

        def look() -> None:
            try:
                found = lineage.by_content(self.store, snapshot.weights)
                if found is not None:
                    self.parents = (found,)
            except MVCError as error:
                _log.warning(
                    "the store could not be searched for the version that this run began from: %s", error
                )
            finally:
                snapshot.release()

        self.saver.submit(look)

    def resume(self, version: Version) -> None:
        """Note the version that the run goes on from."""
        self.resumed = version
        self.parents = (Parent(version.id, "resume"),)

    def came_from(self, version: Version) -> None:
        """Note a version of another store, which cannot be a parent here."""
        self._came_from = {"id": version.id, "run": version.run, "number": version.number}

    def compare_data(self, version: Version, *, patience: float | None) -> DataChange:
        """Compare the data of now with those of a version; wait for their fingerprints for a while.

        Args:
            version: The version that training goes on from.
            patience: Seconds to wait; None until they are known.
        """
        return data_change.compare(self.store, version, self._data.found(patience))

    def open(self) -> str:
        """Reserve the run's label, and return it."""
        if self._run is None:
            self._run = self.store.open_run(self._label, framework=self._framework, record=self._tell_run)
            self._run.cached = False
            if self.resumed is not None:
                self._run.chain[:0] = _chain_before(self.store, self.resumed)
        return self._run.label

    def save(self, snapshot: Snapshot, facts: Facts) -> None:
        """Make a version; waits until the one before is on disk."""
        self.saver.wait()
        self.saver.submit(lambda: self._commit(snapshot, facts))
        self._warn_of_untold(snapshot)

    def _warn_of_untold(self, snapshot: Snapshot) -> None:
        """Name what will not come back, once for each run."""
        new = [each for each in snapshot.untold if each not in self._warned_of]
        self._warned_of.update(new)
        if new:
            more = f"; and {len(new) - MOST_UNTOLD} more" if len(new) > MOST_UNTOLD else ""
            warnings.warn(
                "what cannot be kept without pickle comes back from the checkpoint as a marker (path: type): "
                f"{'; '.join(new[:MOST_UNTOLD])}{more}. Keep plain values, arrays or tensors there instead",
                MVCWarning,
                stacklevel=3,
            )

    def remove(self, ref: str, *, after: int | None, policy: str) -> None:
        """Prune the weights of a version by a policy, once the save that took its place is durable.

        Args:
            ref: ``<run>/<number>`` of the version.
            after: The number of the version that takes their place; if its save fails, nothing is pruned.
            policy: In words, for the event.
        """

        def prune() -> None:
            if after not in self._failed and self._run is not None:
                self._run.prune([self._id(ref)], what="weights", policy=policy)

        self.saver.submit(prune)

    def warn_of_marks(self, *, stacklevel: int = 2) -> None:
        """Warn of versions whose weights are broken, or did not change; once in a run for each kind.

        Args:
            stacklevel: Of the warning, counted from the caller.
        """
        for mark, name in list(self._marked.items()):
            if mark in _MARKS and mark not in self._told_marks:
                self._told_marks.add(mark)
                warnings.warn(f"version {name} {_MARKS[mark]}", MVCWarning, stacklevel=stacklevel + 1)

    def wait_at_end(self) -> None:
        """Wait until every version is on disk; show how far that is when it takes more than a second."""
        with progress_bar("saving the last version", None, terminal=True) as told:
            while not self.saver.wait_for(_SOON):
                if told is not None and self._run is not None:
                    told(*self._run.progress)

    def finish(self, *, wait_for_data: bool) -> None:
        """Wait until everything is on disk; give up on fingerprints that take longer, unless told to wait."""
        self.wait_at_end()
        self._data.finish(wait=wait_for_data and self.last is not None)

    def _commit(self, snapshot: Snapshot, facts: Facts) -> None:
        try:
            if self._run is None:
                raise MVCError("no run is open")
            version = self._run.commit(
                snapshot,
                number=facts.number,
                epoch=facts.epoch,
                step=facts.step,
                metrics=facts.metrics,
                monitor=facts.monitor or self._monitor,
                parents=self.parents if self.last is None else None,
                hyperparameters=self.hyperparameters,
                data=self._data.known(),
                facts=facts.more,
            )
        except BaseException:
            self._failed.add(facts.number)
            raise
        finally:
            snapshot.release()
        self.last = version
        self._ids[facts.number] = version.id
        self._data.note(version)
        for mark in version.flags:
            self._marked.setdefault(mark, f"{version.run}/{version.number}")
        if version.training_state is not None:
            self._with_state[facts.number] = version.id
        self._prune_states(facts.best)

    def _prune_states(self, best: int | None) -> None:
        if self._keep == "all":
            return
        newest = sorted(self._with_state, reverse=True)[: self._keep]
        old = [number for number in self._with_state if number not in newest and number != best]
        if old and self._run is not None:
            ids = [self._with_state.pop(number) for number in old]
            self._run.prune(ids, what="state", policy=f"keep_training_state={self._keep}")

    def _id(self, ref: str) -> str:
        own = f"{self._run.label}/" if self._run is not None else ""
        number = int(ref[len(own) :]) if own and ref.startswith(own) else None
        if number is None:
            return self.store.get(ref).id
        self._with_state.pop(number, None)
        return self._ids[number]

    def _tell_run(self) -> dict[str, Any]:
        if self._provenance is not None:
            self._provenance.wait("git and the environment to be read")
        told: dict[str, Any] = {**self.run_facts, "policy": dict(self.policy)}
        told["argv"] = without_secrets(sys.argv)
        captured = self._told.get("code")
        if captured is not None:
            patch = self.store.put_patch(captured.patch) if captured.patch is not None else None
            told["code"] = {**captured.facts, **({"patch": patch} if patch else {})}
        told["environment"] = self._told.get("environment", {})
        if self.resumed is not None:
            told["resumes"] = self.resumed.id
        if self._came_from is not None:
            told["resumes_elsewhere"] = self._came_from
        return told

    def warn_if_too_large(
        self, snapshot: Snapshot, planned: int | None, *, advice: str = "keep fewer with save_top_k"
    ) -> None:
        """Warn when the run as planned will not fit on the disk.

        Args:
            snapshot: The first version.
            planned: How many versions will keep their weights; None where nobody knows.
            advice: How to keep fewer, in words.
        """
        if planned is None:
            return
        state = snapshot.tree_tensors.nbytes if snapshot.tree_tensors is not None else 0
        states = planned if self._keep == "all" else min(planned, self._keep + 2)
        needed = snapshot.weights.nbytes * planned + state * states
        place = next(each for each in (self.store.path, *self.store.path.parents) if each.exists())
        free = shutil.disk_usage(place).free
        if needed > free:
            warnings.warn(
                f"about {planned} versions need up to {needed / 1e9:.1f} GB, and {place} has "
                f"{free / 1e9:.1f} GB free (tensors that do not change are stored once, which may save some "
                "of it): keep fewer with save_top_k, save less often, or choose another store=",
                MVCWarning,
                stacklevel=2,
            )


def report_failed_save(
    name: str, store: VersionStore, error: BaseException | None, on_error: str, *, stacklevel: int = 2
) -> None:
    """Tell loudly that a version was not saved, or raise.

    Args:
        name: ``<run>/<number>``.
        store: The store.
        error: Why; None where only rank 0 knows: then nothing but raising is done.
        on_error: ``warn`` or ``raise``.
        stacklevel: Of the warning, counted from the caller.

    Raises:
        SaveFailed: If ``on_error`` is ``raise``.
    """
    why = f"{type(error).__name__}: {error}" if error is not None else "see the log of rank 0"
    if on_error == "raise":
        raise SaveFailed(f"version {name} was not saved in {store.path}: {why}") from error
    if error is not None:
        _log.debug("version %s was not saved", name, exc_info=error)
        warnings.warn(
            f"VERSION {name} WAS NOT SAVED in {store.path}: {why}. Training goes on, and the next save is "
            "tried as usual; what was to be removed for it is kept. Look at the disk's space and "
            "permissions, or give on_error='raise' to stop training when this happens",
            MVCWarning,
            stacklevel=stacklevel + 1,
        )


def _chain_before(store: VersionStore, resumed: Version) -> list[str]:
    """Return the versions before the resumed one, which a resumed policy may remove; never that one."""
    chain: list[str] = []
    try:
        last: Version | None = store.get(resumed.id)
        while last is not None:
            until = last.number
            earlier = [each.id for each in store.versions(run=last.run) if each.number <= until]
            chain[:0] = [each for each in earlier if each != resumed.id]
            resumes = last.details.run_record.get("resumes")
            last = store.get(resumes) if resumes else None
    except MVCError as error:  # a version of another store, or one whose history is damaged
        _log.info("what was saved before this run is left alone: %s", error)
    return chain
