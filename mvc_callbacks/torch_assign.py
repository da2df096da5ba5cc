"""Assignment: the tensors of a module take new values in place, or keep all the old ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import increment_version
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from mvc_callbacks.copies import copy_memory
from mvc_callbacks.errors import IncompatibleModel, MVCError

__all__ = ["LAZY", "assign"]

LAZY = (UninitializedBuffer, UninitializedParameter)
"""Tensors that take their shape from what is loaded."""

_PLAIN = (torch.Tensor, nn.Parameter, nn.Buffer) if hasattr(nn, "Buffer") else (torch.Tensor, nn.Parameter)
# Ways to load that do nothing but copy, once names, shapes and dtypes are known to fit.
_LOADERS = (nn.Module._load_from_state_dict, _NormBase._load_from_state_dict)


def assign(model: nn.Module, target: Mapping[str, Any], loaded: Mapping[str, Any]) -> None:
    """Put values into a module's tensors; on any error it is as it was.

    Args:
        model: The module.
        target: Its ``state_dict(keep_vars=True)``.
        loaded: The values by the module's names; shapes were compared.

    Raises:
        IncompatibleModel: If the module refuses them.
    """
    if _only_copies(model, target, loaded):
        for name in loaded:
            increment_version(target[name])
        copy_memory(
            (target[name].data_ptr(), value.data_ptr(), value.numel() * value.element_size())
            for name, value in loaded.items()
        )
    else:
        _load(model, target, loaded)


def _only_copies(model: nn.Module, target: Mapping[str, Any], loaded: Mapping[str, Any]) -> bool:
    """Tell whether loading is nothing but copies between memory of one layout, of which none can fail.

    Then no copy of the old values is needed, nor torch's own loader, which copies in one thread.
    """
    if _function(model.load_state_dict) is not nn.Module.load_state_dict:
        return False
    own: dict[str, Any] = dict(model.named_parameters(remove_duplicate=False))
    own.update(model.named_buffers(remove_duplicate=False))
    return all(
        _function(each._load_from_state_dict) in _LOADERS
        and not each._load_state_dict_pre_hooks
        and not each._load_state_dict_post_hooks
        for each in model.modules()
    ) and all(
        target[name] is own.get(name) and _is_same_layout(value, target[name])
        for name, value in loaded.items()
    )


def _function(method: Any) -> Any:
    return getattr(method, "__func__", None)  # an instance may have one of its own


def _is_same_layout(value: Any, target: Any) -> bool:
    return (
        type(target) in _PLAIN
        and isinstance(value, torch.Tensor)
        and target.device.type == "cpu"
        and value.dtype == target.dtype
        and value.shape == target.shape
        and target.is_contiguous()
        and value.is_contiguous()
        and not (target.is_conj() or target.is_neg() or target.is_inference())
    )


def _load(model: nn.Module, target: Mapping[str, Any], loaded: Mapping[str, Any]) -> None:
    """Load through the module itself, which may fail midway: the old values are kept for that."""
    before = {
        name: target[name].detach().clone()
        for name in loaded
        if isinstance(target[name], torch.Tensor) and not isinstance(target[name], LAZY)
    }
    try:
        model.load_state_dict(dict(loaded), strict=False)
    except Exception as error:
        with torch.no_grad():
            for name, old in before.items():
                target[name].copy_(old)
        if isinstance(error, MVCError) or not isinstance(error, RuntimeError):
            raise
        raise IncompatibleModel(
            f"{type(model).__name__} refused the weights and is as it was: {error}"
        ) from error
