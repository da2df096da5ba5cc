"""The bookkeeping between ModelCheckpoint's policies and versions: which URL is held under which names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

__all__ = ["Ledger", "Moment", "fresh_state", "put_back", "state_from_store", "state_of", "state_to_store"]

# What ModelCheckpoint remembers between saves. The names without an underscore are public, and part of its
# own state_dict.
_FRESH: Mapping[str, Any] = {
    "best_model_path": "",
    "best_model_score": None,
    "current_score": None,
    "kth_best_model_path": "",
    "last_model_path": "",
    "_last_checkpoint_saved": "",
}
_FRESH_PER_FIT: Mapping[str, Any] = {
    "_last_global_step_saved": 0,
    "_last_time_checked": None,
    "_defer_save_until_validation": False,
}


def fresh_state(mode: str) -> dict[str, Any]:
    """Return the policy state of a ModelCheckpoint that has seen nothing yet."""
    worst = torch.tensor(torch.inf if mode == "min" else -torch.inf)
    return {**_FRESH, **_FRESH_PER_FIT, "kth_value": worst, "best_k_models": {}}


def state_of(callback: Any) -> dict[str, Any]:
    """Return a copy of a callback's policy state, to go back to when the save that follows fails."""
    state = {name: getattr(callback, name) for name in (*_FRESH, "kth_value")}
    return {**state, "best_k_models": dict(callback.best_k_models)}


def put_back(callback: Any, state: Mapping[str, Any]) -> None:
    """Give a callback the policy state that `state_of` or `fresh_state` returned."""
    for name, value in state.items():
        setattr(callback, name, dict(value) if name == "best_k_models" else value)


def state_to_store(state: dict[str, Any]) -> dict[str, Any]:
    """Write a policy state's scores as numbers: as tensors, each would be one of every version's state."""
    return {**state, "best_k_models": {url: float(score) for url, score in state["best_k_models"].items()}}


def state_from_store(state: Mapping[str, Any], here: str) -> dict[str, Any]:
    """Read a policy state back.

    Args:
        state: What `state_to_store` gave.
        here: The URL of the store that it is read from, which may have been moved since.

    Returns:
        The state as ModelCheckpoint knows it, with its URLs in ``here``.
    """
    there = str(state["dirpath"])

    def moved(url: str) -> str:
        return here + url[len(there) :] if url.startswith(there + "@") else url

    # In double precision every score is exactly the number that was compared when it was saved.
    scores = {
        moved(url): torch.tensor(score, dtype=torch.float64) for url, score in state["best_k_models"].items()
    }
    paths = ("best_model_path", "kth_best_model_path", "last_model_path")
    return {
        **state,
        **{name: moved(state.get(name, "")) for name in paths},
        "dirpath": here,
        "best_k_models": scores,
    }


@dataclass(slots=True)
class Moment:
    """One moment of training that is made a version.

    Attributes:
        at: The hook's count and the global step: top-k and last of one hook are one version.
        url: The version's URL.
        number: Its number in the run.
        before: The policy state before, to go back to if the save fails.
        handed_over: Whether the save was started; the second one of the same moment does nothing.
        settled: Whether it is known how the save ended.
    """

    at: tuple[int, int]
    url: str
    number: int
    before: Mapping[str, Any]
    handed_over: bool = False
    settled: bool = False


@dataclass(slots=True)
class Ledger:
    """The URLs that one fit gave out.

    Attributes:
        store_url: The store's URL.
        label: The run's label, once it has one.
        next_number: The number of the next version; every rank counts the same.
        current: The latest moment.
        before: When, and what, the policy state was before the decision that is being taken.
        resumed: The URL of the version that this run went on from; it is never removed.
        inherited: URLs that the resumed policy knows.
        tops: URLs saved as one of the top k (or all).
        for_good: URLs saved on an exception: nothing removes them.
    """

    store_url: str
    label: str | None = None
    next_number: int = 1
    current: Moment | None = None
    before: tuple[tuple[int, int], Mapping[str, Any]] | None = None
    resumed: str | None = None
    inherited: frozenset[str] = frozenset()
    tops: set[str] = field(default_factory=set)
    for_good: set[str] = field(default_factory=set)

    def open_moment(self, at: tuple[int, int], callback: Any) -> Moment:
        """Give out the next URL."""
        before = self.before[1] if self.before is not None and self.before[0] == at else state_of(callback)
        url = f"{self.store_url}@{self.label or 'unsaved'}/{self.next_number}"
        self.current = Moment(at, url, self.next_number, before)
        self.next_number += 1
        return self.current

    def note_before(self, at: tuple[int, int], callback: Any) -> None:
        """Remember the policy state at the begin of a decision; only the first of a moment counts."""
        if self.before is None or self.before[0] != at:
            self.before = (at, state_of(callback))

    def gave(self, url: object) -> bool:
        """Tell whether a URL is the one of the latest moment."""
        # Strategies that shard make a Path of it, which has fewer slashes.
        return self.current is not None and str(url) in (self.current.url, str(Path(self.current.url)))

    def owns(self, url: str) -> bool:
        """Tell whether a URL is of this run, or was known to the one that it goes on from."""
        return (self.label is not None and self._of_this_run(url)) or url in self.inherited

    def ref_of(self, url: str) -> str | None:
        """Return the ref of a URL of this store, None for one of another."""
        return url[len(self.store_url) + 1 :] if url.startswith(self.store_url + "@") else None

    def held(self, url: str, callback: Any) -> bool:
        """Tell whether a version is still kept under some name, now that one of its names was given up."""
        if url in callback.best_k_models or url in self.for_good or url == self.resumed:
            return True
        # With save_last="link" the link keeps nothing alive, unless there is no other save to link to.
        if url == callback.last_model_path and (callback.save_last != "link" or callback.save_top_k == 0):
            return True
        if callback.save_top_k == -1:
            # What an earlier run saved, perhaps as one of all, is none of this run's business.
            return url in self.tops or not self._of_this_run(url)
        return callback.monitor is None and url == callback.best_model_path

    def _of_this_run(self, url: str) -> bool:
        return url.startswith(f"{self.store_url}@{self.label}/")
