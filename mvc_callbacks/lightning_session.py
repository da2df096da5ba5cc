"""One stage of a Trainer (fit, validate, test, predict) as the callback lives through it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from mvc_callbacks import hyperparameters, lightning_policy, lineage, logger_runs, torch_state, urls
from mvc_callbacks.continuation import compare_data, promise, refuse_change
from mvc_callbacks.data_change import DataChange
from mvc_callbacks.errors import MVCError, SaveFailed, UnknownRef
from mvc_callbacks.interrupts import Deferral
from mvc_callbacks.lightning_data import fit_plans
from mvc_callbacks.lightning_guard import planned_versions
from mvc_callbacks.lightning_io import checkpoint_of, locate
from mvc_callbacks.lightning_loggers import LoggedVersions
from mvc_callbacks.lightning_moments import Moment as Hook
from mvc_callbacks.lightning_moments import Waiting
from mvc_callbacks.lightning_policy import Ledger, Moment
from mvc_callbacks.lightning_private import Loops
from mvc_callbacks.lightning_resume import Resuming
from mvc_callbacks.lightning_sharded import FileReads
from mvc_callbacks.metrics import scalars_of
from mvc_callbacks.recorder import Facts, Recorder, report_failed_save
from mvc_callbacks.resume_guarantee import Guarantee
from mvc_callbacks.store import VersionStore
from mvc_callbacks.torch_staging import StagingBuffers
from mvc_callbacks.torch_tensors import to_neutral
from mvc_callbacks.versions import Monitor, Parent, Version

__all__ = ["Session"]

_log = logging.getLogger(__name__)


class Session:
    """What is known between a stage's setup and its end; made anew for each, so that nothing is carried over.

    Every rank has one, and gives out the same URLs. Only rank 0 has a recorder.

    Args:
        callback: The VersionCheckpoint.
        trainer: Its Trainer.
        store: The store.
        stage: ``fit``, ``validate``, ``test`` or ``predict``.
    """

    def __init__(self, callback: Any, trainer: Any, store: VersionStore, stage: str) -> None:
        self.callback = callback
        self.trainer = trainer
        self.store = store
        self.stage = stage
        self.ledger = Ledger(urls.make_store(store.path))
        self.recorder: Recorder | None = None
        self.loaded: Version | None = None
        self.resumed: Version | None = None  # the same, where it is of this store
        self.resuming = Resuming.of(trainer) if stage == "fit" else None
        self.waiting = Waiting(trainer, callback._postponed)
        self.deferral = Deferral()
        self._logged = LoggedVersions(trainer)
        self._files = FileReads(trainer.strategy, self)
        self._data = DataChange()
        self._guarantee: Guarantee | None = None
        self._hooks = 0
        self._in_step = False  # in a hook of a batch or a validation, where Lightning has not counted it
        self._alone = trainer.world_size == 1
        self._error: BaseException | None = None
        self._buffers: Any = None
        if stage == "fit" and trainer.is_global_zero:
            self.recorder = self._make_recorder()

    @property
    def fitting(self) -> bool:
        """Whether versions may be made."""
        return self.stage == "fit"

    # Resuming

    def listen(self) -> None:
        """Begin to keep what a resume needs, and to load versions where the strategy wants files."""
        self._files.enter()
        if self.resuming is not None:
            self.resuming.enter()

    def unlisten(self) -> None:
        """Leave the Trainer and Ctrl-C as they were."""
        self.deferral.end()
        self._files.leave()
        if self.resuming is not None:
            self.resuming.leave()

    def due(self, save: Callable[[], None], hook: Hook) -> list[Callable[[], None]]:
        """Return what ModelCheckpoint is to do now: that of this hook, that of earlier ones, or nothing."""
        self._in_step = hook in ("batch", "validation")
        if self.resuming is not None:
            self.resuming.hook = hook
        return self.waiting.due(save, hook) if self.fitting else [save]

    def validating(self, goes_on: bool) -> None:
        """Note the begin and the end of a validation."""
        self.deferral.hold(not goes_on)
        if self.resuming is not None:
            self.resuming.in_validation = goes_on

    @property
    def in_step(self) -> bool:
        """Whether a step was begun and is not over."""
        return Loops(self.trainer).in_step

    # The begin of a fit

    def _make_recorder(self) -> Recorder:
        callback = self.callback
        monitor = Monitor(callback.monitor, callback.mode) if callback.monitor is not None else None
        recorder = Recorder(
            self.store,
            label=callback.run,
            framework=callback.framework,
            background=callback.background,
            keep_training_state=callback.keep_training_state,
            monitor=monitor,
        )
        recorder.policy = {
            name: value if isinstance(value, str | int | None) else str(value)
            for name, value in callback.policy.items()
        }
        self._buffers = StagingBuffers() if callback.background else None
        return recorder

    def begin(self, module: Any) -> None:
        """Find out, beside training, what the run begins from and what it stands on."""
        self.deferral.begin()
        guarantee = self.resuming.begin() if self.resuming is not None else None
        known = lineage.parents(module)
        lineage.forget(module)  # from here on, training makes it something else
        state_dict = None
        if self.loaded is None and not known:
            state_dict = (
                self.trainer.strategy.lightning_module_state_dict()
            )  # every rank: it may be a collective
        if self.recorder is not None:
            self._find_out(module, known, state_dict)
            self._data = compare_data(self.recorder, self.loaded, self.callback.on_data_change, stacklevel=3)
        self._agree_on_data()
        self._guarantee = guarantee

    def promise(self) -> None:
        """Say what is promised of a resume, before its first step: by then everything was put back."""
        guarantee, self._guarantee = self._guarantee, None
        if guarantee is None or self.recorder is None or self.resuming is None:
            return
        promise(
            self.recorder,
            Guarantee.of([*guarantee.reasons, *self.resuming.problems]),
            version=self.resumed,
            name=str(self.trainer.ckpt_path),
            data=self._data,
            stacklevel=2,
        )

    def _find_out(self, module: Any, known: tuple[Parent, ...], state_dict: dict[str, Any] | None) -> None:
        assert self.recorder is not None
        self.recorder.hyperparameters = self._hyperparameters(module)
        self.recorder.begin(module_class=type(module), plans=fit_plans(self.callback.data, self.trainer))
        self.recorder.note_loggers({**logger_runs.told(self.trainer.loggers), **logger_runs.active_runs()})
        if self.resumed is not None:
            self.recorder.resume(self.resumed)
        elif self.loaded is not None:
            self.recorder.came_from(self.loaded)
        elif known:
            self.recorder.parents = known
        elif state_dict is not None and self.store.exists():
            self._find_parent(module, state_dict)

    def _agree_on_data(self) -> None:
        """Stop on every rank where the data have changed and that is an error; rank 0 alone knows."""
        if self.callback.on_data_change != "error":
            return
        told = list(self._data.changed)
        refuse_change(told if self._alone else self.trainer.strategy.broadcast(told))

    def _hyperparameters(self, module: Any) -> Any:
        gathered = hyperparameters.gather(module, self.trainer.datamodule, self.callback.hyperparameters)
        return hyperparameters.tell(
            gathered, exclude=self.callback.exclude_hyperparameters, inline=to_neutral
        )

    def _find_parent(self, module: Any, state_dict: dict[str, Any]) -> None:
        assert self.recorder is not None
        try:
            snapshot = torch_state.snapshot(
                {"state_dict": state_dict},
                module=module,
                copy=self.callback.background,
                buffers=self._buffers,
            )
        except MVCError as error:
            _log.info("the weights at the start of fit cannot be compared with the store: %s", error)
        else:
            self.recorder.find_parent(snapshot)

    # Giving out URLs

    def enter(self) -> None:
        """Begin a hook: what went wrong since the last one is dealt with first."""
        self._hooks += 1
        self._in_step = False
        if self.resuming is not None:
            self.resuming.hook = None  # `due` says which, where steps go on
        self.settle(wait=False)

    @contextmanager
    def hook(self) -> Iterator[None]:
        """Be one hook: what is saved in it is one moment."""
        self.enter()
        yield
        self.settle(wait=False)

    def decide(self) -> None:
        """Begin a decision of the policy, which must know how the save before ended."""
        if self._is_new():
            self.settle(wait=True)
        self.ledger.note_before(self._at(), self.callback)

    def url(self, *, last: bool) -> str:
        """Return the URL of the version that this moment is, or becomes."""
        if last and self.callback.save_last == "link":
            latest: str = self.callback._last_checkpoint_saved
            if latest and self.callback.save_top_k != 0:
                return latest
        if self._is_new():
            self.settle(wait=True)
            self._open_run()
            self.ledger.open_moment(self._at(), self.callback)
        moment = self._moment()
        if not last:
            self.ledger.tops.add(moment.url)
        return moment.url

    def _at(self) -> tuple[int, int]:
        return self._hooks, self.trainer.global_step

    def _is_new(self) -> bool:
        return self.ledger.current is None or self.ledger.current.at != self._at()

    def _moment(self) -> Moment:
        assert self.ledger.current is not None
        return self.ledger.current

    def _open_run(self) -> None:
        if self.ledger.label is not None:
            return
        label: str | None = None
        if self.recorder is not None:
            try:
                label = self.recorder.open()
            except (MVCError, OSError) as error:
                self._error = error
        if not self._alone:
            label = self.trainer.strategy.broadcast(label)
        self.ledger.label = label
        if label is not None:
            self.callback._run_name = label
            if self.resumed is not None:
                self.ledger.resumed = urls.make(self.store.path, f"{self.resumed.run}/{self.resumed.number}")

    # What the checkpoint plugin asks for

    def takes(self, path: object) -> bool:
        """Tell whether a path is the URL of the moment."""
        return self.ledger.gave(path)

    def hand_over(self, checkpoint: dict[str, Any], url: str) -> None:
        """Take a snapshot, and let it be saved; the second time for one moment, do nothing."""
        moment = self._moment()
        if moment.handed_over or self.recorder is None:
            return
        moment.handed_over = True
        if self._error is not None:
            return
        # An interrupt before it is handed over leaves this behind, and the version counts as failed.
        self._error = SaveFailed("it was interrupted")
        try:
            self._take(checkpoint, moment, self.recorder)
        except Exception as error:
            self._error = error
        else:
            self._error = None

    def _take(self, checkpoint: dict[str, Any], moment: Moment, recorder: Recorder) -> None:
        recorder.saver.wait()  # the buffers are used again
        snapshot = torch_state.snapshot(
            checkpoint,
            module=self.trainer.lightning_module,
            copy=self.callback.background,
            buffers=self._buffers,
            masked=hyperparameters.hiding(self.callback.exclude_hyperparameters),
        )
        if self.callback.save_weights_only or self.callback.keep_training_state == 0:
            snapshot = replace(snapshot, tree=None, tree_tensors=None, untold=())
        if moment.number == 1:
            recorder.warn_if_too_large(snapshot, planned_versions(self.callback, self.trainer))
        facts = Facts(
            number=moment.number,
            epoch=int(checkpoint["epoch"]),
            step=int(checkpoint["global_step"]),
            # A save that has waited has the metrics that its policy decided by.
            metrics=self.callback._metrics_then or scalars_of(self.trainer.callback_metrics),
            best=self._best_number(),
            more={"lightning": str(checkpoint.get("pytorch-lightning_version", ""))},
        )
        self._logged.note(moment.number, in_step=self._in_step)
        recorder.save(snapshot, facts)

    def _best_number(self) -> int | None:
        ref = self.ledger.ref_of(self.callback.best_model_path)
        run, _, number = (ref or "").partition("/")
        return int(number) if run == self.ledger.label and number.isdigit() else None

    def let_go(self, url: str) -> None:
        """Prune a version that lost a name and has no other, once the moment's save is durable."""
        if self.recorder is None or self.ledger.held(url, self.callback):
            return
        ref = self.ledger.ref_of(url)
        if ref is None:
            return  # of another store
        after = self.ledger.current.number if self.ledger.current is not None else None
        if self._error is None:
            self.recorder.remove(ref, after=after, policy=self._policy())

    def _policy(self) -> str:
        last = f", save_last={self.callback.save_last}" if self.callback.save_last else ""
        return f"save_top_k={self.callback.save_top_k}{last}"

    def owns(self, path: object) -> bool:
        """Tell whether a path is a URL that this policy knows."""
        return self.ledger.owns(str(path))

    def load(self, url: str) -> tuple[dict[str, Any], Version]:
        """Build the checkpoint of a version."""
        store, ref = locate(url, self.store)
        version = store.get(ref)
        return checkpoint_of(store, version.id, for_fit=self.fitting), version

    def find(self, url: str) -> Version:
        """Return the version that a URL names."""
        store, ref = locate(url, self.store)
        return store.get(ref)

    def note_loaded(self, version: Version) -> None:
        """Remember that a version was loaded, and which one of this store it is, if any."""
        self.loaded = version
        self.resumed = self._here(version)
        if not self.fitting and self.trainer.lightning_module is not None:
            lineage.remember(self.trainer.lightning_module, version.id)

    def _here(self, version: Version) -> Version | None:
        if not self.store.exists():
            return None
        try:
            return self.store.get(version.id)
        except UnknownRef:
            return self.store.find_by_weights(version.weights.digest)

    def inherit(self) -> None:
        """Take over what the policy of the resumed run knows."""
        callback = self.callback
        known = {*callback.best_k_models, callback.best_model_path, callback.last_model_path}
        self.ledger.inherited = frozenset(each for each in known if each)

    # How saves ended

    def settle(self, *, wait: bool) -> None:
        """Learn how the last save ended; if it failed, take the policy's state back and tell, or raise.

        Args:
            wait: Whether to wait for a save that goes on. Several ranks do only this, all at once.

        Raises:
            SaveFailed: If it failed, and ``on_error="raise"``.
        """
        moment = self.ledger.current
        if moment is None or moment.settled:
            return
        if not wait and (not self._alone or (self.recorder is not None and not self.recorder.saver.idle)):
            return
        error = self._outcome(moment)
        failed = error is not None
        if not self._alone:
            failed = not self.trainer.strategy.reduce_boolean_decision(not failed)
        moment.settled = True
        if not failed:
            self.callback._last_url = moment.url
            if self.recorder is not None and self.recorder.last is not None:
                self._logged.tell(self.recorder.last)
                self.recorder.warn_of_marks(stacklevel=4)
            return
        lightning_policy.put_back(self.callback, moment.before)
        self._report(moment, error)

    def _outcome(self, moment: Moment) -> BaseException | None:
        if self.recorder is None:
            return None
        self.recorder.saver.wait()
        error = self.recorder.saver.take_error()
        mine, self._error = self._error, None
        if mine is None and not moment.handed_over:
            mine = SaveFailed("it was never handed over")
        return mine or error

    def _report(self, moment: Moment, error: BaseException | None) -> None:
        name = urls.parse(moment.url)[1]
        report_failed_save(name, self.store, error, self.callback.on_error, stacklevel=4)

    def wait(self) -> None:
        """Wait for the save that goes on."""
        if self.recorder is not None:
            self.recorder.saver.wait()

    def wait_at_end(self) -> None:
        """Wait for it where nothing else goes on, and show how far it is."""
        if self.recorder is not None:
            self.recorder.wait_at_end()

    def finish(self, *, wait_for_data: bool) -> None:
        """Wait until everything is on disk."""
        self.promise()  # where no step was left to do
        if self.recorder is not None:
            self.recorder.finish(wait_for_data=wait_for_data)
            self._logged.save()
