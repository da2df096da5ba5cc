"""Evaluations: the metrics of ``evaluate``, added to the version whose weights were measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mvc_callbacks import keras_state, lineage
from mvc_callbacks.errors import MVCError, UnknownRef
from mvc_callbacks.keras_data import evaluation_plans
from mvc_callbacks.keras_facts import scalars_of
from mvc_callbacks.store import VersionStore
from mvc_callbacks.tensors import weights_digest
from mvc_callbacks.versions import Version

__all__ = ["evaluate"]


def evaluate(store: VersionStore, model: Any, logs: Any, arguments: Mapping[str, Any] | None) -> None:
    """Add metrics to a version, if it is known which one was measured.

    Args:
        store: The store.
        model: The model, at the end of ``evaluate``.
        logs: Its metrics.
        arguments: Of ``evaluate``.
    """
    metrics = scalars_of(logs)
    if not metrics or not store.exists():
        return
    version = _version_of(store, model)
    if version is None:
        return
    data = {}
    for name, plan in evaluation_plans(arguments).items():
        computed = plan.compute()
        if computed.listing is not None:
            store.put_listing(computed.listing)
        data[name] = computed.fingerprint
    store.evaluate(version.id, "test", metrics, data)


def _version_of(store: VersionStore, model: Any) -> Version | None:
    try:
        digest = weights_digest(keras_state.state_digests(model.variables))
        known = lineage.origin(model)
        if known is not None:
            try:
                version = store.get(known.id)
            except UnknownRef:  # of another store
                pass
            else:
                if version.weights.digest == digest:
                    return version
        return store.find_by_weights(digest)
    except MVCError:
        return None
