"""Evaluations: the metrics of ``evaluate``, added to the version whose weights were measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mvc_callbacks import keras_state, lineage
from mvc_callbacks.errors import MVCError
from mvc_callbacks.keras_data import evaluation_plans
from mvc_callbacks.metrics import scalars_of
from mvc_callbacks.store import VersionStore
from mvc_callbacks.tensors import weights_digest
from mvc_callbacks.versions import Version

__all__ = ["evaluate", "measured"]


def measured(store: VersionStore, model: Any, last: str | None) -> Version | None:
    """Find the version whose weights a model holds, before ``evaluate`` begins.

    Args:
        store: The store.
        model: The model.
        last: ``<run>/<number>`` of the callback's last version, or None.
    """
    if not store.exists():
        return None
    try:
        digests = keras_state.state_digests(model.variables)
    except MVCError:  # a variable that cannot be kept: no version holds it either
        return None
    known = lineage.origin(model)
    for ref in (known.id if known is not None else None, last):
        if ref is not None and (version := _holding(store, ref, digests)) is not None:
            return version
    return store.find_by_weights(weights_digest(digests))


def _holding(store: VersionStore, ref: str, digests: list[Any]) -> Version | None:
    try:
        version = store.get(ref)
        entries, labels = store.entries(version), store.labels(version)
    except MVCError:  # of another store, or with its weights pruned
        return None
    same = len(entries) == len(digests) and all(
        # Some layers draw from their seed when they predict, and are the same version all the same.
        entries.get(name) == tuple(told) or labels.get(name, "").endswith("seed_generator_state")
        for name, *told in digests
    )
    return version if same else None


def evaluate(store: VersionStore, version: Version, logs: Any, arguments: Mapping[str, Any] | None) -> None:
    """Add metrics to a version.

    Args:
        store: The store.
        version: Whose weights were measured.
        logs: The metrics.
        arguments: Of ``evaluate``.
    """
    metrics = scalars_of(logs)
    if not metrics:
        return
    data = {}
    for name, plan in evaluation_plans(arguments).items():
        computed = plan.compute()
        if computed.listing is not None:
            store.put_listing(computed.listing)
        data[name] = computed.fingerprint
    store.evaluate(version.id, "test", metrics, data)
