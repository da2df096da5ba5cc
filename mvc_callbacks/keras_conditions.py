"""The conditions that a Keras training's bits depend on beside its state: data, layers, devices."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import re
import sys
import warnings
import zlib
from collections.abc import Mapping
from types import FunctionType, MethodType
from typing import Any

import keras

from mvc_callbacks import keras_machine, keras_state
from mvc_callbacks.keras_callbacks import acting, name_of
from mvc_callbacks.keras_pipelines import doubts, is_pipeline, structure
from mvc_callbacks.keras_private import Epochs
from mvc_callbacks.reachable import is_framework, is_framework_name

__all__ = ["always_in_doubt", "conditions", "doubts_of_data", "roots", "watched"]

_SETTINGS = ("XLA_FLAGS", "TF_DETERMINISTIC_OPS", "TF_ENABLE_ONEDNN_OPTS", "NVIDIA_TF32_OVERRIDE")
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
# What Keras itself keeps on models and layers, and changes in a fit.
OWN = frozenset(
    [
        "built",
        "compiled",
        "history",
        "optimizer",
        "stop_evaluating",
        "stop_predicting",
        "stop_training",
        "train_function",
        "test_function",
        "predict_function",
    ]
)


def conditions(model: Any, arguments: Mapping[str, Any], epochs: Epochs) -> dict[str, Any]:
    """Tell what has to be the same for a resumed training to end with the same bits.

    Args:
        model: The model.
        arguments: Of ``fit``.
        epochs: Its data.

    Returns:
        What, in words that fit into a sentence, to plain JSON values.
    """
    return {
        "the backend": keras.backend.backend(),
        "the settings": keras_machine.settings(model),
        "the digest of the layers": _layers(model),
        "the source code of the model": _sources(model),
        "the data": _data(arguments, epochs),
        "validation": _validation(arguments),
        "the callbacks": [name_of(each) for each in acting(arguments)],
        "the machine": keras_machine.machine(),
        "the libraries": keras_machine.libraries(),
    }


def always_in_doubt(model: Any, arguments: Mapping[str, Any]) -> list[str]:
    """Return the reasons for which even the same training twice may not give the same bits."""
    reasons = keras_machine.doubts(model)
    validation = arguments.get("validation_data")
    for each in validation if isinstance(validation, tuple | list) else [validation]:
        if is_pipeline(each):
            reasons += [f"in validation, {reason}" for reason in doubts(each)]
    return reasons


def doubts_of_data(arguments: Mapping[str, Any], epochs: Epochs, seed: int | None) -> list[str]:
    """Return why the data may come in another order, or be other ones, when a fit goes through them again.

    Args:
        arguments: Of ``fit``.
        epochs: Its data.
        seed: TensorFlow's, when the fit began.
    """
    kind, tensorflow, x = epochs.kind, keras.backend.backend() == "tensorflow", arguments.get("x")
    reasons = []
    if epochs.goes_on:
        reasons.append(
            "with steps_per_epoch, an epoch goes on in the data where the last one ended, and a resumed "
            "training begins them anew"
        )
    if kind == "ArrayDataAdapter":
        if tensorflow and epochs.shuffles and seed is None:
            reasons.append(
                "TensorFlow had no seed, so its order of the data cannot be made again: call "
                "keras.utils.set_random_seed() before fit, or give shuffle=False"
            )
    elif kind == "TFDatasetAdapter":
        reasons += doubts(x)
    elif kind == "PyDatasetAdapter":
        if epochs.adapter.enqueuer is not None:
            reasons.append("the workers of a PyDataset draw and shuffle at moments of their own")
        if epochs.batches is None:
            reasons.append("the PyDataset has no end, and begins anew")
    elif kind == "TorchDataLoaderAdapter":
        reasons += _doubts_of_loader(x, tensorflow)
    elif kind == "GeneratorDataAdapter":
        reasons.append("a generator is at its beginning again, and nothing of it can be put back")
    else:
        reasons.append(f"nothing is known of data of this kind ({kind})")
    return reasons


def _doubts_of_loader(loader: Any, tensorflow: bool) -> list[str]:
    reasons = []
    torch = sys.modules["torch"]
    if tensorflow:
        reasons.append(
            "TensorFlow reads a torch DataLoader ahead of training, so its random state is not known"
        )
    if getattr(loader, "persistent_workers", False):
        reasons.append("the loader has persistent workers, whose random state is their own")
    if isinstance(getattr(loader, "dataset", None), torch.utils.data.IterableDataset):
        reasons.append(f"{type(loader.dataset).__name__} is iterable data without a state")
    if not type(loader).__module__.startswith("torch.utils.data"):
        reasons.append(f"the loader is a {type(loader).__name__}, of which nothing is known")
    return reasons


def roots(model: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the objects in which the user's random generators may be, to be looked through."""
    found = {
        name: each
        for name in ("x", "validation_data")
        if (each := arguments.get(name)) is not None and not is_pipeline(each) and not hasattr(each, "shape")
    }
    return {**found, **watched(model, arguments)}


def watched(model: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the objects of the user's whose plain attributes may be state: what, in words, to object."""
    found: dict[str, Any] = {}
    for index, each in enumerate(keras_state.layers_of(model)):
        kind = "model" if isinstance(each, keras.Model) else "layer"
        found |= _watched_of(f"the {kind} {type(each).__name__} ({index})", each)
    for name, each in (("optimizer", model.optimizer), ("loss", getattr(model, "loss", None))):
        if each is not None and hasattr(each, "__dict__"):
            found |= _watched_of(f"the {name} {getattr(each, '__name__', type(each).__name__)}", each)
    for index, each in enumerate(acting(arguments)):
        found |= _watched_of(f"the callback {type(each).__name__} ({index})", each)
    x = arguments.get("x")
    for part in (x, *(getattr(x, name, None) for name in ("dataset", "sampler", "batch_sampler"))):
        home = type(part).__module__.partition(".")[0]
        if home not in ("builtins", "numpy", "torch", "tensorflow", "jax", "jaxlib", "keras", "pandas"):
            found[f"the data {type(part).__name__}"] = part
    return found


def _watched_of(name: str, value: Any) -> dict[str, Any]:
    """Keras' own objects keep their state themselves, but not that of functions that they were given."""
    if not _of_keras(value):
        return {name: value}
    return {f"{name}'s {key}": each for key, each in vars(value).items() if _is_given(each)}


def _is_given(value: Any) -> bool:
    if isinstance(value, functools.partial):
        return _is_given(value.func)
    if isinstance(value, MethodType) and is_framework(value.__self__):
        return False
    module = getattr(value, "__module__", None) if isinstance(value, FunctionType | MethodType) else "keras"
    return not is_framework_name(module)


def _of_keras(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] in ("keras", "keras_hub", "mvc_callbacks")


def _layers(model: Any) -> str:
    """Digest what a model is built of, whatever its layers are called this time, and from whatever seeds."""
    layers = list(keras_state.layers_of(model))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            told = json.loads(model.to_json())
    except Exception:  # a subclassed model or layer that cannot tell its configuration
        told = [_config(each) for each in layers]
    places = {each.name: f"#{index}" for index, each in enumerate(layers)}
    trains = [bool(each.trainable) for each in model.variables]
    text = json.dumps([_nameless(told, places), trains], sort_keys=True)
    return hashlib.sha256(_ADDRESS.sub("", text).encode("utf-8", "surrogatepass")).hexdigest()[:12]


def _nameless(value: Any, places: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        told = {key: _nameless(each, places) for key, each in value.items() if key != "compile_config"}
        return _seedless(told)
    if isinstance(value, list | tuple):
        return [_nameless(each, places) for each in value]
    return places.get(value, value) if isinstance(value, str) else value


def _config(layer: Any) -> list[str]:
    name = f"{type(layer).__module__}.{type(layer).__qualname__}"
    if isinstance(layer, keras.Model):
        return [name]  # the layers in it are told themselves
    try:
        config = layer.get_config()
    except Exception:  # a layer of the user's that cannot
        return [name]
    return [name, repr(_seedless({key: each for key, each in config.items() if key != "name"}))]


def _seedless(config: dict[str, Any]) -> dict[str, Any]:
    """Where a seed began does not matter, as its state is put back; whether there is one may."""
    return {**config, "seed": config["seed"] is not None} if "seed" in config else config


def _sources(model: Any) -> dict[str, str]:
    told = {}
    for each in keras_state.layers_of(model):
        kind = type(each)
        if not _of_keras(each) and kind.__qualname__ not in told:
            try:
                text = inspect.getsource(kind)
            except (OSError, TypeError):  # made in an interactive session
                continue
            told[kind.__qualname__] = hashlib.sha256(text.encode()).hexdigest()[:12]
    return told


def _data(arguments: Mapping[str, Any], epochs: Epochs) -> dict[str, Any]:
    x: Any = arguments.get("x")
    weights = arguments.get("class_weight")
    told = {
        "kind": epochs.kind,
        "batch_size": _batch_size(epochs),
        "shuffle": str(epochs.shuffles),
        "the number of batches": epochs.batches,
        "steps_per_epoch": arguments.get("steps_per_epoch"),
        "class_weight": str(sorted(weights.items())) if isinstance(weights, dict) else None,
    }
    if is_pipeline(x):
        told["the pipeline"] = structure(x)
        told["elements"] = str(x.element_spec)
    elif epochs.kind == "TorchDataLoaderAdapter":
        told["loader"] = _loader(x)
    elif epochs.kind == "PyDatasetAdapter":
        told["class"] = name_of(x)
        told["source"] = _source(type(x))
    return told


def _batch_size(epochs: Epochs) -> int | None:
    size = epochs.adapter.batch_size
    return int(size) if size is not None else None


def _loader(loader: Any) -> dict[str, Any]:
    dataset = loader.dataset
    told = {
        "sampler": type(getattr(loader, "sampler", None)).__name__,
        "drop_last": getattr(loader, "drop_last", None),
        "num_workers": getattr(loader, "num_workers", None),
        "data set": name_of(dataset),
        "source": _source(type(dataset)),
    }
    indices = getattr(dataset, "indices", None)
    if indices is not None:
        told["indices"] = zlib.crc32(",".join(str(int(each)) for each in indices).encode())
    return told


def _source(kind: type) -> int | None:
    try:
        return zlib.crc32(inspect.getsource(kind).encode())
    except (OSError, TypeError):
        return None


def _validation(arguments: Mapping[str, Any]) -> str:
    # It draws from the seeds of some layers, and so moves what training draws afterwards.
    if arguments.get("validation_data") is None:
        return "none"
    names = ("validation_freq", "validation_steps", "validation_batch_size")
    return ", ".join(f"{name} {arguments.get(name)}" for name in names)
