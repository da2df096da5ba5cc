"""One fit of a Keras model as the callback lives through it."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import keras

from mvc_callbacks import hyperparameters, keras_restore, keras_state, lineage, tree
from mvc_callbacks.continuation import compare_data, promise, refuse_change
from mvc_callbacks.errors import MVCError, MVCWarning, SaveFailed
from mvc_callbacks.keras_averages import Averages
from mvc_callbacks.keras_boards import Boards
from mvc_callbacks.keras_data import fit_plans
from mvc_callbacks.keras_facts import architecture, hyperparameters_of
from mvc_callbacks.keras_interrupts import Interruption
from mvc_callbacks.keras_resume import KEY, Resuming
from mvc_callbacks.keras_staging import Buffers
from mvc_callbacks.metrics import scalars_of
from mvc_callbacks.recorder import Facts, Recorder, report_failed_save
from mvc_callbacks.store import VersionStore
from mvc_callbacks.versions import Monitor, Version

__all__ = ["Session"]

_log = logging.getLogger(__name__)
# What ModelCheckpoint remembers between saves.
_REMEMBERED = ("best", "_batches_seen_since_last_saving", "_last_batch_seen")


@dataclass(slots=True)
class _Moment:
    """One save: what the policy knew before it, and how it went."""

    number: int
    place: tuple[int, int | None]
    before: dict[str, Any]
    best_before: tuple[float, str] | None
    handed_over: bool = False
    settled: bool = False


class Session:
    """What is known between a fit's begin and its end; made anew for each.

    Args:
        callback: The VersionCheckpoint.
        model: The model.
        store: The store.
        arguments: Of ``fit``; None where Keras' own does not run.
    """

    def __init__(
        self, callback: Any, model: Any, store: VersionStore, arguments: Mapping[str, Any] | None
    ) -> None:
        self.callback = callback
        self.store = store
        self.label: str | None = None
        self.best: tuple[float, str] | None = None  # its value and <run>/<number>
        self._arguments = arguments
        self._averages = Averages(model, arguments)
        self._board = Boards(arguments)
        self.resuming = Resuming(callback, model, arguments)
        self.interruption = Interruption(callback, arguments)
        self._moment: _Moment | None = None
        self._number = 0
        self._error: BaseException | None = None
        self._logs: dict[str, float] = {}
        self._initial_epoch: tuple[Any, Any] | None = None  # what was set, and what was there before
        self._told_model = False
        self._buffers = Buffers() if callback.background else None
        self.recorder = Recorder(
            store,
            label=callback.run,
            framework="keras",
            background=callback.background,
            keep_training_state=callback.keep_training_state,
        )
        self.recorder.policy = dict(callback.policy)

    # The begin of a fit

    def begin(self, model: Any, params: Mapping[str, Any]) -> None:
        """Restore what is to be resumed; find out, beside training, what the run stands on."""
        # Before restoring: a learning rate that was lowered on the way is no choice of anybody.
        self.recorder.hyperparameters = hyperparameters.tell(
            self._hyperparameters(model, params), exclude=self.callback.exclude_hyperparameters
        )
        resumed = self._resume(model)
        plans = fit_plans(self.callback.data, self._arguments)
        self.recorder.begin(module_class=type(model), plans=plans)
        self.recorder.note_loggers(self._board.told())
        known = lineage.origin(model)
        lineage.forget(model)  # from here on, training makes it something else
        if resumed is not None:
            self.recorder.resume(resumed)
        elif known is not None:
            self.recorder.parents = (known.parent(),)
        elif self.store.exists() and model.built and model.variables:
            self._find_parent(model)
        self._promise(resumed)

    def _promise(self, resumed: Version | None) -> None:
        """Say, before training goes on, whether it will end with the same bits, and with which data."""
        guarantee = self.resuming.begin()
        data = compare_data(self.recorder, resumed, self.callback.on_data_change, stacklevel=4)
        if self.callback.on_data_change == "error":
            refuse_change(data.changed)
        if guarantee is not None and resumed is not None:
            promise(
                self.recorder,
                guarantee,
                version=resumed,
                name=f"{resumed.run}/{resumed.number}",
                data=data,
                free=("epochs", "batch_size", "steps_per_epoch"),
                stacklevel=4,
            )

    def _hyperparameters(self, model: Any, params: Mapping[str, Any]) -> dict[str, Any]:
        gathered = hyperparameters.gather(explicit=self.callback.hyperparameters)
        return {"module": hyperparameters_of(model, params, self._arguments), **gathered}

    def _find_parent(self, model: Any) -> None:
        try:
            snapshot = keras_state.snapshot(model, None, buffers=self._buffers)
        except MVCError as error:
            _log.info("the weights at the start of fit cannot be compared with the store: %s", error)
        else:
            self.recorder.find_parent(snapshot)

    # Resuming

    def _resume(self, model: Any) -> Version | None:
        version = self._to_resume()
        if version is None:
            return None
        if version.details.record.get("keras", {}).get("batch") is not None:
            self.resuming.prepare()
        rest = keras_restore.load(self.store, version, model, training_state=True)
        self.resuming.take(rest)
        self._averages.put_back(model, bool(rest.get("averages_in_model")), f"{version.run}/{version.number}")
        self._continue_policy(rest.get("policy", {}))
        self._initial_epoch = (int(rest["next_epoch"]), model._initial_epoch)
        # There is no public way to tell fit, which has been called already, where to begin.
        # BackupAndRestore does this.
        model._initial_epoch = self._initial_epoch[0]
        _log.info("resumed from version %s/%s at epoch %s", version.run, version.number, rest["next_epoch"])
        return version

    def _to_resume(self) -> Version | None:
        ref = self.callback.resume
        if ref is None or self.callback._resumed:
            return None
        if isinstance(ref, Version):
            return ref
        if ref != "last":
            return self.store.get(ref)
        label = self.callback.run or self.callback._run_name
        newest = self.store.newest_of(label) if label is not None else None
        if newest is None:
            why = f"no version of the run {label!r} in {self.store.path}" if label else "no run= to look for"
            warnings.warn(f"resume='last': there is {why}; training starts afresh", MVCWarning, stacklevel=5)
        return newest

    def _continue_policy(self, policy: Mapping[str, Any]) -> None:
        same = policy.get("monitor") == self.callback.monitor
        for name in _REMEMBERED:
            value = policy.get(name.lstrip("_"))
            if value is not None and (same or name != "best"):
                setattr(self.callback, name, value)
        best = policy.get("best_version")
        if same and best is not None:
            self.best = (float(best[0]), str(best[1]))

    def forget_initial_epoch(self, model: Any) -> None:
        """Put the model's first epoch back once fit has read it, so that a later fit begins at its own."""
        if self._initial_epoch is not None:
            (mine, before), self._initial_epoch = self._initial_epoch, None
            if model._initial_epoch == mine:
                model._initial_epoch = before

    # Saving

    def policy_state(self) -> dict[str, Any]:
        """Return what the policy knows now."""
        return {name: getattr(self.callback, name) for name in _REMEMBERED}

    def save(self, model: Any, *, epoch: int, batch: int | None, logs: Any, before: dict[str, Any]) -> None:
        """Make a version of this moment.

        Args:
            model: The model.
            epoch: Counted from 0.
            batch: Counted from 0, inside of an epoch; None at its end.
            logs: Of the hook.
            before: What the policy knew before it decided to save.
        """
        self.settle(wait=True)
        self._number += 1
        moment = self._moment = _Moment(self._number, (epoch, batch), before, self.best)
        # Until it is handed over: an interrupt in between leaves this behind, and the version counts as
        # failed.
        self._error = SaveFailed("it was interrupted")
        try:
            self._open()
            self._take(model, moment, logs)
        except Exception as error:
            self._error = error
        else:
            self._error = None
            moment.handed_over = True
        self.settle(wait=not self.callback.background)

    def interrupt(self, model: Any, *, epoch: int, batch: int | None, logs: Any) -> None:
        """Make a version of this moment, unless there is one, and let the signal act that fit is to end by.

        Args:
            model: The model.
            epoch: Counted from 0.
            batch: Of this hook, counted from 0; None at an epoch's end.
            logs: Of the hook.

        Raises:
            KeyboardInterrupt: If it was Ctrl-C. SIGTERM ends the process.
        """
        try:
            if self._moment is None or self._moment.place != (epoch, batch):
                self.save(model, epoch=epoch, batch=batch, logs=logs, before=self.policy_state())
            self.settle(wait=True)
        finally:
            self.interruption.act()

    def interrupt_validation(self, model: Any, *, epoch: int) -> None:
        """Do the same in the middle of a validation: the last finished step was before it."""
        # With averages in the model, nobody would take them out of it again when training goes on.
        batch = self.resuming.back_to_training() if not self._averages.in_model else None
        if batch is not None:
            self.interrupt(model, epoch=epoch, batch=batch, logs=self.resuming.results())

    def _open(self) -> None:
        if self.label is None:
            self.label = self.recorder.open()
            self.callback._run_name = self.label

    def _take(self, model: Any, moment: _Moment, logs: Any) -> None:
        epoch, batch = moment.place
        if not self._told_model:
            self._told_model = True
            self.recorder.run_facts = {**self.recorder.run_facts, "architecture": architecture(model)}
            self._warn_of_state_outside(model)
        metrics = scalars_of(logs) or self._logs
        monitor = self._monitor(metrics)
        self._note_best(monitor, metrics, moment.number)
        rest = None
        if not self.callback.save_weights_only and self.callback.keep_training_state != 0:
            rest = self._rest(epoch, batch)
        self.recorder.saver.wait()  # the buffers are used again
        snapshot = keras_state.snapshot(
            model, rest, buffers=self._buffers, weights_of=self._averages.kind_of(model)
        )
        if moment.number == 1:
            self.recorder.warn_if_too_large(
                snapshot, self._planned(), advice="keep fewer with save_best_only=True"
            )
        best = self._number_of_best()
        facts = Facts(
            number=moment.number,
            epoch=epoch,
            step=_steps(model),
            metrics=metrics,
            best=best,
            monitor=monitor,
            more={"keras": _about(model, batch)},
        )
        self.recorder.save(snapshot, facts)

    def _rest(self, epoch: int, batch: int | None) -> dict[str, Any]:
        policy = {name.lstrip("_"): _plain(value) for name, value in self.policy_state().items()}
        best = list(self.best) if self.best is not None else None
        return {
            "epoch": epoch,
            "batch": batch,
            "next_epoch": epoch + 1 if batch is None else epoch,
            "averages_in_model": self._averages.in_model,
            KEY: self.resuming.keep(batch),
            "policy": {**policy, "monitor": self.callback.monitor, "best_version": best},
        }

    def _monitor(self, metrics: Mapping[str, float]) -> Monitor | None:
        mode = self.callback.known_direction()
        name = self.callback.monitor
        return Monitor(name, cast("Literal['min', 'max']", mode)) if mode and name in metrics else None

    def _note_best(self, monitor: Monitor | None, metrics: Mapping[str, float], number: int) -> None:
        if monitor is None or math.isnan(value := metrics[monitor.name]):
            return
        better = self.best is None or (
            value < self.best[0] if monitor.mode == "min" else value > self.best[0]
        )
        if better:
            self.best = (value, f"{self.label}/{number}")

    def _number_of_best(self) -> int | None:
        run, _, number = (self.best[1] if self.best is not None else "").partition("/")
        return int(number) if run == self.label and number.isdigit() else None

    def _planned(self) -> int | None:
        params = self.callback.params or {}
        epochs, steps = params.get("epochs"), params.get("steps")
        if self.callback.save_best_only or not epochs:
            return None
        if self.callback.save_freq == "epoch":
            return int(epochs)
        return math.ceil(epochs * steps / self.callback.save_freq) if steps else None

    def _warn_of_state_outside(self, model: Any) -> None:
        vocabularies, own = keras_state.outside_of_variables(model), keras_state.with_own_state(model)
        if not (vocabularies or own):
            return
        self.recorder.run_facts = {**self.recorder.run_facts, "not_in_versions": [*vocabularies, *own]}
        parts = [f"the vocabulary of {', '.join(vocabularies)}"] if vocabularies else []
        parts += [f"what {', '.join(own)} saves by itself, such as buffers of torch"] if own else []
        warnings.warn(
            f"{' and '.join(parts)} is no variable, and is not in the versions: keep it in your code, make "
            "it a variable of the layer, or keep it in a file that data= names",
            MVCWarning,
            stacklevel=6,
        )

    def remember(self, logs: Any) -> None:
        """Keep the logs of an epoch: the last known ones, for a save that has none of its own."""
        self._logs = scalars_of(logs) or self._logs

    # How saves ended

    def settle(self, *, wait: bool) -> None:
        """Learn how the last save ended; if it failed, take the policy's state back and tell, or raise.

        Args:
            wait: Whether to wait for a save that goes on.

        Raises:
            SaveFailed: If it failed, and ``on_error="raise"``.
        """
        moment = self._moment
        if moment is None or moment.settled or (not wait and not self.recorder.saver.idle):
            return
        self.recorder.saver.wait()
        error, self._error = self._error or self.recorder.saver.take_error(), None
        if error is None and not moment.handed_over:
            error = SaveFailed("it was never handed over")
        moment.settled = True
        name = f"{self.label or self.callback.run or 'the run'}/{moment.number}"
        if error is None:
            self.callback._last_ref = name
            self.callback._best_ref = self.best[1] if self.best is not None else None
            if self.recorder.last is not None:
                self._board.tell(self.recorder.last)
            self.recorder.warn_of_marks(stacklevel=4)
            return
        for each, value in moment.before.items():
            setattr(self.callback, each, value)
        self.best = moment.best_before
        report_failed_save(name, self.store, error, self.callback.on_error, stacklevel=5)

    def finish(self, *, wait_for_data: bool) -> None:
        """Wait until everything is on disk."""
        self.interruption.end()
        self.resuming.unlisten()
        self.recorder.finish(wait_for_data=wait_for_data)


def _steps(model: Any) -> int | None:
    iterations = getattr(model.optimizer, "iterations", None)
    return int(keras.ops.convert_to_numpy(iterations)) if iterations is not None else None


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, (int, str)) else float(value)


def _about(model: Any, batch: int | None) -> dict[str, Any]:
    told: dict[str, Any] = {"version": keras.__version__, "backend": keras.backend.backend()}
    if batch is not None:
        told["batch"] = batch
    try:
        shapes = model.get_build_config()
    except Exception:  # a model of the user's that overrides it
        shapes = None
    if shapes and any(each is not None for each in shapes.values()):
        told["build"] = tree.encode(shapes, is_tensor=lambda _: False).json
    return told
