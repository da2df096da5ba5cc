"""Versions in a training loop of one's own: what a callback would find out is given, or found here."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any, Literal

from mvc_callbacks import code, environment
from mvc_callbacks.errors import Misconfigured
from mvc_callbacks.fingerprint import plan
from mvc_callbacks.hyperparameters import hiding, tell
from mvc_callbacks.versions import Fingerprint, Monitor, Parent, Version

if TYPE_CHECKING:
    from mvc_callbacks.commit import Run
    from mvc_callbacks.store import VersionStore

__all__ = ["begin", "check", "checkpoint", "commit"]


def begin(store: VersionStore, label: str | None) -> Run:
    """Open a run with the code and the environment as they are now."""
    captured = code.capture(exclude=[store.path])
    patch = {"patch": store.put_patch(captured.patch)} if captured.patch is not None else {}
    record = {"code": {**captured.facts, **patch}, "environment": environment.capture()}
    return store.open_run(label, framework="torch", record=record)


def check(state_dict: object, metrics: Mapping[str, Any] | None) -> None:
    """Refuse, before a run is begun for it, what cannot be made a version.

    Raises:
        Misconfigured: With what to give instead.
    """
    if not isinstance(state_dict, Mapping):
        instead = "model.state_dict()" if hasattr(state_dict, "state_dict") else "a mapping of name to tensor"
        raise Misconfigured(f"a state dict is needed, not {type(state_dict).__name__}: give {instead}")
    torch = sys.modules.get("torch")
    if state_dict and not (torch and any(isinstance(each, torch.Tensor) for each in state_dict.values())):
        raise Misconfigured(
            "this state dict holds no torch tensor at all: give what module.state_dict() returns; "
            "torch.from_numpy makes a tensor of an array, and training_state= takes what is nested"
        )
    _numbers(metrics or {})


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    numbers = {}
    for name, value in metrics.items():
        try:
            numbers[name] = float(value)
        except (TypeError, ValueError):
            raise Misconfigured(f"the metric {name!r} is {value!r:.100}: give one number") from None
    return numbers


def commit(
    store: VersionStore,
    run: Run,
    state_dict: Mapping[str, Any],
    training_state: Mapping[str, Any] | None,
    *,
    metrics: Mapping[str, float] | None,
    hyperparameters: Mapping[str, Any] | None,
    data: Any,
    parent: str | Version | None,
    epoch: int | None,
    step: int | None,
    monitor: tuple[str, Literal["min", "max"]] | None,
) -> Version:
    """Make a version; the arguments are those of `VersionStore.commit`."""
    from mvc_callbacks.torch_state import snapshot

    checkpoint = {"state_dict": dict(state_dict), **(training_state or {})}
    known = parent if parent is None or isinstance(parent, Version) else store.get(parent)
    return run.commit(
        snapshot(checkpoint, copy=False, masked=hiding(())),
        epoch=epoch,
        step=step,
        metrics=_numbers(metrics or {}),
        monitor=Monitor(*monitor) if monitor else None,
        parents=(Parent(known.id, "declared"),) if known is not None else None,
        hyperparameters=tell({"given": hyperparameters or {}}),
        data=_fingerprints(store, data),
    )


def checkpoint(store: VersionStore, ref: str | Version) -> dict[str, Any]:
    """Read back what `commit` was given; the argument is that of `VersionStore.checkpoint`."""
    from mvc_callbacks.tensors import State
    from mvc_callbacks.torch_state import rebuild

    version = ref if isinstance(ref, Version) else store.get(ref)
    tree, tensors = store.training_state(version)
    tied = tuple(map(tuple, version.details.record["weights"]["tied"]))
    return rebuild(State(store.tensors(version), tied=tied), store.extra(version), tree, tensors)


def _fingerprints(store: VersionStore, data: Any) -> dict[str, Fingerprint]:
    found = {}
    sources = data.items() if isinstance(data, Mapping) else [("train", data)]
    for name, source in sources if data is not None else ():
        computed = plan(source, declared=True).compute()
        found[name] = computed.fingerprint
        if computed.listing is not None:
            with closing(computed.listing) as listing:
                store.put_listing(listing)
    return found
