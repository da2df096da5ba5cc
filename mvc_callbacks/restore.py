"""Restoring: any version back into a model, bit for bit."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, overload

from mvc_callbacks import lineage
from mvc_callbacks.building import build
from mvc_callbacks.errors import Misconfigured
from mvc_callbacks.store import VersionStore
from mvc_callbacks.urls import is_url, parse
from mvc_callbacks.versions import Version

__all__ = ["restore_version"]

ModelT = TypeVar("ModelT")


@overload
def restore_version(
    ref: str | Version,
    model: type[ModelT],
    *,
    store: str | os.PathLike[str] | VersionStore | None = None,
    strict: bool | None = None,
    prefix: str | None = None,
    cast: bool = False,
    overrides: Mapping[str, Any] | None = None,
    training_state: bool = False,
    verify: bool = True,
) -> ModelT: ...


@overload
def restore_version(
    ref: str | Version,
    model: ModelT | Callable[..., ModelT],
    *,
    store: str | os.PathLike[str] | VersionStore | None = None,
    strict: bool | None = None,
    prefix: str | None = None,
    cast: bool = False,
    overrides: Mapping[str, Any] | None = None,
    training_state: bool = False,
    verify: bool = True,
) -> ModelT: ...


def restore_version(
    ref: str | Version,
    model: Any,
    *,
    store: str | os.PathLike[str] | VersionStore | None = None,
    strict: bool | None = None,
    prefix: str | None = None,
    cast: bool = False,
    overrides: Mapping[str, Any] | None = None,
    training_state: bool = False,
    verify: bool = True,
) -> Any:
    """Bring a version's weights back.

    Everything is read and hashed, and all names, shapes and dtypes are compared, before anything is
    assigned: when this raises, the model is as it was. Variables of Keras are matched by position.

    Args:
        ref: What names the version: ``best``, ``production``, ``baseline/3``, an id, an ``mvc://`` URL, or a
            `Version`.
        model: A model, whose weights are replaced in place, on the device where they are; or a class or
            factory, which is called with the recorded hyperparameters.
        store: The store, or its folder; else ``$MVC_STORE``, else ``./model_versions``.
        strict: Whether all names must be there on both sides; ``False`` loads what fits and warns about
            the rest. By default the model's own ``strict_loading``, else True.
        prefix: Load only the weights whose names begin so, without this beginning: ``prefix="encoder."``
            fills an encoder from a version of the whole model.
        cast: Allow the weights to be converted to the model's dtypes.
        overrides: Hyperparameters that replace recorded ones, or supply what could not be recorded.
        training_state: Also put back the optimizer and the random state (Keras; with Lightning, ``fit`` does
            that).
        verify: Hash everything that is read; ``False`` trusts the disk.

    Returns:
        The model: the same object, or the one built, in evaluation mode.

    Raises:
        StoreNotFound: If there is no store.
        BadName, UnknownRef, AmbiguousRef: If the ref does not name one version.
        PrunedVersion: If the weights were pruned.
        MissingObject, CorruptObject: If the store is damaged.
        IncompatibleModel: If model and version differ; the message lists where.
        MissingHyperparameters: If a hyperparameter that is needed could not be recorded, or is masked.
        Misconfigured: If an argument cannot work; the message says what to use.
    """
    version, opened = _find(ref, store)
    of_keras = version.framework == "keras"
    if built := not _is_model(model):
        model = _build(model, version, overrides, of_keras=of_keras)
    elif overrides:
        raise Misconfigured("overrides= is for a class or a factory; this model is built already")
    if _is_keras(model) or of_keras:
        from mvc_callbacks import keras_restore, keras_resume

        rest = keras_restore.load(
            opened,
            version,
            model,
            strict=strict,
            prefix=prefix,
            cast=cast,
            training_state=training_state,
            verify=verify,
        )
        if training_state:
            keras_resume.put_back_random(rest)
        lineage.remember(model, version.id)
        return model
    if training_state:
        raise Misconfigured(
            "a Lightning model's training state is put back by the Trainer: "
            f"trainer.fit(model, ckpt_path='mvc://{version.run}/{version.number}')"
        )
    from mvc_callbacks.torch_restore import load

    shared = load(opened, version, model, strict=strict, prefix=prefix, cast=cast, verify=verify, built=built)
    lineage.remember(model, version.id, shared)
    return model


def _build(model: Any, version: Version, overrides: Mapping[str, Any] | None, *, of_keras: bool) -> Any:
    if not callable(model):
        raise Misconfigured(
            f"a model, a class or a factory is needed to restore into, not {type(model).__name__}"
        )
    told = version.details.record["hyperparameters"]
    # What a compiled Keras model told by itself (optimizer, loss, batch size) is asked for by no factory.
    told = {name: each for name, each in told.items() if not of_keras or name == "given"}
    made = build(model, told, overrides)
    if not _is_model(made):
        wanted = "keras.Model" if of_keras else "torch.nn.Module"
        raise Misconfigured(f"the factory made {type(made).__name__}, which is not a {wanted}")
    return made


def _find(
    ref: str | Version, store: str | os.PathLike[str] | VersionStore | None
) -> tuple[Version, VersionStore]:
    if isinstance(ref, str) and is_url(ref):
        path, ref = parse(ref)
        if path is not None:
            store = path
    opened = store if isinstance(store, VersionStore) else VersionStore(store)
    return (ref if isinstance(ref, Version) else opened.get(ref)), opened


def _is_model(model: Any) -> bool:
    """Tell whether this is a model already; modules are callable, so this is asked first."""
    torch = sys.modules.get("torch")  # who has a module has imported it
    return _is_keras(model) or (torch is not None and isinstance(model, torch.nn.Module))


def _is_keras(model: Any) -> bool:
    keras = sys.modules.get("keras")
    return keras is not None and hasattr(keras, "Model") and isinstance(model, keras.Model)
