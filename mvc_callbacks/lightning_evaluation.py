"""Evaluations: the metrics of a test or validation, added to the version whose weights were measured."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from mvc_callbacks import lineage, torch_state, urls
from mvc_callbacks.errors import UnknownRef
from mvc_callbacks.lightning_data import eval_plans
from mvc_callbacks.metrics import scalars_of
from mvc_callbacks.store import VersionStore
from mvc_callbacks.tensors import weights_digest
from mvc_callbacks.versions import Version

__all__ = ["evaluate"]


def evaluate(
    store: VersionStore,
    kind: Literal["test", "validate"],
    trainer: Any,
    module: Any,
    *,
    loaded: Version | None,
    last_url: str,
) -> None:
    """Add a stage's metrics to a version, if it is known which one was measured.

    Args:
        store: The store.
        kind: The stage.
        trainer: The Trainer, at the stage's end.
        module: The model.
        loaded: The version that ``ckpt_path`` named, or None: then the weights themselves tell.
        last_url: The URL of the callback's last version, or an empty string.
    """
    metrics = scalars_of(trainer.callback_metrics)
    if not trainer.is_global_zero or trainer.fast_dev_run or not store.exists() or not metrics:
        return
    version = loaded or _by_weights(store, module, last_url)
    if version is None:
        return
    data = {}
    for name, plan in eval_plans(trainer, kind).items():
        computed = plan.compute()
        if computed.listing is not None:
            store.put_listing(computed.listing)
        data[name] = replace(
            computed.fingerprint, problems=(*computed.fingerprint.problems, *_limits(trainer, kind))
        )
    store.evaluate(version.id, kind, metrics, data)


def _limits(trainer: Any, kind: str) -> tuple[str, ...]:
    """Tell that perhaps only a part of the data was measured, which its fingerprint covers as a whole."""
    name = "limit_test_batches" if kind == "test" else "limit_val_batches"
    limit = getattr(trainer, name)
    return () if isinstance(limit, float) and limit >= 1.0 else (f"measured with {name}={limit}",)


def _by_weights(store: VersionStore, module: Any, last_url: str) -> Version | None:
    digest = _weights_digest(module)
    known = lineage.origin(module)
    candidates = [known.id] if known is not None else []
    path, ref = urls.parse(last_url)
    candidates += [ref] if ref and path == store.path else []
    for each in candidates:
        try:
            version = store.get(each)
        except UnknownRef:  # of another store
            continue
        if version.weights.digest == digest:
            return version
    return store.find_by_weights(digest)


def _weights_digest(module: Any) -> str:
    state = torch_state.snapshot(
        {"state_dict": module.state_dict()}, module=module, copy=False, buffers=None
    ).weights
    return weights_digest(
        (name, each.dtype, each.shape, each.digest()) for name, each in state.tensors.items()
    )
