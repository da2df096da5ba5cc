"""Loading weights into a torch module: everything is compared first, then assigned, or nothing is."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from mvc_callbacks.errors import IncompatibleModel, MVCWarning
from mvc_callbacks.store import VersionStore
from mvc_callbacks.torch_assign import LAZY, assign
from mvc_callbacks.torch_state import rebuild, to_torch
from mvc_callbacks.torch_tensors import view_of
from mvc_callbacks.versions import Version

__all__ = ["load"]

_SHOWN = 10
_COMPILED = "_orig_mod"
_WRAPPED = "module."


@dataclass(frozen=True, slots=True)
class _Match:
    """The model's names against the version's.

    Attributes:
        names: Model's name to version's name, of what can be loaded.
        missing: Names that only the model has.
        unexpected: Names that only the version has.
        different: Lines about shapes and dtypes that differ.
        clashing: The model's names that those lines are about.
    """

    names: Mapping[str, str]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    different: tuple[str, ...]
    clashing: frozenset[str]


def load(
    store: VersionStore,
    version: Version,
    model: nn.Module,
    *,
    strict: bool | None,
    prefix: str | None,
    cast: bool,
    verify: bool,
    built: bool,
) -> str | None:
    """Put a version's weights into a module, on the device where it is.

    Args:
        store: The store.
        version: The version.
        model: The module.
        strict: Whether all names must be there on both sides; None asks the module's ``strict_loading``.
        prefix: Load only names that begin so, without this beginning.
        cast: Allow a change of dtype.
        verify: Hash everything that is read.
        built: Whether the module was just built for this: it then gets its ``on_load_checkpoint`` and goes to
            evaluation mode.

    Returns:
        ``n/m`` tensors where only a part of the module's was loaded, None for all.

    Raises:
        IncompatibleModel: If module and version differ; nothing was assigned.
        PrunedVersion: If the weights were pruned.
        MissingObject, CorruptObject: If the store is damaged; nothing was assigned.
    """
    tensors = store.tensors(version, verify=verify)
    saved: dict[str, Any] = {
        name: view_of(tensor) for name, tensor in tensors.items()
    }  # copied once, into the model
    saved.update({name: to_torch(value) for name, value in store.extra(version).items()})
    if built:
        _tell_module(store, version, model)
    selected = _select(saved, prefix, version)
    target = model.state_dict(keep_vars=True)
    match = _compare(target, selected, cast=cast)
    if strict is None:
        strict = bool(getattr(model, "strict_loading", True))
    _judge(match, strict=strict, version=version, model=model)
    assign(model, target, {name: selected[other] for name, other in match.names.items()})
    if built:
        model.eval()
    whole = not (match.missing or match.clashing or match.unexpected or prefix)
    return None if whole else f"{len(match.names)}/{len(target)}"


def _tell_module(store: VersionStore, version: Version, model: nn.Module) -> None:
    """Call a Lightning module's own ``on_load_checkpoint``, as loading from a checkpoint does."""
    hook = getattr(type(model), "on_load_checkpoint", None)
    if hook is None or hook.__module__.partition(".")[0] in ("lightning", "pytorch_lightning"):
        return
    told = {"epoch": version.epoch, "global_step": version.step, **to_torch(store.additions(version))}
    tree, state = store.training_state(version) if version.has_training_state else (None, None)
    checkpoint = {**told, **rebuild(store.tensors(version), store.extra(version), tree, state)}
    try:
        hook(model, checkpoint)
    except KeyError as error:
        if version.has_training_state:
            raise
        raise IncompatibleModel(
            f"{type(model).__name__}.on_load_checkpoint() asks for {error} of the checkpoint, which went "
            f"with the training state of {version.run}/{version.number}. Restore into an instance that has "
            "it already, or keep the state of every version with keep_training_state='all'"
        ) from error


def _select(saved: Mapping[str, Any], prefix: str | None, version: Version) -> dict[str, Any]:
    if not prefix:
        return dict(saved)
    selected = {name[len(prefix) :]: each for name, each in saved.items() if name.startswith(prefix)}
    if not selected:
        roots = sorted({name.partition(".")[0] + "." for name in saved})
        raise IncompatibleModel(
            f"version {version.run}/{version.number} has no weights whose names begin with {prefix!r}; "
            f"they begin with {_listed(roots)}"
        )
    return selected


def _plain(names: Iterable[str]) -> dict[str, str]:
    """Return names without what torch.compile and DDP put into them, to the names as they are."""
    names = list(names)
    wrapped = bool(names) and all(name.startswith(_WRAPPED) for name in names)
    plain = {}
    for name in names:
        short = name[len(_WRAPPED) :] if wrapped else name
        plain[".".join(part for part in short.split(".") if part != _COMPILED)] = name
    return plain if len(plain) == len(names) else {name: name for name in names}


def _compare(target: Mapping[str, Any], saved: Mapping[str, Any], *, cast: bool) -> _Match:
    mine, theirs = dict.fromkeys(target), dict.fromkeys(saved)
    pairs = {name: name for name in mine if name in theirs}
    if len(pairs) < len(mine) or len(pairs) < len(theirs):
        ours, others = _plain(mine), _plain(theirs)
        pairs = {ours[name]: others[name] for name in ours if name in others}
    names, different = {}, []
    for name, other in pairs.items():
        why = _difference(target[name], saved[other], cast=cast)
        if why is None:
            names[name] = other
        else:
            different.append(f"{name}: {why}")
    used = set(pairs.values())
    return _Match(
        names=names,
        missing=tuple(name for name in mine if name not in pairs),
        unexpected=tuple(name for name in theirs if name not in used),
        different=tuple(different),
        clashing=frozenset(pairs) - frozenset(names),
    )


def _difference(mine: Any, saved: Any, *, cast: bool) -> str | None:
    if not isinstance(mine, torch.Tensor) or not isinstance(saved, torch.Tensor):
        same = isinstance(mine, torch.Tensor) == isinstance(saved, torch.Tensor)
        return None if same else f"{type(saved).__name__} in the version, {type(mine).__name__} in the model"
    if isinstance(mine, LAZY):
        return None  # a lazy module takes its shape from what is loaded
    if mine.device.type == "meta":
        return "on the meta device in the model; materialise it first, for example with to_empty(device=...)"
    if mine.shape != saved.shape:
        return f"shape {list(saved.shape)} in the version, {list(mine.shape)} in the model"
    if mine.dtype != saved.dtype and not cast:
        return f"{saved.dtype} in the version, {mine.dtype} in the model (cast=True converts)"
    return None


def _judge(match: _Match, *, strict: bool, version: Version, model: nn.Module) -> None:
    lines = []
    if match.missing:
        lines.append(f"only the model has {_listed(match.missing)}")
    if match.unexpected:
        lines.append(f"only the version has {_listed(match.unexpected)}")
    if match.different:
        lines.append(f"they differ in {_listed(match.different)}")
    if not lines:
        return
    told = f"version {version.run}/{version.number} ({version.short_id}) and {type(model).__name__}"
    text = "".join(f"\n  {line}" for line in lines)
    if strict or not match.names:
        hint = "strict=False loads what fits" if match.names else "nothing fits; is it another model?"
        raise IncompatibleModel(f"{told} do not fit; nothing was assigned ({hint}):{text}")
    warnings.warn(
        f"{told} fit in part; {len(match.names)} were loaded, skipped were:{text}", MVCWarning, stacklevel=4
    )


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return "; ".join(names[:_SHOWN]) + more
