"""Versions in a training loop of one's own: what a callback would find out is given, or found here."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any, Literal

from mvc_callbacks import code, environment
from mvc_callbacks.fingerprint import plan
from mvc_callbacks.hyperparameters import hiding, tell
from mvc_callbacks.versions import Fingerprint, Monitor, Parent, Version

if TYPE_CHECKING:
    from mvc_callbacks.commit import Run
    from mvc_callbacks.store import VersionStore

__all__ = ["begin", "checkpoint", "commit"]


def begin(store: VersionStore, label: str | None) -> Run:
    """Open a run with the code and the environment as they are now."""
    captured = code.capture(exclude=[store.path])
    patch = {"patch": store.put_patch(captured.patch)} if captured.patch is not None else {}
    record = {"code": {**captured.facts, **patch}, "environment": environment.capture()}
    return store.open_run(label, framework="torch", record=record)


def commit(
    store: VersionStore,
    run: Run,
    state_dict: Mapping[str, Any],
    training_state: Mapping[str, Any] | None,
    *,
    metrics: Mapping[str, float] | None,
    hyperparameters: Mapping[str, Any] | None,
    data: Any,
    parent: str | None,
    epoch: int | None,
    step: int | None,
    monitor: tuple[str, Literal["min", "max"]] | None,
) -> Version:
    """Make a version; the arguments are those of `VersionStore.commit`."""
    from mvc_callbacks.torch_state import snapshot

    checkpoint = {"state_dict": dict(state_dict), **(training_state or {})}
    return run.commit(
        snapshot(checkpoint, copy=False, masked=hiding(())),
        epoch=epoch,
        step=step,
        metrics={name: float(value) for name, value in (metrics or {}).items()},
        monitor=Monitor(*monitor) if monitor else None,
        parents=(Parent(store.get(parent).id, "declared"),) if parent is not None else None,
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
