"""The snapshot: one moment's state of a training, on its way from a hook to the store."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from mvc_callbacks.tensors import State

__all__ = ["Snapshot", "WeightsOf"]

WeightsOf = Literal["training", "average"]


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """A state that no longer changes while training goes on.

    Attributes:
        weights: The tensors of the state dict.
        extra: Name to tagged tree (see `tree`) of the state dict's other entries, such as ``_extra_state``.
        additions: Tagged tree of what a module's own hook added to the checkpoint and will ask for when it is
            built again; None where it added nothing, or so much that it is kept in ``tree`` alone.
        tree: Tagged tree of the rest of the training state, or None where there is none.
        tree_tensors: The tensors that `tree` refers to; None exactly when `tree` is None.
        untold: Paths of what could not be told, with its type.
        weights_of: ``average`` where an averaging callback put its own weights into the state dict.
        find_nonfinite: Looks for NaN and Inf; slow, so it is called in the background by `nonfinite`.
        give_back: Called by `release`.
    """

    weights: State
    extra: Mapping[str, Any] = field(default_factory=dict)
    additions: Any = None
    tree: Any = None
    tree_tensors: State | None = None
    untold: tuple[str, ...] = ()
    weights_of: WeightsOf = "training"
    find_nonfinite: Callable[[], bool] | None = None
    give_back: Callable[[], None] | None = None

    def nonfinite(self) -> bool:
        """Tell whether any floating-point weight is NaN or Inf; reads all of them, before `release`."""
        return self.find_nonfinite is not None and self.find_nonfinite()

    def release(self) -> None:
        """Give the memory back to be used by the next snapshot; the tensors must not be read afterwards."""
        if self.give_back is not None:
            self.give_back()
