"""VersionCheckpoint for Keras 3, on any of its backends."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from mvc_callbacks.keras_backend import check_backend

check_backend()  # Keras' own failure does not say what to do, and leaves half of Keras behind

import keras  # noqa: E402

from mvc_callbacks.arguments import check_choice, check_keep, names_of  # noqa: E402
from mvc_callbacks.errors import Misconfigured, MVCError, MVCWarning  # noqa: E402
from mvc_callbacks.keras_evaluation import evaluate, measured  # noqa: E402
from mvc_callbacks.keras_facts import direction  # noqa: E402
from mvc_callbacks.keras_frames import arguments_of  # noqa: E402
from mvc_callbacks.keras_session import Session  # noqa: E402
from mvc_callbacks.refs import check_name  # noqa: E402
from mvc_callbacks.store import VersionStore  # noqa: E402
from mvc_callbacks.versions import Version  # noqa: E402

if sys.version_info >= (3, 12):
    from typing import override
else:
    from typing_extensions import override

__all__ = ["VersionCheckpoint"]

_FILES = (".keras", ".h5", ".hdf5", ".ckpt")


class VersionCheckpoint(keras.callbacks.ModelCheckpoint):  # type: ignore[misc]
    """Makes a version wherever ModelCheckpoint, the class behind this one, writes a file.

    ModelCheckpoint decides when to save; its only method that is replaced is the one that writes.

    Args:
        store: The folder, or a `VersionStore`; else ``$MVC_STORE``, else ``./model_versions``.
        run: The run's label.
        data: A path, glob, list of them, or ``{"train": ..., "val": ...}``; else found from ``fit``'s
            arguments.
        hyperparameters: What a factory needs to build the model again, and whatever else is to be known.
        exclude_hyperparameters: Names, or patterns of dotted paths, that are not to be recorded.
        keep_training_state: How many of the newest versions keep their training state, beside the best;
            or ``"all"``.
        background: Write beside training, from a copy in host memory.
        on_error: ``"warn"``, or ``"raise"`` to stop training when a save fails.
        on_data_change: What to do if these are not the data of the version that training goes on from:
            ``"warn"``, ``"error"`` (stop before training), or ``"ignore"`` (do not compare).
        resume: A ref, or ``"last"`` (the newest version of this ``run``): training goes on from it, once.
        monitor: As ModelCheckpoint's.
        verbose: As ModelCheckpoint's.
        save_best_only: As ModelCheckpoint's.
        save_weights_only: Save no training state.
        mode: As ModelCheckpoint's.
        save_freq: As ModelCheckpoint's.
        initial_value_threshold: As ModelCheckpoint's.
        filepath: Refused: there are no files to name.

    Raises:
        Misconfigured: If an argument cannot work; the message says what to use.
        BadName: If ``run`` cannot be a label.
    """

    def __init__(
        self,
        store: str | os.PathLike[str] | VersionStore | None = None,
        *,
        run: str | None = None,
        data: Any = None,
        hyperparameters: Mapping[str, Any] | None = None,
        exclude_hyperparameters: Sequence[str] = (),
        keep_training_state: int | Literal["all"] = 2,
        background: bool = True,
        on_error: Literal["warn", "raise"] = "warn",
        on_data_change: Literal["warn", "error", "ignore"] = "warn",
        resume: str | Version | None = None,
        monitor: str = "val_loss",
        verbose: int = 0,
        save_best_only: bool = False,
        save_weights_only: bool = False,
        mode: str = "auto",
        save_freq: str | int = "epoch",
        initial_value_threshold: float | None = None,
        filepath: str | os.PathLike[str] | None = None,
    ) -> None:
        _refuse_paths(store, filepath)
        check_choice("on_error", on_error, ("warn", "raise"))
        check_choice("on_data_change", on_data_change, ("warn", "error", "ignore"))
        check_keep(keep_training_state)
        if run is not None:
            check_name(run, "run")
        super().__init__(
            "version.weights.h5"
            if save_weights_only
            else "version.keras",  # it insists; nothing is written there
            monitor=monitor,
            verbose=verbose,
            save_best_only=save_best_only,
            save_weights_only=save_weights_only,
            mode=mode,
            save_freq=save_freq,
            initial_value_threshold=initial_value_threshold,
        )
        self.policy: dict[str, Any] = {
            "monitor": monitor,
            "save_best_only": save_best_only,
            "save_weights_only": save_weights_only,
            "mode": mode,
            "save_freq": save_freq,
            "initial_value_threshold": initial_value_threshold,
        }
        self.store = store
        self.run = run
        self.data = data
        self.hyperparameters = hyperparameters
        self.exclude_hyperparameters = names_of("exclude_hyperparameters", exclude_hyperparameters)
        self.keep_training_state = keep_training_state
        self.background = background
        self.on_error = on_error
        self.on_data_change = on_data_change
        self.resume = resume
        self._fresh = {name: getattr(self, name) for name in _STATE}
        self._session: Session | None = None
        self._opened: VersionStore | None = None
        self._measured: Version | None = None
        self._resumed = False
        self._run_name: str | None = None
        self._last_ref: str | None = None
        self._best_ref: str | None = None

    # What has been saved

    @property
    def run_name(self) -> str | None:
        """The label of the run that is being recorded, or was last; None before its first version."""
        return self._run_name

    @property
    def last_version(self) -> Version | None:
        """The run's newest version; waits for one that is being saved."""
        return self._version("_last_ref")

    @property
    def best_version(self) -> Version | None:
        """The version with the best monitored value, of this run and those that it resumes."""
        return self._version("_best_ref")

    def _version(self, attribute: str) -> Version | None:
        if self._session is not None:
            self._session.settle(wait=True)
        ref: str | None = getattr(self, attribute)
        return self._opened.get(ref) if ref is not None and self._opened is not None else None

    # Copies: what is under way, and the model, stay with the original

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_session": None, "_model": None}

    # Hooks

    @override
    def on_train_begin(self, logs: Any = None) -> None:
        """Begin a run: forget the last one's policy state, restore what is to be resumed."""
        before = self._session
        self._close()
        if before is not None:
            before.interruption.over()
        for name, value in self._fresh.items():
            setattr(self, name, value)
        model = self.model
        self._opened = self._open_store()
        session = Session(self, model, self._opened, arguments_of(model, "fit"))
        self._run_name, previous = None, self._run_name
        if self.run is None and self.resume == "last":
            self._run_name = previous
        try:
            session.begin(model, self.params or {})
        except BaseException:
            session.forget_initial_epoch(model)
            session.finish(wait_for_data=False)
            raise
        session.interruption.begin()
        self._resumed = True
        self._run_name = self._last_ref = self._best_ref = None
        if session.best is not None:
            self._best_ref = session.best[1]
        self._session = session

    @override
    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Note the epoch, as ModelCheckpoint does."""
        super().on_epoch_begin(epoch, logs)
        if self._session is not None:
            self._session.forget_initial_epoch(self.model)

    @override
    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Save as ModelCheckpoint does, and without its error in the first epoch."""
        if self._session is not None:
            self._session.settle(wait=False)
            self._session.resuming.after_batch(batch)
        if self.save_freq != "epoch" and self.save_best_only:
            self._prepare()  # stock does so at an epoch's end only, and until then cannot compare
        super().on_train_batch_end(batch, logs)
        if self._session is not None:
            self._session.interruption.step_done()
            self._end_if_asked(self._current_epoch, batch, logs)

    @override
    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Save as ModelCheckpoint does."""
        if self._session is not None:
            self._session.settle(wait=False)
            self._session.remember(logs)
        super().on_epoch_end(epoch, logs)
        self._end_if_asked(epoch, None, logs)

    def _end_if_asked(self, epoch: int, batch: int | None, logs: Any) -> None:
        if self._session is not None and self._session.interruption.asked:
            self._session.interrupt(self.model, epoch=epoch, batch=batch, logs=logs)

    @override
    def on_train_end(self, logs: Any = None) -> None:
        """Wait until everything is on disk."""
        session = self._session
        if session is not None:
            session.forget_initial_epoch(self.model)
            session.recorder.wait_at_end()
            session.settle(wait=True)
            self._close(wait_for_data=True)
            session.interruption.act()

    @override
    def on_test_begin(self, logs: Any = None) -> None:
        """Outside of fit, find the version whose weights the model holds."""
        model = self.model
        if self._session is not None:
            self._session.resuming.validation_begins()
        self._measured = None
        if arguments_of(model, "fit") is None:
            last = self._last_ref
            self._measured = self._guarded(lambda: measured(self._open_store(), model, last))

    @override
    def on_test_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Save, if fit is to end before this validation is over."""
        # With a hook for the batch's end, Keras would wait for each batch's metrics.
        if self._session is not None and self._session.interruption.asked:
            self._session.interrupt_validation(self.model, epoch=self._current_epoch)

    @override
    def on_test_end(self, logs: Any = None) -> None:
        """Outside of fit, add an evaluation to that version."""
        version, self._measured = self._measured, None
        if version is not None:
            found = arguments_of(self.model, "evaluate")
            self._guarded(lambda: evaluate(self._open_store(), version, logs, found))

    def _guarded(self, ask: Callable[[], Any]) -> Any:
        try:
            return ask()
        except (MVCError, OSError) as error:
            warnings.warn(f"the evaluation is not recorded: {error}", MVCWarning, stacklevel=3)
            return None

    @override
    def _save_model(self, epoch: int, batch: int | None, logs: Any) -> None:
        # Private, and the one place where ModelCheckpoint writes: there is no public seam between its
        # decision and
        # the file.
        session = self._session
        if session is None:
            return
        if self.save_best_only:
            session.settle(wait=True)  # what is best depends on how the save before ended
        before = session.policy_state()
        if self._should_save_model(epoch, batch, logs, f"a version in {session.store.path}"):
            session.save(self.model, epoch=epoch, batch=batch, logs=logs, before=before)

    def _prepare(self) -> None:
        if self.monitor_op is None and hasattr(self, "_set_monitor_op"):
            self._set_monitor_op()

    def known_direction(self) -> str | None:
        """Return ``min`` or ``max``, or None where ``mode="auto"`` does not know the metric."""
        if self.monitor_op is None:
            try:
                self._prepare()
            except ValueError:
                return None
        return direction(self.monitor_op)

    def _close(self, *, wait_for_data: bool = False) -> None:
        session, self._session = self._session, None
        if session is None:
            return
        try:
            session.settle(wait=True)  # of a fit that raised, after which no hook is called
            session.finish(wait_for_data=wait_for_data)
        except (MVCError, OSError) as error:
            warnings.warn(f"not everything could be recorded: {error}", MVCWarning, stacklevel=3)

    def _open_store(self) -> VersionStore:
        return self.store if isinstance(self.store, VersionStore) else VersionStore(self.store)


_STATE = ("best", "_batches_seen_since_last_saving", "_last_batch_seen")


def _refuse_paths(store: Any, filepath: Any) -> None:
    if filepath is not None:
        raise Misconfigured(
            f"filepath={filepath!r} has no meaning for VersionCheckpoint: store= names the folder, run= "
            "the run, and versions are found by their epoch, step and metrics"
        )
    if isinstance(store, (str, os.PathLike)):
        name = os.fspath(store)
        if name.endswith(_FILES) or "{" in name:
            raise Misconfigured(
                f"store={name!r} looks like ModelCheckpoint's filepath: name a folder for all versions, "
                "or leave it out"
            )
