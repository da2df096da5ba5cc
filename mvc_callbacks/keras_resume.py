"""Resuming a Keras training to the same bits: what is kept with each version, and where it is put back."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import keras

from mvc_callbacks import keras_callbacks, keras_random, keras_state, random_state
from mvc_callbacks.hidden_state import Watch
from mvc_callbacks.keras_conditions import OWN, always_in_doubt, conditions, doubts_of_data, roots, watched
from mvc_callbacks.keras_private import Epochs, has_graph, missing, random_operations, tensorflow
from mvc_callbacks.keras_staging import Buffers, take
from mvc_callbacks.metrics import scalars_of
from mvc_callbacks.resume_guarantee import Guarantee, changed
from mvc_callbacks.tensors import Tensor

__all__ = ["KEY", "Resuming", "put_back_random"]

KEY = "resuming"
"""Where it lies in a training state."""

_FORMAT = 1
_REPLAYED = ("ArrayDataAdapter", "PyDatasetAdapter", "TFDatasetAdapter", "TorchDataLoaderAdapter")
_log = logging.getLogger(__name__)


def put_back_random(rest: Mapping[str, Any]) -> None:
    """Put the random state of a training state back, where it was kept.

    Before fit, this is in time for TensorFlow's order of the data; for the other backends ``resume=`` is.
    """
    kept = rest.get(KEY)
    if isinstance(kept, dict) and kept.get("format") == _FORMAT:
        keras_random.put_back(kept["now"])


class Resuming:
    """Keeps what a fit needs to be resumed exactly, and resumes it.

    Two random states are kept: that before the epoch's data were begun, and that of now. Within an epoch the
    first one is put back, the data are begun again, and the batches that were seen are loaded and thrown
    away; then the second one is put back.

    Args:
        callback: The VersionCheckpoint.
        model: The model.
        arguments: Of ``fit``; None where Keras' own does not run.
    """

    def __init__(self, callback: Any, model: Any, arguments: Mapping[str, Any] | None) -> None:
        self._callback = callback
        self._model = model
        self._arguments: Mapping[str, Any] = arguments or {}
        iterator = self._arguments.get("epoch_iterator")
        self._missing = missing(iterator) if iterator is not None else ["fit of its own"]
        self._epochs = Epochs(iterator) if not self._missing else None
        self._loaded = False
        self._kept: Mapping[str, Any] | None = None  # what the version that is resumed kept
        self._metrics: list[Tensor] = []
        self._epoch: dict[str, Any] | None = None  # the random state before the epoch's data
        self._conditions: dict[str, Any] = {}
        self._doubts: list[str] = []
        self._watch = Watch(OWN)
        self._watching = False
        self._seen = 0  # batches of this epoch
        self._drawn = ""
        self._before_validation: dict[str, Any] | None = None
        self._in_validation = False
        self._results: dict[str, float] = {}  # of an epoch that is resumed after its last batch

    # Going on

    def prepare(self) -> None:
        """Let TensorFlow's model make the variables of its metrics, as others do before training."""
        if self._epochs is not None and keras.backend.backend() == "tensorflow":
            try:
                self._epochs.build(self._model)
            except Exception:  # whatever a model of the user's raises there, it will raise, or not, in fit
                _log.debug("the metrics could not be built before training", exc_info=True)

    def take(self, rest: Mapping[str, Any]) -> None:
        """Take what the version kept that is resumed from, after it was restored."""
        self._loaded = True
        kept = rest.get(KEY)
        self._kept = kept if isinstance(kept, dict) and kept.get("format") == _FORMAT else None
        if self._kept is not None and self._kept["batches"] is not None:
            self._metrics, _ = take(self._model.metrics_variables, Buffers())

    def begin(self) -> Guarantee | None:
        """Begin to train; say what is promised if this is a resume, otherwise None."""
        if self._epochs is not None:
            if self._kept is not None:
                keras_random.put_back(self._kept["now"])  # the seed of TensorFlow is one of the conditions
            self._conditions = conditions(self._model, self._arguments, self._epochs)
            seed = (tensorflow() or {}).get("seed")
            self._doubts = doubts_of_data(self._arguments, self._epochs, seed)
            self._listen()
        guarantee = Guarantee.of(self._reasons()) if self._loaded else None
        self._watch.begin(watched(self._model, self._arguments))
        self._drawn = keras_random.token(self._held())
        return guarantee

    def _reasons(self) -> list[str]:
        if self._epochs is None:
            return [f"the fit has no {', '.join(self._missing)}, so no random state is put back"]
        kept = self._kept
        if kept is None:
            return ["no random state was kept with what is resumed from"]
        inside = kept["batches"] is not None
        reasons = changed(kept["conditions"], self._conditions)
        reasons += [*kept["doubts"], *kept["lost"], *self._doubts]
        reasons += always_in_doubt(self._model, self._arguments)
        reasons += keras_callbacks.doubts(self._arguments, self._callback, in_epoch=inside)
        for path in sorted(set(self._held()) ^ set(kept["held"])):
            reasons.append(f"the random generator {path} was there only before or only now")
        if inside and not self._replays(kept):
            reasons.append("it was saved inside of an epoch, which begins again")
        elif inside and len(self._metrics) != kept["metrics"]:
            reasons.append("the means of the epoch's metrics begin anew")
        return reasons

    def _replays(self, kept: Mapping[str, Any]) -> bool:
        """Tell whether the batches that an epoch had before can be left out."""
        epochs = self._epochs
        return (
            epochs is not None
            and epochs.kind in _REPLAYED
            and epochs.batches is not None
            and not epochs.goes_on
            and kept["batches"] is not None
            and kept["epoch"] is not None
            and kept["batches"] % self._model.steps_per_execution == 0
        )

    def _random(self) -> dict[str, Any]:
        return {"state": keras_random.capture(), "held": keras_random.capture_held(self._held())}

    def _held(self) -> dict[str, Any]:
        return random_state.held(roots(self._model, self._arguments))

    # The moments of a fit

    def _listen(self) -> None:
        """Come before all callbacks where an epoch begins, and after them: Keras has no hook for that."""
        callbacks = self._arguments["callbacks"]
        begin, end = type(callbacks).on_epoch_begin, type(callbacks).on_epoch_end

        def on_epoch_begin(epoch: int, logs: Any = None) -> None:
            kept, self._kept = self._kept, None
            rates = self._before_epoch(kept) if kept is not None else []
            begin(callbacks, epoch, logs)
            self._after_epoch_begin(kept, rates)

        def on_epoch_end(epoch: int, logs: Any = None) -> None:
            results, self._results = self._results, {}
            if results and logs is not None:  # fit has those of a validation only, as it saw no batch
                found = {**results, **logs}
                logs.clear()
                logs.update(found)
            end(callbacks, epoch, logs)

        callbacks.on_epoch_begin, callbacks.on_epoch_end = on_epoch_begin, on_epoch_end

    def unlisten(self) -> None:
        """Leave the list of callbacks as it was, and let the data go."""
        callbacks = self._arguments.get("callbacks")
        if callbacks is not None and self._epochs is not None:
            for name in ("on_epoch_begin", "on_epoch_end"):
                vars(callbacks).pop(name, None)
        self._arguments, self._epochs = {}, None

    def _before_epoch(self, kept: Mapping[str, Any]) -> list[Tensor]:
        assert self._epochs is not None
        keras_callbacks.put_back(self._arguments, kept["callbacks"])
        self._put_back(kept["now"], kept["held"])
        self._epochs.make_again()
        return take(self._rates(), Buffers())[0] if kept["batches"] is not None else []

    def _after_epoch_begin(self, kept: Mapping[str, Any] | None, rates: list[Tensor]) -> None:
        self._seen = 0
        if kept is not None and self._replays(kept):
            assert self._epochs is not None
            # A schedule by epochs has stepped, although this epoch has begun before.
            keras_state.assign(self._rates(), rates, what="the optimizer")
            self._epochs.skip(
                kept["batches"],
                before=lambda: self._put_back(kept["epoch"], kept["epoch_held"]),
                after=lambda: self._go_on(kept),
            )
            self._epoch = {"state": kept["epoch"], "held": kept["epoch_held"]}
        else:  # also where the policy saves at an epoch's end only: an interruption may come
            self._epoch = self._random()

    def _rates(self) -> list[Any]:
        optimizer = self._model.optimizer
        inner = getattr(optimizer, "inner_optimizer", optimizer)
        rates = [
            getattr(each, "_learning_rate", None) for each in getattr(inner, "optimizers", None) or [inner]
        ]
        return [each for each in rates if hasattr(each, "assign")]

    def _go_on(self, kept: Mapping[str, Any]) -> None:
        self._put_back(kept["now"], kept["held"])
        variables = list(self._model.metrics_variables)
        if len(variables) == len(self._metrics):
            keras_state.assign(variables, self._metrics, what="the metrics")
        self._seen = kept["batches"]
        if self._epochs is not None and self._seen == self._epochs.batches:
            self._results = self.results()

    def results(self) -> dict[str, float]:
        """Return what the metrics come to as they are now."""
        return scalars_of(self._model.get_metrics_result())

    def _put_back(self, state: Mapping[str, Any], held: Mapping[str, Any]) -> None:
        keras_random.put_back(state)
        keras_random.put_back_held(self._held(), held)

    def after_batch(self, batch: int) -> None:
        """Note a batch, counted from 0; what its first one builds is watched from then on."""
        self._seen, self._before_validation = batch + 1, None
        if self._epochs is not None and self._seen == self._epochs.batches:
            self._note_training()  # the data of the next epoch may be begun before a validation is
        if not self._watching:
            self._watching = True
            self._watch.begin(watched(self._model, self._arguments))

    def validation_begins(self) -> None:
        """Remember, if it is not known, what a validation within fit changes."""
        if self._epochs is not None and self._seen and self._before_validation is None:
            self._note_training()

    def _note_training(self) -> None:
        metrics, _ = take(self._model.metrics_variables, Buffers())
        self._before_validation = {"metrics": metrics, "random": self._random()}

    def back_to_training(self) -> int | None:
        """Put back what a validation changed; return the last batch, or None if nothing is known."""
        before, self._before_validation = self._before_validation, None
        if before is None:
            return None
        self._in_validation = True
        variables = list(self._model.metrics_variables)[: len(before["metrics"])]
        keras_state.assign(variables, before["metrics"], what="the metrics")
        self._put_back(before["random"]["state"], before["random"]["held"])
        return self._seen - 1

    # Keeping

    def keep(self, batch: int | None) -> dict[str, Any] | None:
        """Return what a resume needs, to be kept with the training state of now.

        Args:
            batch: Counted from 0, inside of an epoch; None at its end.
        """
        if self._epochs is None:
            return None
        inside = batch is not None
        held = self._held()
        epoch = self._epoch if inside else None
        return {
            "format": _FORMAT,
            "now": keras_random.capture(),
            "held": keras_random.capture_held(held),
            "epoch": epoch["state"] if epoch else None,
            "epoch_held": epoch["held"] if epoch else {},
            "batches": batch + 1 if batch is not None else None,
            "metrics": len(self._model.metrics_variables),
            "callbacks": keras_callbacks.capture(self._arguments),
            "conditions": self._conditions,
            "doubts": [
                *self._doubts,
                *keras_callbacks.doubts(self._arguments, self._callback, in_epoch=inside),
            ],
            "lost": self._lost(held, inside),
        }

    def _lost(self, held: Mapping[str, Any], inside: bool) -> list[str]:
        assert self._epochs is not None
        told = self._watch.changes(watched(self._model, self._arguments))
        told += [
            f"the layer {name} keeps state that is no variable"
            for name in keras_state.with_own_state(self._model)
        ]
        if self._in_validation:
            told.append("it was saved in the middle of a validation")
        if self._model.stop_training:
            told.append("it was saved when training was about to stop, which goes on now")
        batches = self._epochs.batches
        if not inside and batches is not None and self._seen < batches:
            told.append(f"its epoch was cut short after {self._seen} of {batches} batches")
        if keras.backend.backend() == "tensorflow":
            function = getattr(self._model, "train_function", None)
            drawn = sorted(random_operations(function))
            if drawn:
                ops = ", ".join(drawn[:3])
                told.append(f"training draws random numbers by TensorFlow's own state ({ops})")
            elif not self._model.run_eagerly and not has_graph(function):
                told.append("what TensorFlow computes in a step cannot be looked into")
            if self._epochs.kind == "PyDatasetAdapter" and self._drawn != keras_random.token(held):
                told.append("TensorFlow reads the PyDataset ahead of training, and random numbers are drawn")
        return told
