"""The checkpoint plugin that takes versions and passes all else on; its way into a Trainer and out."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from typing import Any, Protocol

import torch

from mvc_callbacks import hyperparameters, torch_state, urls
from mvc_callbacks.errors import MVCWarning, PrunedVersion, UnknownRef
from mvc_callbacks.markers import find_markers, without_markers
from mvc_callbacks.store import VersionStore
from mvc_callbacks.tensors import State
from mvc_callbacks.versions import Version

__all__ = ["CheckpointIOMixin", "Owner", "checkpoint_of", "locate", "unwrap", "wrap"]

_HYPERPARAMETERS = ("hyper_parameters", "datamodule_hyper_parameters")


class Owner(Protocol):
    """What the plugin needs of the callback that put it there."""

    def takes(self, path: object) -> bool:
        """Tell whether a path is the URL of the version that is to be saved."""

    def owns(self, path: object) -> bool:
        """Tell whether a path is a URL that the callback's policy knows."""

    def hand_over(self, checkpoint: dict[str, Any], url: str) -> None:
        """Save a checkpoint as a version."""

    def let_go(self, url: str) -> None:
        """Remove a version, unless it is held under another name."""

    def load(self, url: str) -> tuple[dict[str, Any], Version]:
        """Build the checkpoint of any version."""

    def note_loaded(self, version: Version) -> None:
        """Remember which version was loaded."""


class CheckpointIOMixin:
    """Hands the callback's own URLs to the callback, and all else, untouched, to the plugin that was there.

    Args:
        plugin: The plugin that was there.
        owner: The callback.
    """

    def __init__(self, plugin: Any, owner: Owner) -> None:
        self.plugin = plugin
        self.owner = owner

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, *args: Any, **kwargs: Any) -> None:
        """Save a checkpoint as a version, or as the plugin does."""
        if self.owner.takes(path):
            self.owner.hand_over(checkpoint, str(path))
        else:
            self.plugin.save_checkpoint(checkpoint, path, *args, **kwargs)

    def load_checkpoint(
        self, path: Any, map_location: Any = None, *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        """Build a checkpoint from a version, or load it as the plugin does."""
        if urls.is_url(path):
            checkpoint, _ = self._load(str(path))
            return moved(checkpoint, map_location)
        if map_location is not None:
            kwargs["map_location"] = map_location
        loaded: dict[str, Any] = self.plugin.load_checkpoint(path, *args, **kwargs)
        return loaded

    def _load(self, url: str) -> tuple[dict[str, Any], Version]:
        # A URL without a store means that of the Trainer's first VersionCheckpoint: the innermost plugin.
        below = self._below()
        checkpoint, version = below._load(url) if below is not None else self.owner.load(url)
        self.owner.note_loaded(version)
        return checkpoint, version

    def _below(self) -> CheckpointIOMixin | None:
        return next((each for each in _chain(self.plugin) if isinstance(each, CheckpointIOMixin)), None)

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a version, or let the plugin remove a file."""
        if not urls.is_url(path):
            self.plugin.remove_checkpoint(path)
        elif self.owner.owns(path):
            self.owner.let_go(str(path))
        elif (below := self._below()) is not None:
            below.remove_checkpoint(path)
        # What nobody here gave out, such as the best version of another store that was resumed from, stays.

    def teardown(self) -> None:
        """Pass on."""
        self.plugin.teardown()

    def __getattr__(self, name: str) -> Any:
        # What else a special plugin offers is still found. Dunder names and our own are not looked for there.
        if name.startswith("__") or name in ("plugin", "owner"):
            raise AttributeError(name)
        return getattr(self.plugin, name)


def wrap(strategy: Any, make: Any, owner: Owner) -> None:
    """Put a callback's plugin in front of the strategy's, once.

    Args:
        strategy: The Trainer's strategy.
        make: Called with the plugin that is there; returns ours.
        owner: The callback.
    """
    if not any(_is_ours(each, owner) for each in _chain(strategy.checkpoint_io)):
        strategy.checkpoint_io = make(strategy.checkpoint_io)


def unwrap(strategy: Any, owner: Owner) -> None:
    """Take a callback's plugin out again, wherever it is by now: others may have been put before it."""
    above: Any = None
    for each in _chain(strategy.checkpoint_io):
        if not _is_ours(each, owner):
            above = each
        elif above is None:
            strategy.checkpoint_io = each.plugin
        elif isinstance(above, CheckpointIOMixin):
            above.plugin = each.plugin
        else:
            above._checkpoint_io = each.plugin  # Lightning's own wrapper, whose setter does not replace


def _chain(plugin: Any) -> list[Any]:
    chain: list[Any] = []
    while plugin is not None and plugin not in chain:
        chain.append(plugin)
        if isinstance(plugin, CheckpointIOMixin):
            plugin = plugin.plugin
        else:
            plugin = getattr(plugin, "_checkpoint_io", None)
    return chain


def _is_ours(plugin: Any, owner: Owner) -> bool:
    return isinstance(plugin, CheckpointIOMixin) and plugin.owner is owner


def locate(url: str | os.PathLike[str], store: VersionStore | None = None) -> tuple[VersionStore, str]:
    """Return the store and the ref that a URL names.

    Args:
        url: An ``mvc://`` URL.
        store: The store meant by a URL that names none; None for the default store.

    Raises:
        UnknownRef: If the URL names no version.
    """
    path, ref = urls.parse(url)
    if not ref:
        raise UnknownRef(f"{url} names no version: write mvc://<ref>, or mvc:///path/of/store@<ref>")
    if path is not None:
        return VersionStore(path), ref
    return (store if store is not None else VersionStore()), ref


def checkpoint_of(store: VersionStore, ref: str, *, for_fit: bool) -> dict[str, Any]:
    """Build the checkpoint of a version as Lightning would have loaded it from a file.

    Args:
        store: The store.
        ref: The version.
        for_fit: Whether training goes on from it: then the training state must be there. Otherwise the
            weights are enough, and the rest is given as far as it is there.

    Returns:
        The dictionary; tensors are in host memory.

    Raises:
        PrunedVersion: If the weights, or with ``for_fit`` the training state, are no longer there.
    """
    version = store.get(ref)
    tree = tensors = None
    if for_fit or version.has_training_state:
        try:
            tree, tensors = store.training_state(version.id)
        except PrunedVersion:
            if for_fit:
                raise
    tied = tuple(map(tuple, version.details.record["weights"].get("tied", ())))
    weights = State(store.tensors(version.id), tied=tied)
    checkpoint = torch_state.rebuild(weights, store.extra(version.id), tree, tensors)
    if tree is None:
        checkpoint.update(torch_state.to_torch(store.additions(version.id)))
        checkpoint.update(_bare(version))
    _drop_markers(checkpoint, f"{version.run}/{version.number}")
    return checkpoint


def _bare(version: Version) -> dict[str, Any]:
    record = version.details.record
    told = hyperparameters.recall(record["hyperparameters"])
    bare = {
        "epoch": version.epoch or 0,
        "global_step": version.step or 0,
        "pytorch-lightning_version": record.get("lightning", "2.0.0"),
    }
    name = told.get("module_meta", {}).get("hparams_name")
    sections = {
        "hparams_name": name,
        "hyper_parameters": told.get("module"),
        _HYPERPARAMETERS[1]: told.get("datamodule"),
    }
    return {**bare, **{key: value for key, value in sections.items() if value}}


def _drop_markers(checkpoint: dict[str, Any], name: str) -> None:
    # A marker is never passed to a constructor as if it were the value; what is missing is asked for there.
    dropped: list[str] = []
    for key in _HYPERPARAMETERS:
        given = checkpoint.get(key)
        if isinstance(given, Mapping):
            dropped += dict.fromkeys(path for path, _ in find_markers(given))
            checkpoint[key] = without_markers(given)
    if dropped:
        warnings.warn(
            f"version {name} has no values for the hyperparameters {', '.join(map(repr, dropped))} (masked, "
            "or of a kind that is not recorded): pass them yourself where they are needed",
            MVCWarning,
            stacklevel=4,
        )


def moved(checkpoint: dict[str, Any], map_location: Any) -> dict[str, Any]:
    """Return a checkpoint with its weights on another device; functions and tables keep them here."""
    if isinstance(map_location, str | torch.device):
        state = checkpoint["state_dict"]
        for name, value in state.items():
            if isinstance(value, torch.Tensor):
                state[name] = value.to(map_location)
    return checkpoint
