"""The hooks of VersionCheckpoint, shared by both Lightning namespaces."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import fsspec
import yaml

from mvc_callbacks import lightning_policy, urls
from mvc_callbacks.arguments import check_choice, check_keep, names_of
from mvc_callbacks.errors import Misconfigured, MVCError, MVCWarning
from mvc_callbacks.lightning_evaluation import evaluate
from mvc_callbacks.lightning_guard import (
    check_strategy,
    check_trainer,
    is_interrupt,
    refuse_path_arguments,
    warn_of_uploading_loggers,
)
from mvc_callbacks.lightning_io import locate, unwrap, wrap
from mvc_callbacks.lightning_moments import Moment
from mvc_callbacks.lightning_session import Session
from mvc_callbacks.metrics import scalars_of
from mvc_callbacks.refs import check_name
from mvc_callbacks.store import VersionStore
from mvc_callbacks.versions import Version

__all__ = ["VersionCheckpointMixin"]

# By its name only: the file system stands above this room, and is loaded when a URL is opened. An entry point
# does the same where the package is installed.
fsspec.register_implementation("mvc", "mvc_callbacks.filesystem.VersionFileSystem", clobber=True)


class VersionCheckpointMixin:
    """Makes a version wherever ModelCheckpoint, the class behind this one, writes a checkpoint.

    ModelCheckpoint decides when to save and what to keep. Where it asks for a path, it is given the URL of a
    version; the checkpoint plugin takes the checkpoints that are saved to such a URL, and removes them when
    ModelCheckpoint does.

    Args:
        store: The store's folder; else ``$MVC_STORE``, else ``./model_versions``.
        run: The run's label; the next run of the same label is ``label-2``. Else one made of the time.
        data: The training data where the loaders do not tell it: a path, a glob, a list of them, or a dict
            such as ``{"train": ..., "val": ...}``.
        hyperparameters: Recorded beside those of the module and the datamodule.
        exclude_hyperparameters: Names, or patterns of dotted paths, whose values are not recorded.
        keep_training_state: How many of the run's newest versions keep optimizers and loops, beside the best
            one; ``"all"`` of them, or 0 for none at all.
        background: Write beside training, which then waits only for a copy of the state.
        on_error: ``"warn"``: a save that fails is told, and training goes on. ``"raise"``: it ends.
        on_data_change: What happens when a run is resumed on other data.
        monitor: As in ModelCheckpoint, like all that follow.
        verbose: As in ModelCheckpoint.
        save_last: As in ModelCheckpoint; the last version is kept beside the top k.
        save_top_k: As in ModelCheckpoint; by default the weights of every version are kept.
        save_on_exception: As in ModelCheckpoint, on one rank; not with several.
        save_weights_only: As in ModelCheckpoint; such a version has no training state.
        mode: As in ModelCheckpoint.
        every_n_train_steps: As in ModelCheckpoint.
        train_time_interval: As in ModelCheckpoint.
        every_n_epochs: As in ModelCheckpoint.
        save_on_train_epoch_end: As in ModelCheckpoint.
        dirpath: Refused: ``store`` names the folder.
        filename: Refused: ``run`` names the run.
        auto_insert_metric_name: Refused.
        enable_version_counter: Refused.

    Raises:
        Misconfigured: If an argument cannot work; the message says what to use.
    """

    framework: ClassVar[str]
    trainer_class: ClassVar[type]
    checkpoint_io_class: ClassVar[type]

    # ModelCheckpoint's, which stands behind this class.
    best_k_models: dict[str, Any]
    best_model_path: str
    dirpath: Any
    CHECKPOINT_NAME_LAST: str
    mode: str
    save_last: Any
    save_on_exception: bool

    def __init__(
        self,
        store: str | os.PathLike[str] | None = None,
        *,
        run: str | None = None,
        data: Any = None,
        hyperparameters: Mapping[str, Any] | None = None,
        exclude_hyperparameters: Sequence[str] = (),
        keep_training_state: int | Literal["all"] = 2,
        background: bool = True,
        on_error: Literal["warn", "raise"] = "warn",
        on_data_change: Literal["warn", "error", "ignore"] = "warn",
        monitor: str | None = None,
        verbose: bool = False,
        save_last: bool | Literal["link"] | None = None,
        save_top_k: int = -1,
        save_on_exception: bool = False,
        save_weights_only: bool = False,
        mode: str = "min",
        every_n_train_steps: int | None = None,
        train_time_interval: timedelta | None = None,
        every_n_epochs: int | None = None,
        save_on_train_epoch_end: bool | None = None,
        dirpath: str | None = None,
        filename: str | None = None,
        auto_insert_metric_name: bool | None = None,
        enable_version_counter: bool | None = None,
    ) -> None:
        refuse_path_arguments(
            dirpath=dirpath,
            filename=filename,
            auto_insert_metric_name=auto_insert_metric_name,
            enable_version_counter=enable_version_counter,
        )
        check_choice("on_error", on_error, ("warn", "raise"))
        check_choice("on_data_change", on_data_change, ("warn", "error", "ignore"))
        check_keep(keep_training_state)
        if run is not None:
            check_name(run, "run")
        policy: dict[str, Any] = {
            "monitor": monitor,
            "verbose": verbose,
            "save_last": save_last,
            "save_top_k": save_top_k,
            "save_on_exception": save_on_exception,
            "save_weights_only": save_weights_only,
            "mode": mode,
            "every_n_train_steps": every_n_train_steps,
            "train_time_interval": train_time_interval,
            "every_n_epochs": every_n_epochs,
            "save_on_train_epoch_end": save_on_train_epoch_end,
        }
        super().__init__(**policy)
        self.store = store
        self.run = run
        self.data = data
        self.hyperparameters = hyperparameters
        self.exclude_hyperparameters = names_of("exclude_hyperparameters", exclude_hyperparameters)
        self.keep_training_state = keep_training_state
        self.background = background
        self.on_error = on_error
        self.on_data_change = on_data_change
        self.policy = policy
        self._session: Session | None = None
        self._run_name: str | None = None
        self._last_url = ""
        self._candidates: dict[str, Any] | None = None
        self._metrics_then: dict[str, float] | None = None

    # What has been saved

    @property
    def run_name(self) -> str | None:
        """The label of the run that is being recorded, or was last; None before its first version."""
        return self._run_name

    @property
    def last_version(self) -> Version | None:
        """The run's newest version; waits for one that is being saved."""
        return self._version("_last_url")

    @property
    def best_version(self) -> Version | None:
        """The version at `best_model_path`; waits for one that is being saved."""
        return self._version("best_model_path")

    def _version(self, attribute: str) -> Version | None:
        if self._session is not None:
            self._session.wait()
            self._session.enter()  # a save that failed meanwhile is taken back first
        url: str = getattr(self, attribute)
        if not url:
            return None
        store, ref = locate(url)
        return store.get(ref)

    # Copies: what is under way stays with the original

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_session": None}

    # ModelCheckpoint's own seams

    @property
    def state_key(self) -> str:
        """Tell this callback's state from that of another one with the same policy and another store."""
        key: str = super().state_key  # type: ignore[misc]
        return key if self.store is None else f"{key} in {self.store}"

    def format_checkpoint_name(
        self,
        metrics: dict[str, Any],
        filename: str | None = None,
        ver: int | None = None,
        prefix: str | None = None,
    ) -> str:
        """Return, instead of a file's name, the URL of the version that this moment becomes."""
        if self._session is None or not self._session.fitting:
            name: str = super().format_checkpoint_name(metrics, filename, ver, prefix)  # type: ignore[misc]
            return name
        return self._session.url(last=filename is not None and filename == self.CHECKPOINT_NAME_LAST)

    def file_exists(self, filepath: Any, trainer: Any) -> bool:
        """Tell that no URL is taken: each is given out once."""
        return False

    def check_monitor_top_k(self, trainer: Any, current: Any = None) -> bool:
        """Decide as ModelCheckpoint does, once it is known how the save before ended."""
        if self._session is not None:
            self._session.decide()
        decision: bool = super().check_monitor_top_k(trainer, current)  # type: ignore[misc]
        return decision

    def _find_last_checkpoints(self, trainer: Any) -> set[str]:
        # One of three private methods of ModelCheckpoint that are overridden, as there is no public way to be
        # asked: `ckpt_path="last"` asks it for files.
        store = self._store()
        if not store.exists():
            return set()
        label = self.run or self._run_name
        newest = store.newest_of(label) if label is not None else None
        if newest is None:
            return set()
        return {urls.make(store.path, f"{newest.run}/{newest.number}")}

    def _monitor_candidates(self, trainer: Any) -> dict[str, Any]:
        # The second one: a save that has waited is decided by the metrics that stock would have decided by.
        if self._candidates is not None:
            return self._candidates
        candidates: dict[str, Any] = super()._monitor_candidates(trainer)  # type: ignore[misc]
        return candidates

    def _postponed(self, save: Callable[[], None]) -> Callable[[], None]:
        assert self._session is not None
        candidates = super()._monitor_candidates(self._session.trainer)  # type: ignore[misc]
        metrics = scalars_of(self._session.trainer.callback_metrics)

        def as_if_then() -> None:
            self._candidates, self._metrics_then = candidates, metrics
            try:
                save()
            finally:
                self._candidates = self._metrics_then = None

        return as_if_then

    @staticmethod
    def _link_checkpoint(trainer: Any, filepath: str, linkpath: str) -> None:
        # The third. Both names are the same URL, which older releases of Lightning do not look for.
        trainer.strategy.barrier()

    def state_dict(self) -> dict[str, Any]:
        """Return ModelCheckpoint's state, with scores as numbers."""
        return lightning_policy.state_to_store(super().state_dict())  # type: ignore[misc]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the policy's state on resume; a test leaves what is known of the last run."""
        if self._session is None or not self._session.fitting:
            return
        # A store may have been moved since; with another one ModelCheckpoint says itself what it leaves out.
        here = str(self.dirpath if self._session.resumed is not None else state_dict.get("dirpath"))
        super().load_state_dict(lightning_policy.state_from_store(state_dict, here))  # type: ignore[misc]
        self._session.inherit()

    def to_yaml(self, filepath: Any = None) -> None:
        """Write the best versions and their scores, as ModelCheckpoint does; a path must be given."""
        if filepath is None:
            raise Misconfigured("to_yaml needs the path of a file: a store holds no files of one's own")
        Path(filepath).write_text(
            yaml.dump({url: float(score) for url, score in self.best_k_models.items()}), encoding="utf-8"
        )

    # Hooks

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Begin a stage: check, get before the checkpoint plugin, forget the last run's policy state."""
        check_trainer(trainer, self.trainer_class, self.framework)
        check_strategy(trainer.strategy)
        self._close()
        store = self._store()
        session = Session(self, trainer, store, stage)
        self.dirpath = session.ledger.store_url
        if session.fitting:
            lightning_policy.put_back(self, lightning_policy.fresh_state(self.mode))
            self._run_name, self._last_url = None, ""
            warn_of_uploading_loggers(trainer)
        self._base_setup(trainer, pl_module, stage)
        wrap(trainer.strategy, lambda plugin: self.checkpoint_io_class(plugin, session), session)
        session.listen()
        self._session = session

    def _base_setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        # ModelCheckpoint refuses save_last="link" where the folder is not local. Here, a link is a second
        # name of one version.
        save_last, self.save_last = self.save_last, None
        try:
            super().setup(trainer, pl_module, stage)  # type: ignore[misc]
        finally:
            self.save_last = save_last

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin to record."""
        super().on_train_start(trainer, pl_module)  # type: ignore[misc]
        if self._session is not None and not trainer.fast_dev_run:
            self._session.begin(pl_module)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, *args: Any, **kwargs: Any) -> None:
        """Say, before the first step, what is promised of a resume."""
        if self._session is not None:
            self._session.promise()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any, **kwargs: Any) -> None:
        """Save as ModelCheckpoint does; what cannot be resumed from here, after what follows."""
        save = partial(super().on_train_batch_end, trainer, pl_module, *args, **kwargs)  # type: ignore[misc]
        self._save(save, trainer, "batch")
        if self._session is not None:
            self._session.deferral.raise_if_asked()

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Save as ModelCheckpoint does."""
        self._save(partial(super().on_train_epoch_end, trainer, pl_module), trainer, "epoch")  # type: ignore[misc]

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Note that what is saved now is in the middle of a validation."""
        super().on_validation_start(trainer, pl_module)  # type: ignore[misc]
        if self._session is not None:
            self._session.validating(True)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Save as ModelCheckpoint does; outside of fit, add an evaluation."""
        if self._session is not None and self._session.stage == "validate":
            self._evaluate("validate", trainer, pl_module)
            return
        if self._session is not None:
            self._session.validating(False)
        self._save(partial(super().on_validation_end, trainer, pl_module), trainer, "validation")  # type: ignore[misc]

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Add what a resume to the same bits needs; every rank is here."""
        super().on_save_checkpoint(trainer, pl_module, checkpoint)  # type: ignore[misc]
        if self._session is not None and self._session.resuming is not None:
            self._session.resuming.keep(checkpoint)

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Take what a resume to the same bits needs."""
        super().on_load_checkpoint(trainer, pl_module, checkpoint)  # type: ignore[misc]
        if self._session is not None and self._session.resuming is not None:
            self._session.resuming.take(checkpoint)

    def on_test_end(self, trainer: Any, pl_module: Any) -> None:
        """Add an evaluation."""
        if self._session is not None:
            self._evaluate("test", trainer, pl_module)

    def _evaluate(self, kind: Literal["test", "validate"], trainer: Any, pl_module: Any) -> None:
        assert self._session is not None
        try:
            loaded = self._session.resumed
            evaluate(self._session.store, kind, trainer, pl_module, loaded=loaded, last_url=self._last_url)
        except (MVCError, OSError) as error:
            warnings.warn(f"the metrics were not added to the version: {error}", MVCWarning, stacklevel=3)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Save as ModelCheckpoint does; learn how the last save ended while all ranks are together."""
        with self._hook():
            super().on_train_end(trainer, pl_module)  # type: ignore[misc]
        if self._session is not None:
            self._session.wait_at_end()
            self._session.settle(wait=True)

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Wait until everything is on disk."""
        if self._session is not None:
            self._session.finish(wait_for_data=True)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Save as ModelCheckpoint does, wait until all is on disk, and leave; never raise."""
        session = self._session
        if session is None:
            return
        try:
            # With several ranks the others may be anywhere, and a save needs them all.
            if session.fitting and trainer.world_size == 1:
                self._save_on_exception(session, exception)
            if trainer.world_size == 1:
                session.wait_at_end()
                session.settle(wait=True)
        except Exception as error:
            warnings.warn(f"no version was saved on the exception: {error}", MVCWarning, stacklevel=2)
        finally:
            self._close(wait_for_data=False)

    def _save_on_exception(self, session: Session, exception: BaseException) -> None:
        session.enter()
        for save in session.waiting.take():
            save()
        wanted, interrupted = self.save_on_exception, is_interrupt(exception)
        if (wanted or interrupted) and not (interrupted and session.in_step):
            self.save_on_exception = True  # what ends a process from outside asks for no permission
            try:
                super().on_exception(session.trainer, session.trainer.lightning_module, exception)  # type: ignore[misc]
            finally:
                self.save_on_exception = wanted

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Leave."""
        self._close()

    def _hook(self) -> AbstractContextManager[None]:
        return self._session.hook() if self._session is not None else nullcontext()

    def _save(self, save: Callable[[], None], trainer: Any, moment: Moment) -> None:
        with self._hook():
            for each in self._session.due(save, moment) if self._session is not None else [save]:
                each()

    def _close(self, *, wait_for_data: bool = True) -> None:
        session, self._session = self._session, None
        if session is None:
            return
        try:
            session.finish(wait_for_data=wait_for_data)
        except (MVCError, OSError) as error:
            warnings.warn(f"not everything could be recorded: {error}", MVCWarning, stacklevel=3)
        finally:
            session.unlisten()
            unwrap(session.trainer.strategy, session)

    def _store(self) -> VersionStore:
        return self.store if isinstance(self.store, VersionStore) else VersionStore(self.store)
