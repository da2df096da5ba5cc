"""The state of a training with torch: a checkpoint dictionary to a snapshot, and back."""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import torch

from mvc_callbacks import tree as trees
from mvc_callbacks.canonical import encode
from mvc_callbacks.errors import CorruptRecord, UnsupportedTensor
from mvc_callbacks.snapshot import Snapshot, WeightsOf
from mvc_callbacks.tensors import State, Tensor
from mvc_callbacks.torch_staging import Staging, StagingBuffers
from mvc_callbacks.torch_tensors import from_neutral, nonfinite, to_neutral, view_of, why_unsupported

__all__ = ["StagingBuffers", "rebuild", "snapshot", "to_torch"]

_WEIGHTS = "state_dict"
_AVERAGING = ("averaging_state", "current_model_state")  # lightning.pytorch.callbacks.WeightAveraging
# What Lightning itself puts into a checkpoint, and any precision plugin's state is under its class's name.
_LIGHTNING = {
    "callbacks",
    "datamodule_hparams_name",
    "datamodule_hparams_type",
    "datamodule_hyper_parameters",
    "epoch",
    "global_step",
    "hparams_name",
    "hparams_type",
    "hyper_parameters",
    "loops",
    "lr_schedulers",
    "mvc_callbacks",
    "native_amp_scaling_state",
    "optimizer_states",
    "pytorch-lightning_version",
    _WEIGHTS,
    *_AVERAGING,
}
_LARGEST_ADDITION = 4 * 1024 * 1024
_SMALL = 64 * 1024
_ORDINARY = {"version": 1}  # what torch notes of every module that says nothing else


def snapshot(
    checkpoint: Mapping[str, Any],
    *,
    module: torch.nn.Module | None = None,
    copy: bool = True,
    buffers: StagingBuffers | None = None,
    masked: Callable[[str, str, Any], bool] | None = None,
) -> Snapshot:
    """Take what a checkpoint dictionary holds at this moment.

    Its ``state_dict`` becomes the weights; everything else a tree, whose tensors are named by their paths. A
    DTensor is gathered, which is a collective: then every rank has to call this.

    Args:
        checkpoint: Lightning's, or any with a ``state_dict``.
        module: Whose weights they are; tells trained parameters, frozen ones and buffers apart.
        copy: Copy all tensors to host memory, so that training may go on; without it they are shared.
        buffers: Memory to copy to, used again after `Snapshot.release`.
        masked: See `tree.encode`.

    Raises:
        UnsupportedTensor: If a tensor of the state dict cannot be kept; elsewhere such a tensor is untold.
        ValueError: If there is no ``state_dict``.
    """
    if _WEIGHTS not in checkpoint:
        raise ValueError("the checkpoint has no 'state_dict', so there are no weights to keep")
    weights = checkpoint[_WEIGHTS]
    tensors, others = _split(weights)
    extra, untold = _encode_others(others, masked)
    rest = _encode_rest(checkpoint, masked) if len(checkpoint) > 1 else None
    additions = _encode_additions(checkpoint, masked)

    staging = Staging()
    places = {name: staging.add(tensor, name) for name, tensor in tensors.items()}
    arrays, rest_places = {}, {}
    for name, value in (rest.tensors if rest is not None else {}).items():
        if isinstance(value, Tensor):  # a large numpy array
            arrays[name] = Tensor(value.dtype, value.shape, memoryview(bytes(value.data))) if copy else value
        else:
            rest_places[name] = staging.add(value, name)
    if copy:
        buffers = buffers if buffers is not None else StagingBuffers()
        taken, block = staging.copy(buffers)
        give_back = functools.partial(buffers.give_back, block)
    else:
        taken, give_back = staging.share(), None

    return Snapshot(
        weights=State(_pick(taken, places), _groups(tensors, module), {}, _tied(places)),
        extra=extra,
        additions=additions,
        tree=None if rest is None else rest.json,
        tree_tensors=None
        if rest is None
        else State({**_pick(taken, rest_places), **arrays}, tied=_tied(rest_places)),
        untold=(*untold, *(rest.untold if rest is not None else ())),
        weights_of=_weights_of(checkpoint),
        find_nonfinite=functools.partial(
            _any_nonfinite, [taken[place] for place in dict.fromkeys(places.values())]
        ),
        give_back=give_back,
    )


def rebuild(
    weights: State | Mapping[str, Tensor],
    extra: Mapping[str, Any] | None = None,
    tree: Any = None,
    tree_tensors: State | Mapping[str, Tensor] | None = None,
) -> dict[str, Any]:
    """Make the checkpoint dictionary of which a snapshot was taken.

    Args:
        weights: Of the snapshot. Tied tensors share memory again if it is a State that says so.
        extra: The state dict's other entries, decoded.
        tree: Of the snapshot; None if only the weights are wanted.
        tree_tensors: Of the snapshot.

    Returns:
        The dictionary, with tensors in host memory of their own; what could not be told is a marker.

    Raises:
        CorruptRecord: If the tree cannot be read.
        UnsupportedTensor: If this release of torch lacks a dtype.
    """
    state_dict: OrderedDict[str, Any] = OrderedDict(_make_all(weights))
    state_dict.update({name: to_torch(value) for name, value in (extra or {}).items()})
    if tree is None:
        return {_WEIGHTS: state_dict}
    checkpoint = trees.decode(tree, _make_all(tree_tensors or {}), inline=from_neutral)
    metadata = checkpoint.get(_WEIGHTS) if isinstance(checkpoint, dict) else None
    if not isinstance(metadata, dict):
        raise CorruptRecord("the tree is not that of a checkpoint")
    if metadata:
        state_dict._metadata = OrderedDict(metadata)  # type: ignore[attr-defined]
    return {**checkpoint, _WEIGHTS: state_dict}


def to_torch(value: Any) -> Any:
    """Return a decoded value whose neutral tensors, at any depth of plain containers, are torch's."""
    if isinstance(value, Tensor):
        return from_neutral(value)
    if type(value) in (list, tuple):
        return type(value)(to_torch(each) for each in value)
    if isinstance(value, dict):
        for key, each in value.items():
            value[key] = to_torch(each)
    return value


def _split(weights: Mapping[str, Any]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Separate the tensors of a state dict from its other entries, such as ``_extra_state``."""
    tensors: dict[str, torch.Tensor] = {}
    others: dict[str, Any] = {}
    for name, value in weights.items():
        try:
            name.encode("utf-8")
        except (AttributeError, UnicodeEncodeError):
            raise UnsupportedTensor(
                f"the name {name!r} in the state dict is no text that can be written"
            ) from None
        (tensors if isinstance(value, torch.Tensor) else others)[name] = value
    return tensors, others


def _encode_rest(
    checkpoint: Mapping[str, Any], masked: Callable[[str, str, Any], bool] | None
) -> trees.Encoded:
    noted = getattr(checkpoint[_WEIGHTS], "_metadata", None)
    metadata = {name: each for name, each in dict(noted or {}).items() if each != _ORDINARY}
    # The key stays in its place, so that the order of the dictionary is kept.
    return trees.encode({**checkpoint, _WEIGHTS: metadata}, is_tensor=_is_kept, masked=masked)


def _encode_others(
    others: Mapping[str, Any], masked: Callable[[str, str, Any], bool] | None
) -> tuple[dict[str, Any], list[str]]:
    """Tell each of the other entries, its tensors inside of it: they belong to the weights and are small."""
    told, untold = {}, []
    for name, value in others.items():
        encoded = trees.encode(value, is_tensor=_is_kept, masked=masked, inline=to_neutral)
        told[name] = encoded.json
        untold += [f"{_WEIGHTS}.{name}{'' if each.startswith(':') else '.'}{each}" for each in encoded.untold]
    return told, untold


def _encode_additions(
    checkpoint: Mapping[str, Any], masked: Callable[[str, str, Any], bool] | None
) -> dict[str, Any] | None:
    """Tell what a module's ``on_save_checkpoint`` added: its other hook asks for it, also years later."""
    if "pytorch-lightning_version" not in checkpoint:
        return None
    own = {
        name: value
        for name, value in checkpoint.items()
        if name not in _LIGHTNING and _bytes_in(value) <= _SMALL
    }
    told, _ = _encode_others(own, masked)
    kept = {name: each for name, each in told.items() if len(encode(each)) <= _LARGEST_ADDITION}
    return kept or None


def _bytes_in(value: Any) -> int:
    """Return the bytes of the tensors in a value, at any depth of plain containers."""
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, Mapping):
        return sum(_bytes_in(each) for each in value.values())
    return sum(_bytes_in(each) for each in value) if type(value) in (list, tuple) else 0


def _is_kept(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and why_unsupported(value) is None


def _pick(taken: list[Tensor], places: Mapping[str, int]) -> dict[str, Tensor]:
    return {name: taken[place] for name, place in places.items()}


def _tied(places: Mapping[str, int]) -> tuple[tuple[str, ...], ...]:
    names: dict[int, list[str]] = {}
    for name, place in places.items():
        names.setdefault(place, []).append(name)
    return tuple(tuple(each) for each in names.values() if len(each) > 1)


def _groups(tensors: Mapping[str, torch.Tensor], module: torch.nn.Module | None) -> dict[str, str]:
    if module is None:
        return {}
    parameters = dict(module.named_parameters(remove_duplicate=False))
    groups = {}
    for name in tensors:
        parameter = parameters.get(name)
        groups[name] = "buffer" if parameter is None else "train" if parameter.requires_grad else "frozen"
    return groups


def _weights_of(checkpoint: Mapping[str, Any]) -> WeightsOf:
    return "average" if any(key in checkpoint for key in _AVERAGING) else "training"


def _any_nonfinite(tensors: list[Tensor]) -> bool:
    return any(map(_nonfinite, tensors))


def _nonfinite(tensor: Tensor) -> bool:
    try:
        # torch's own threads would wait for one another, spinning, where all cores are busy.
        from mvc_callbacks.numpy_tensors import nonfinite as without_threads

        return without_threads(tensor)
    except (ImportError, UnsupportedTensor):  # float8 without ml_dtypes, or no numpy at all
        return nonfinite(view_of(tensor))


def _make_all(state: State | Mapping[str, Tensor]) -> dict[str, torch.Tensor]:
    tensors, tied = (state.tensors, state.tied) if isinstance(state, State) else (state, ())
    first = {name: names[0] for names in tied for name in names[1:]}
    made = {name: from_neutral(tensor) for name, tensor in tensors.items() if name not in first}
    return {name: made[first[name]].detach() if name in first else made[name] for name in tensors}
