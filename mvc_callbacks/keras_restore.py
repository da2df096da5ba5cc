"""Loading a version into a Keras model, by position: compared first, then assigned and read back."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import keras

from mvc_callbacks import keras_state, tree
from mvc_callbacks.errors import CorruptRecord, IncompatibleModel, Misconfigured
from mvc_callbacks.store import VersionStore
from mvc_callbacks.tensors import Tensor, weights_digest
from mvc_callbacks.versions import Version

__all__ = ["load"]


def load(
    store: VersionStore,
    version: Version,
    model: Any,
    *,
    strict: bool | None = None,
    prefix: str | None = None,
    cast: bool = False,
    training_state: bool = False,
    verify: bool = True,
) -> dict[str, Any]:
    """Put a version's weights into a Keras model, and with ``training_state`` its optimizer's variables.

    Args:
        store: The store.
        version: A version that was saved from Keras.
        model: The model. An unbuilt one is built with the recorded shapes of its inputs.
        strict: Only None and True: positions mean nothing where models differ.
        prefix: None only.
        cast: Allow a change of dtype.
        training_state: Whether to restore the optimizer and the metrics too; the model must be compiled.
        verify: Hash everything that is read.

    Returns:
        What else the training state tells, decoded; empty without it.

    Raises:
        IncompatibleModel: If model and version differ; nothing was assigned.
        Misconfigured: If an argument cannot work for Keras, or the model is not compiled.
        PrunedVersion: If what is asked for was pruned, or never saved.
        MissingObject, CorruptObject: If the store is damaged; nothing was assigned.
    """
    name = f"version {version.run}/{version.number} ({version.short_id})"
    if version.framework != "keras":
        raise IncompatibleModel(
            f"{name} was saved with {version.framework}, and its tensors have names of its modules: a "
            "Keras model cannot take them. VersionStore.state_dict() gives them as tensors"
        )
    if not isinstance(model, keras.Model):
        raise IncompatibleModel(f"{name} was saved from Keras, and {type(model).__name__} is no Keras model")
    _refuse(strict, prefix)
    if training_state and not model.compiled:
        raise Misconfigured(
            f"{type(model).__name__} is not compiled, so it has no optimizer whose state could be "
            "restored: call compile() first, or restore the weights alone with training_state=False"
        )
    told = version.details.record
    about = told.get("keras", {})
    foreign = about.get("backend") != keras.backend.backend()
    tree_json, rest_tensors = store.training_state(version, verify=verify) if training_state else (None, {})
    tensors = store.tensors(version, verify=verify)
    _make_built(model, about, len(tensors), name)
    if training_state and not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    rest = _decode(tree_json, rest_tensors, name) if training_state else {}

    names = sorted(tensors)
    labels = store.labels(version)
    everything = [tensors[each] for each in names]
    variables = list(model.variables)
    differences = keras_state.compare(
        variables, everything, [labels.get(each, each) for each in names], cast=cast, foreign=foreign
    )
    if training_state:
        more, stored = _optimizer(model, rest)
        differences += [
            f"optimizer {line}"
            for line in keras_state.compare(
                more, stored, rest["optimizer"]["names"], cast=False, foreign=foreign
            )
        ]
        variables, everything = [*variables, *more], [*everything, *stored]
    if differences:
        lines = "".join(f"\n  {line}" for line in differences)
        raise IncompatibleModel(
            f"{name} and {type(model).__name__} {model.name!r} do not fit; nothing was assigned. They "
            f"differ by position:{lines}"
        )
    more, stored = _metrics(model, rest)
    variables, everything = [*variables, *more], [*everything, *stored]
    keras_state.assign(variables, everything, what=f"{type(model).__name__} {model.name!r}")
    _finalize(model)
    if not cast and not foreign:
        _check(model, version)
    return rest


def _refuse(strict: bool | None, prefix: str | None) -> None:
    if strict is False or prefix:
        given = "strict=False" if strict is False else f"prefix={prefix!r}"
        raise Misconfigured(
            f"{given} goes by names, and variables of Keras are matched by position, since their names "
            "change when a model is built again: restore into the whole model, and take the layers that "
            "you need from it"
        )


def _make_built(model: Any, about: Mapping[str, Any], expected: int, name: str) -> None:
    """Build a model that is not yet, with the shapes of its inputs; no code comes from the store."""
    if model.built or len(model.variables) == expected:
        return
    shapes = about.get("build")
    if shapes:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Keras warns when it could not; we say more
            model.build_from_config(tree.decode(shapes, None))
    # Keras builds the layers of a subclassed model so, and calls the model itself unbuilt until it is called.
    if not model.built and len(model.variables) != expected:
        raise IncompatibleModel(
            f"{type(model).__name__} {model.name!r} has not all its variables yet to restore {name} into: "
            "call it once on a batch, or call its build(input_shape)"
        )


def _decode(told: Any, tensors: Mapping[str, Tensor], name: str) -> dict[str, Any]:
    rest = tree.decode(told, tensors)
    optimizer = rest.get("optimizer") if isinstance(rest, dict) else None
    if not isinstance(optimizer, dict) or not all(
        isinstance(each, Tensor) for each in optimizer.get("variables", [None])
    ):
        raise CorruptRecord(f"the training state of {name} is not that of a Keras model")
    assert isinstance(rest, dict)
    return rest


def _optimizer(model: Any, rest: Mapping[str, Any]) -> tuple[list[Any], list[Tensor]]:
    stored = rest["optimizer"]
    if stored["class"] != type(model.optimizer).__name__:
        raise IncompatibleModel(
            f"the version was trained with the optimizer {stored['class']}, and the model is compiled with "
            f"{type(model.optimizer).__name__}: compile it with the same, or restore with "
            "training_state=False"
        )
    return list(model.optimizer.variables), list(stored["variables"])


def _metrics(model: Any, rest: Mapping[str, Any]) -> tuple[list[Any], list[Tensor]]:
    # Keras makes them with the first batch and sets them to zero at every epoch's begin, so they may
    # well be missing.
    stored = rest.get("metrics", {}).get("variables", [])
    mine = list(model.metrics_variables) if stored else []
    if keras_state.compare(mine, stored, [""] * len(stored), cast=False, foreign=True):
        return [], []
    return mine, list(stored)


def _finalize(model: Any) -> None:
    """Let layers take over what they derive from their variables, such as Normalization."""
    for layer in keras_state.layers_of(model):
        if isinstance(layer, keras.layers.Normalization) and layer.built:
            layer.finalize_state()


def _check(model: Any, version: Version) -> None:
    # Every byte was compared already; this holds what the model has now to what the version's record says.
    if weights_digest(keras_state.state_digests(model.variables)) != version.weights.digest:
        raise CorruptRecord(
            f"the weights read back from {model.name!r} have not the digest that version {version.run}/"
            f"{version.number} names, although they are what the store holds: run `mvc verify`"
        )
