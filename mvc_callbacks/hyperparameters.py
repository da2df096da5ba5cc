"""Hyperparameters: gathered from module and datamodule, told as JSON, recalled, shown as one mapping."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from mvc_callbacks import canonical, masking, tree
from mvc_callbacks.errors import CorruptRecord, Misconfigured
from mvc_callbacks.markers import Untold
from mvc_callbacks.tensors import Tensor

__all__ = ["as_mapping", "find_markers", "flat", "gather", "hiding", "recall", "tell"]

SECTIONS = ("module", "datamodule", "given")
"""Where hyperparameters come from; ``module_meta`` beside them says how the module's were kept."""

_LONGEST = 64 * 1024  # characters of one text
_LARGEST = 1_000_000  # bytes of one section as JSON: it is in the record of every version
_OF_CHECKPOINT = {"hyper_parameters": "module", "datamodule_hyper_parameters": "datamodule"}
_LARGEST_TENSOR = 16 * 1024
# What LightningCLI puts beside a module's own: how to build it, not with what.
_NOT_SHOWN = ("_instantiator", "_class_path")


def as_mapping(value: Any) -> Mapping[Any, Any]:
    """Return hyperparameters as a mapping.

    Args:
        value: A mapping (also OmegaConf's), a namespace, a dataclass, a pydantic model, or None.

    Raises:
        Misconfigured: If it is anything else.
    """
    if value is None:
        return {}
    if isinstance(value, Mapping):
        return value
    if isinstance(value, (argparse.Namespace, types.SimpleNamespace)):
        return vars(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
    if callable(getattr(type(value), "model_dump", None)):
        return dict(value.model_dump())
    raise Misconfigured(
        f"hyperparameters= takes a mapping, a namespace or a dataclass, not {type(value).__name__}: "
        "give it a name, as in hyperparameters={'config': ...}"
    )


def gather(module: Any = None, datamodule: Any = None, explicit: Any = None) -> dict[str, Any]:
    """Gather what is known of a run's hyperparameters; nothing is raised.

    Args:
        module: A LightningModule. What its checkpoint would hold is taken: ``hparams`` as they are now,
            ``hparams_name`` and ``hparams_type``, since only from these can it be built again.
        datamodule: A LightningDataModule.
        explicit: What the user gave; see `as_mapping`.

    Returns:
        ``module``, ``module_meta``, ``datamodule`` and ``given``, as far as there is something in them.
    """
    found: dict[str, Any] = {}
    if module is not None:
        found["module"] = _saved(module)
        found["module_meta"] = _meta(module)
    if datamodule is not None:
        found["datamodule"] = _saved(datamodule)
    try:
        found["given"] = as_mapping(explicit)
    except Exception as error:  # a dataclass's property may raise anything
        found["given"] = {"hyperparameters": Untold(_type_name(explicit), str(error)[:200])}
    return {name: each for name, each in found.items() if each}


def _saved(holder: Any) -> Any:
    try:
        saved = getattr(holder, "hparams", None)
        if isinstance(saved, (argparse.Namespace, types.SimpleNamespace)):
            saved = vars(saved)
        # A subclass such as Lightning's AttributeDict becomes plain, as in its checkpoint; OmegaConf's stay
        # what they are.
        return dict(saved) if isinstance(saved, dict) else saved if isinstance(saved, Mapping) else {}
    except Exception as error:
        return {"hyperparameters": Untold(_type_name(holder), f"{type(error).__name__}: {error}"[:200])}


def _meta(module: Any) -> dict[str, Any]:
    saved = getattr(module, "__dict__", {}).get("_hparams")
    name = getattr(module, "_hparams_name", None)
    meta = {
        "class": _type_name(module),
        "hparams_name": name if isinstance(name, str) else None,
        "hparams_type": _type_name(saved) if type(saved).__module__.startswith("omegaconf") else None,
    }
    if isinstance(saved, Mapping):
        for key in _NOT_SHOWN:
            value = saved.get(key) if key in saved else None
            if isinstance(value, str):
                meta[key.lstrip("_")] = value
    return meta


def _type_name(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def tell(
    hyperparameters: Any, *, exclude: Sequence[str] = (), inline: Callable[[Any], Tensor] | None = None
) -> dict[str, Any]:
    """Tell hyperparameters as plain JSON values; nothing is raised.

    Secrets are masked (`mvc_callbacks.masking`), what cannot be told or is too large becomes a marker.

    Args:
        hyperparameters: What `gather` returned, or any mapping, which then counts as given by the user.
        exclude: Names, or patterns of dotted paths (``optimizer.*``), whose values are not to be recorded.
        inline: Makes a small dense torch tensor neutral, so that it is told too; without it none is.

    Returns:
        The sections that `gather` names, each a tree, and ``module_meta``.
    """
    if not isinstance(hyperparameters, dict) or not {*SECTIONS, "module_meta"}.issuperset(hyperparameters):
        hyperparameters = gather(explicit=hyperparameters)
    told: dict[str, Any] = {}
    for name in SECTIONS:
        if hyperparameters.get(name):
            told[name] = _tell_section(name, hyperparameters[name], exclude, inline)
    if hyperparameters.get("module_meta"):
        told["module_meta"] = dict(hyperparameters["module_meta"])
    return told


def _tell_section(
    section: str, content: Any, exclude: Sequence[str], inline: Callable[[Any], Tensor] | None
) -> Any:
    small = _SmallTensors(inline)

    def hidden(path: str, key: str, value: Any) -> bool:
        return _is_excluded(section, path, key, exclude) or masking.masked(path, key, value)

    def told(value: Any) -> Any:
        return tree.encode(
            value, is_tensor=small.knows, masked=hidden, cap=_LONGEST, inline=small.neutral
        ).json

    try:
        json = told(content)
        if (
            isinstance(json, dict) and "$untold" in json
        ):  # a mapping of one's own, whose items cannot be asked for
            return {"hyperparameters": json}
        size = len(canonical.encode(json))
        if size <= _LARGEST:
            return json
        return told(_without_the_largest(content, told, size))
    except Exception as error:  # it is recorded that they could not be told; training goes on
        reason = f"{type(error).__name__}: {error}"[:200].encode("utf-8", "backslashreplace").decode("utf-8")
        return {"hyperparameters": {"$untold": [_type_name(content), reason]}}


def _without_the_largest(content: Mapping[Any, Any], told: Callable[[Any], Any], size: int) -> dict[Any, Any]:
    """Replace the largest values by markers until the rest is small enough."""
    kept = dict(content)
    encoded = {key: canonical.encode(told({key: value})) for key, value in kept.items()}
    for key in sorted(encoded, key=lambda each: -len(encoded[each])):
        if size <= _LARGEST:
            break
        data = encoded[key]
        text = f"too large: {len(data)} bytes of JSON, sha256 {hashlib.sha256(data).hexdigest()}"
        kept[key] = Untold(_type_name(kept[key]), text)
        size -= len(data)
    return kept


def _is_excluded(section: str, path: str, key: str, exclude: Sequence[str]) -> bool:
    return any(
        pattern == key or fnmatchcase(path, pattern) or fnmatchcase(f"{section}.{path}", pattern)
        for pattern in exclude
    )


def hiding(exclude: Sequence[str] = ()) -> Callable[[str, str, Any], bool]:
    """Return what hides secrets in a whole Lightning checkpoint, as `tree.encode` asks for it.

    Args:
        exclude: As for `tell`: a checkpoint holds the hyperparameters of module and datamodule once more.
    """

    def hidden(path: str, key: str, value: Any) -> bool:
        head, _, rest = path.partition(".")
        section = _OF_CHECKPOINT.get(head)
        if section is not None and rest and _is_excluded(section, rest, key, exclude):
            return True
        return masking.masked(path, key, value)

    return hidden


class _SmallTensors:
    """Says which torch tensors lie in the tree itself, and remembers them neutral: class weights, a mean."""

    def __init__(self, inline: Callable[[Any], Tensor] | None) -> None:
        self._inline = inline
        self._found: dict[int, Tensor] = {}

    def knows(self, value: Any) -> bool:
        torch = sys.modules.get("torch")
        if self._inline is None or torch is None or not isinstance(value, torch.Tensor):
            return False
        try:
            if value.numel() * value.element_size() > _LARGEST_TENSOR:
                return False
            self._found[id(value)] = self._inline(value)
        except Exception:  # sparse, quantised, meta: told as a marker by its type
            return False
        return True

    def neutral(self, value: Any) -> Tensor:
        return self._found.pop(id(value))


def recall(told: Mapping[str, Any], *, inline: Callable[[Tensor], Any] | None = None) -> dict[str, Any]:
    """Make values of what `tell` told; nothing is imported or run for it.

    Args:
        told: From a record.
        inline: Makes a value of each small tensor; without it they stay neutral.

    Returns:
        The same sections, with markers for what is masked, could not be told, or would need code to be
        imported.

    Raises:
        CorruptRecord: If it is nothing that `tell` told.
    """
    if not isinstance(told, Mapping):
        raise CorruptRecord("hyperparameters that are no object")
    recalled: dict[str, Any] = {}
    for name in SECTIONS:
        if name in told:
            recalled[name] = tree.decode(told[name], inline=inline)
            if not isinstance(recalled[name], Mapping):
                raise CorruptRecord(
                    f"hyperparameters whose {name!r} is {type(recalled[name]).__name__}, not an object"
                )
    meta = told.get("module_meta")
    if isinstance(meta, Mapping):
        recalled["module_meta"] = dict(meta)
    return recalled


def flat(recalled: Mapping[str, Any]) -> dict[str, Any]:
    """Show recalled hyperparameters as one mapping.

    Returns:
        The module's, then what the user gave, which wins. A datamodule's name that one of these has too with
        another value is shown as ``datamodule.<name>``.
    """
    shown: dict[str, Any] = {}
    for section in ("module", "given"):
        shown.update(
            {str(key): value for key, value in _items(recalled.get(section)) if key not in _NOT_SHOWN}
        )
    for key, value in _items(recalled.get("datamodule")):
        name = str(key)
        if name in _NOT_SHOWN:
            continue
        clashes = name in shown and not _same(shown[name], value)
        shown[f"datamodule.{name}" if clashes else name] = value
    return shown


def _items(section: Any) -> list[tuple[Any, Any]]:
    return list(section.items()) if isinstance(section, Mapping) else []


def _same(one: Any, other: Any) -> bool:
    try:
        return type(one) is type(other) and bool(one == other)
    except Exception:  # arrays have no single truth
        return False


def find_markers(value: Any) -> list[str]:
    """Return the dotted paths of values that were not told, are masked, or would need code to be imported."""
    return [path for path, _ in tree.find_markers(value)]
