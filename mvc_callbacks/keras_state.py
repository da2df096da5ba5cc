"""The state of a Keras model: its variables, by position, to a snapshot and back."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from mvc_callbacks import tree
from mvc_callbacks.errors import IncompatibleModel
from mvc_callbacks.keras_staging import Buffers, any_nonfinite, take
from mvc_callbacks.numpy_tensors import dtype_name, from_neutral, numpy_dtype, to_neutral
from mvc_callbacks.snapshot import Snapshot, WeightsOf
from mvc_callbacks.tensors import State, Tensor

__all__ = [
    "assign",
    "compare",
    "layers_of",
    "name_of",
    "outside_of_variables",
    "snapshot",
    "state_digests",
    "with_own_state",
]

_SHOWN = 10


def name_of(position: int) -> str:
    """Return the name of the variable at a position: its own name changes when a model is built again."""
    return f"variables/{position:06d}"


@dataclass(frozen=True, slots=True, eq=False)
class _Slot:
    """A place in the training state where a tensor goes."""

    index: int


def snapshot(
    model: Any,
    rest: Mapping[str, Any] | None,
    *,
    buffers: Buffers | None,
    weights_of: WeightsOf = "training",
) -> Snapshot:
    """Take what a model's variables hold at this moment.

    Args:
        model: A built model.
        rest: What else belongs to the training state; it may hold neutral tensors. The optimizer's and the
            metrics' variables are added. None keeps the weights only.
        buffers: Host memory to copy to, so that training may go on; without it memory is shared.
        weights_of: Whether these are an average of weights.

    Raises:
        UnsupportedTensor: If the bits of a variable cannot be kept.
    """
    variables = list(model.variables)
    optimizer = list(_optimizer_variables(model)) if rest is not None else []
    metrics = list(model.metrics_variables) if rest is not None else []
    everything = [*variables, *optimizer, *metrics]
    taken, give_back = take(everything, buffers)
    names = [name_of(position) for position in range(len(variables))]
    groups = _groups(model)
    told = tree_tensors = None
    untold: tuple[str, ...] = ()
    if rest is not None:
        slots = [_Slot(index) for index in range(len(everything))]
        after = len(variables) + len(optimizer)
        encoded = tree.encode(
            {
                **rest,
                "optimizer": {
                    "class": type(model.optimizer).__name__ if model.optimizer is not None else None,
                    "names": [_label(each) for each in optimizer],
                    "variables": slots[len(variables) : after],
                },
                "metrics": {"names": [_label(each) for each in metrics], "variables": slots[after:]},
            },
            is_tensor=lambda value: isinstance(value, _Slot | Tensor),
        )
        told, untold = encoded.json, encoded.untold
        tree_tensors = State(
            {
                name: taken[each.index] if isinstance(each, _Slot) else each
                for name, each in encoded.tensors.items()
            }
        )
    weights = taken[: len(variables)]
    return Snapshot(
        weights=State(
            dict(zip(names, weights, strict=True)),
            {name: groups.get(id(each), "buffer") for name, each in zip(names, variables, strict=True)},
            {name: _label(each) for name, each in zip(names, variables, strict=True)},
        ),
        tree=told,
        tree_tensors=tree_tensors,
        untold=untold,
        weights_of=weights_of,
        find_nonfinite=functools.partial(any_nonfinite, weights),
        give_back=give_back,
    )


def _label(variable: Any) -> str:
    return str(getattr(variable, "path", None) or variable.name)


def _optimizer_variables(model: Any) -> Sequence[Any]:
    optimizer = model.optimizer
    return optimizer.variables if optimizer is not None else ()


def _groups(model: Any) -> dict[int, str]:
    """Tell what trains, what is frozen, and what no optimizer would ever touch (statistics, seeds)."""
    groups = {id(each): "train" for each in model.trainable_variables}
    for layer in layers_of(model):
        for each in getattr(layer, "_trainable_variables", ()):
            groups.setdefault(id(each), "frozen")
    return groups


def layers_of(model: Any) -> Iterator[Any]:
    """Go through a model and all layers in it."""
    yield from model._flatten_layers(include_self=True, recursive=True)


def outside_of_variables(model: Any) -> list[str]:
    """Name the layers whose state is no variable, such as vocabularies, and is therefore not in a version."""
    return [
        str(layer.path or layer.name)
        for layer in layers_of(model)
        if type(layer).__module__.startswith("keras.") and "save_assets" in _own_methods(type(layer))
    ]


def with_own_state(model: Any) -> list[str]:
    """Name the layers that save something themselves, which is no variable: it is not in a version either."""
    return [
        str(layer.path or layer.name)
        for layer in layers_of(model)
        if _has_buffers(layer) or (not isinstance(layer, keras.Model) and _saves_itself(type(layer)))
    ]


def _has_buffers(layer: Any) -> bool:
    """A module of torch inside of a layer keeps statistics, such as batch norm's, as buffers."""
    if type(layer).__name__ != "TorchModuleWrapper":
        return False
    return any(True for _ in layer.module.buffers())


def _saves_itself(kind: type) -> bool:
    return any(
        name in vars(each)
        for each in kind.__mro__
        if each.__module__.partition(".")[0] not in ("builtins", "keras", "keras_hub", "tensorflow", "torch")
        for name in ("save_own_variables", "save_assets")
    )


def _own_methods(kind: type) -> set[str]:
    return {
        name
        for each in kind.__mro__
        if each.__module__.startswith("keras.src.layers.preprocessing")
        for name in vars(each)
    }


# Back again


def compare(
    variables: Sequence[Any], tensors: Sequence[Tensor], labels: Sequence[str], *, cast: bool, foreign: bool
) -> list[str]:
    """Return a line about each position where variables and stored tensors differ; nothing is assigned.

    Args:
        variables: Of the model or optimizer.
        tensors: In the order of their positions.
        labels: What the stored ones were called.
        cast: Allow another dtype.
        foreign: Allow integers of another size that hold the same number: counters and seeds, which
            every backend keeps
            in a dtype of its own.
    """
    lines = []
    if len(variables) != len(tensors):
        lines.append(f"{len(tensors)} variables in the version, {len(variables)} in the model")
    pairs = list(zip(variables, tensors, labels, strict=False))
    for position, (variable, tensor, label) in enumerate(pairs):
        why = _difference(variable, tensor, cast=cast, foreign=foreign)
        if why is not None:
            lines.append(f"{position} ({_label(variable)}; was {label}): {why}")
    for index, each in enumerate(list(variables)[len(pairs) :], len(pairs)):
        lines.append(f"{index} ({_label(each)}) is only in the model")
    for index, label in enumerate(list(labels)[len(pairs) :], len(pairs)):
        lines.append(f"{index} ({label}) is only in the version")
    more = len(lines) - _SHOWN
    return [*lines[:_SHOWN], f"and {more} more"] if more > 0 else lines


def _difference(variable: Any, tensor: Tensor, *, cast: bool, foreign: bool) -> str | None:
    shape = tuple(variable.shape)
    if shape != tensor.shape:
        return f"shape {list(tensor.shape)} in the version, {list(shape)} in the model"
    mine = dtype_name(keras.backend.standardize_dtype(variable.dtype))
    if mine == tensor.dtype or cast:
        return None
    if foreign and mine[0] in "IU" and tensor.dtype[0] in "IU":
        value = from_neutral(tensor)
        if bool((value.astype(numpy_dtype(mine)).astype(value.dtype) == value).all()) and not (
            mine[0] == "U" and bool((value < 0).any())
        ):
            return None
        return f"{tensor.dtype} in the version does not fit into {mine} of this backend"
    hint = "" if mine[0] in "IU" or tensor.dtype[0] in "IU" else " (cast=True converts)"
    return f"{tensor.dtype} in the version, {mine} in the model{hint}"


def assign(variables: Sequence[Any], tensors: Sequence[Tensor], *, what: str) -> None:
    """Assign stored tensors by position, read everything back, and compare; on any error nothing has changed.

    `compare` comes first.

    Args:
        variables: Of the model or optimizer.
        tensors: As many.
        what: Whose, for the message.

    Raises:
        IncompatibleModel: If a variable holds something else afterwards.
    """
    kept, _ = take(variables, Buffers())
    wanted = [_as_kept(tensor, old) for tensor, old in zip(tensors, kept, strict=True)]
    try:
        _write(variables, wanted)
        held, _ = take(variables, None)
        for variable, tensor, now in zip(variables, wanted, held, strict=True):
            if now.data != tensor.data:
                raise IncompatibleModel(
                    f"{what} did not take the values of {_label(variable)}: something assigns to it, or "
                    "changes what is assigned (a constraint, a distribution strategy)"
                )
    except BaseException:
        _write(variables, kept)
        raise


def _as_kept(tensor: Tensor, old: Tensor) -> Tensor:
    if tensor.dtype == old.dtype:
        return tensor
    return to_neutral(from_neutral(tensor).astype(numpy_dtype(old.dtype)))


def _write(variables: Sequence[Any], tensors: Sequence[Tensor]) -> None:
    if keras.backend.backend() == "torch":
        from mvc_callbacks.torch_tensors import copy_into

        for variable, tensor in zip(variables, tensors, strict=True):
            copy_into(tensor, variable.value, name=_label(variable))
        return
    for variable, tensor in zip(variables, tensors, strict=True):
        # A fresh array: JAX and TensorFlow may keep what they are given instead of copying it.
        variable.assign(np.asarray(from_neutral(tensor)))


def state_digests(variables: Sequence[Any]) -> list[tuple[str, str, tuple[int, ...], str]]:
    """Return name, dtype, shape and tensor digest of a model's variables as they are now."""
    taken, _ = take(variables, None)
    return [(name_of(position), each.dtype, each.shape, each.digest()) for position, each in enumerate(taken)]
