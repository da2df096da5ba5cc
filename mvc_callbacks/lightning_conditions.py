"""The conditions that a training's bits depend on, beside its state: loaders, optimizers, devices."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import sys
from collections.abc import Iterable, Mapping
from types import FunctionType, MethodType
from typing import Any

import torch

from mvc_callbacks.reachable import is_framework

__all__ = [
    "always_in_doubt",
    "conditions",
    "lost_within_epochs",
    "samplers_of",
    "trained",
    "watched",
    "watched_loaders",
]

_DEEPEST = 8


def conditions(trainer: Any, loaders: Iterable[Any]) -> dict[str, Any]:
    """Tell what has to be the same for a resumed training to end with the same bits.

    Args:
        trainer: The Trainer, after its loaders and optimizers are made.
        loaders: Its training loaders.

    Returns:
        What, in words that fit into a sentence, to plain JSON values.
    """
    told: dict[str, Any] = {
        "the number of ranks": trainer.world_size,
        "the strategy": type(trainer.strategy).__name__,
        "the precision": str(trainer.precision),
        "accumulate_grad_batches": trainer.accumulate_grad_batches,
        "gradient clipping": f"{trainer.gradient_clip_val} {trainer.gradient_clip_algorithm}",
        "the number of batches in an epoch": _number(trainer.num_training_batches),
        "reload_dataloaders_every_n_epochs": trainer.reload_dataloaders_every_n_epochs,
        "the times of validation": _validations(trainer),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "the optimizers": [_optimizer(each) for each in trainer.optimizers],
        "the schedulers": _schedulers(trainer),
        "the callbacks": sorted(_name(each) for each in trainer.callbacks if _may_change(each)),
        "the loaders": {f"loader {index}": _loader(each) for index, each in enumerate(loaders)},
        "the machine": _machine(trainer),
        "the libraries": _libraries(),
    }
    if told["the schedulers"] != []:
        # A schedule is often as long as the training; state that is loaded brings the old length back.
        told["the length of training, which a schedule may follow,"] = _length(trainer)
    if trainer.world_size > 1:
        # Samplers of several ranks are seeded with it, and not from the random state.
        told["the seed"] = os.environ.get("PL_GLOBAL_SEED")
    return told


def always_in_doubt(trainer: Any, loaders: Iterable[Any]) -> list[str]:
    """Return the reasons for which even the same training twice may not give the same bits."""
    reasons = []
    kind = trainer.strategy.root_device.type
    if kind == "cuda" and not torch.are_deterministic_algorithms_enabled():
        reasons.append("CUDA runs without deterministic algorithms: give Trainer(deterministic=True)")
    elif kind not in ("cpu", "cuda"):
        reasons.append(f"nothing is promised of {kind} devices")
    if kind == "cuda" and torch.backends.cudnn.benchmark:
        reasons.append("cudnn.benchmark chooses kernels by their speed")
    reasons += _doubts_of_loaders(list(loaders), "training")
    if any(type(each).__name__ == "ModelPruning" for each in trainer.callbacks):
        reasons.append("ModelPruning has masks that no checkpoint holds")
    if any(getattr(each, "_duration", None) is not None for each in trainer.callbacks):
        reasons.append("the clock ends training (max_time)")
    if getattr(trainer, "_val_check_time_interval", None) is not None:
        reasons.append("validation follows the clock (val_check_interval)")
    evaluated = trainer.val_dataloaders
    flat = evaluated if isinstance(evaluated, list | tuple) else [evaluated]
    if any(_workers_live_on(each) for each in flat):
        reasons.append("the validation loader has persistent workers, whose random state is their own")
    return reasons


def _doubts_of_loaders(loaders: list[Any], name: str) -> list[str]:
    reasons = []
    for each in loaders:
        if _workers_live_on(each):
            reasons.append(f"the {name} loader has persistent workers, whose random state is their own")
        if not isinstance(each, torch.utils.data.DataLoader):
            reasons.append(f"the {name} loader is a {type(each).__name__}, of which nothing is known")
        elif isinstance(each.dataset, torch.utils.data.IterableDataset):
            stateful = hasattr(each.dataset, "state_dict") and hasattr(each, "load_state_dict")
            if not stateful:
                reasons.append(f"{type(each.dataset).__name__} is iterable data without a state")
    return reasons


def _workers_live_on(loader: Any) -> bool:
    return bool(getattr(loader, "persistent_workers", False) and getattr(loader, "num_workers", 0))


def watched(trainer: Any) -> dict[str, Any]:
    """Return what takes part in training and may keep to itself what no checkpoint holds.

    Returns:
        What, in words, to object: the module with all that is in it, callbacks, and the datamodule.
    """
    module = trainer.lightning_module
    found: dict[str, Any] = {f"the module {type(module).__name__}": module}
    if trainer.datamodule is not None:
        found[f"the datamodule {type(trainer.datamodule).__name__}"] = trainer.datamodule
    for each in trainer.callbacks:
        name = f"the callback {type(each).__name__}"
        if not is_framework(each):
            found[name] = each
        elif _may_change(each):  # which keeps its own state, but not that of functions that it was given
            given = {key: value for key, value in vars(each).items() if _is_given(value)}
            found.update({f"{name}'s {key}": value for key, value in given.items()})
    return found


def _is_given(value: Any) -> bool:
    return isinstance(value, FunctionType | MethodType | functools.partial) and not (
        is_framework(getattr(value, "__self__", None))
    )


def watched_loaders(loaders: Iterable[Any]) -> dict[str, Any]:
    """Return the same of loaders: their samplers, data sets and functions."""
    found = {}
    for index, loader in enumerate(loaders):
        for part in ("sampler", "batch_sampler", "dataset", "collate_fn", "worker_init_fn"):
            each = _inner(getattr(loader, part, None))
            if each is not None and not ("sampler" in part and is_framework(each)):
                found[f"the {part} {_shown_name(each)} of loader {index}"] = each
        if not is_framework(loader):
            found[f"loader {index}"] = {
                key: value for key, value in vars(loader).items() if key not in ("dataset", "_iterator")
            }
    return found


def samplers_of(loaders: Iterable[Any]) -> list[Any]:
    """Return the samplers and batch samplers of loaders."""
    parts = [getattr(each, part, None) for each in loaders for part in ("sampler", "batch_sampler")]
    return [_inner(each) for each in parts if each is not None]


def _inner(part: Any) -> Any:
    # Under DDP, Lightning puts a sampler of one's own into another one.
    return getattr(getattr(part, "dataset", None), "_sampler", part)


def _shown_name(value: Any) -> str:
    return getattr(value, "__qualname__", None) or type(value).__name__


def trained(module: Any) -> str:
    """Tell which parameters are frozen, and which modules evaluate: no checkpoint holds either."""
    frozen = [name for name, each in module.named_parameters() if not each.requires_grad]
    # The module itself evaluates while a validation goes on, after which Lightning puts everything back.
    modes = [name for name, each in module.named_modules() if not each.training] if module.training else []
    return hashlib.sha256("\n".join(["frozen", *frozen, "evaluate", *modes]).encode()).hexdigest()[:12]


def lost_within_epochs(trainer: Any) -> list[str]:
    """Return the reasons for which callbacks of Lightning's own are not resumed within an epoch."""
    names = {each.__name__ for callback in trainer.callbacks for each in type(callback).__mro__}
    return [
        f"{name} does at the begin and the end of an epoch what a resume within it leaves out"
        for name in ("BaseFinetuning", "StochasticWeightAveraging")
        if name in names
    ]


def _may_change(callback: Any) -> bool:
    """Tell whether a callback may have to do with the weights: progress bars and the like do not."""
    names = {each.__name__ for each in type(callback).__mro__}
    harmless = {
        "ProgressBar",
        "ModelSummary",
        "Checkpoint",
        "LearningRateMonitor",
        "DeviceStatsMonitor",
        "Timer",
    }
    return not names & harmless


def _name(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _number(value: float) -> int | str:
    return int(value) if value != float("inf") else "unknown"


def _validations(trainer: Any) -> str:
    batches = trainer.num_val_batches
    count = sum(batches) if isinstance(batches, list) else batches
    return f"{trainer.check_val_every_n_epoch} {trainer.val_check_batch} {'some' if count else 'none'}"


def _optimizer(optimizer: Any) -> str:
    inner = getattr(optimizer, "optimizer", optimizer)
    return f"{type(inner).__name__} of {[len(group['params']) for group in inner.param_groups]} parameters"


def _schedulers(trainer: Any) -> list[str] | None:
    # Weight averaging takes the schedulers away on a resume, and puts its own in their place when it begins.
    if any(type(each).__name__ == "StochasticWeightAveraging" for each in trainer.callbacks):
        return None
    return [
        f"{type(each.scheduler).__name__} {each.interval} {each.frequency} {each.monitor}"
        for each in trainer.lr_scheduler_configs
    ]


def _length(trainer: Any) -> str:
    steps = f", {trainer.max_steps} steps" if trainer.max_steps != -1 else ""
    return f"{trainer.max_epochs} epochs{steps}"


def _loader(loader: Any) -> dict[str, Any]:
    sampler, batch_sampler = getattr(loader, "sampler", None), getattr(loader, "batch_sampler", None)
    return {
        "class": _name(loader),
        "batch_size": getattr(loader, "batch_size", None),
        "drop_last": getattr(loader, "drop_last", None),
        "num_workers": getattr(loader, "num_workers", None),
        "sampler": f"{type(sampler).__name__} {_dials(sampler)}",
        "batch_sampler": f"{type(batch_sampler).__name__} {_dials(batch_sampler)}",
        "collate_fn": getattr(getattr(loader, "collate_fn", None), "__qualname__", None),
        "data": _dataset(getattr(loader, "dataset", None), 0),
    }


def _dials(sampler: Any) -> dict[str, Any]:
    names = ("batch_size", "drop_last", "num_replicas", "num_samples", "replacement", "seed", "shuffle")
    inside = getattr(sampler, "__dict__", {})
    return {name: str(inside[name]) for name in names if name in inside}


def _dataset(dataset: Any, depth: int) -> str:
    # A split drawn anew shows in its indices; what the data hold is told by their fingerprint.
    told = type(dataset).__qualname__
    indices = getattr(dataset, "indices", None)
    if isinstance(dataset, torch.utils.data.Subset) and indices is not None and depth < _DEEPEST:
        text = ",".join(str(int(each)) for each in indices)
        told += f"[{len(indices)}: {hashlib.sha256(text.encode()).hexdigest()[:12]}]"
        return f"{told} of {_dataset(dataset.dataset, depth + 1)}"
    try:
        return f"{told} of {len(dataset)}"
    except TypeError:
        return told


def _machine(trainer: Any) -> dict[str, Any]:
    device = trainer.strategy.root_device
    told = {
        "architecture": platform.machine(),
        "vector instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "matrix precision": torch.get_float32_matmul_precision(),
        "device": device.type,
    }
    if device.type == "cuda":
        told["device"] = torch.cuda.get_device_name(device)
        told["cuda"] = torch.version.cuda
        told["cudnn"] = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
        told["tf32"] = f"{torch.backends.cuda.matmul.allow_tf32} {torch.backends.cudnn.allow_tf32}"
    return told


def _libraries() -> Mapping[str, str]:
    told = {"python": platform.python_version(), "torch": torch.__version__}
    for name in ("lightning", "numpy", "pytorch_lightning", "torchvision", "transformers"):
        module = sys.modules.get(name)
        version = getattr(module, "__version__", None)
        if isinstance(version, str):
            told[name] = version
    return told
