"""The machine that a Keras training runs on, its libraries, and Keras' settings: what its bits depend on."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterable
from typing import Any

import keras

from mvc_callbacks import environment
from mvc_callbacks.keras_private import deterministic, device, tensorflow

__all__ = ["doubts", "libraries", "machine", "settings"]

_SETTINGS = ("XLA_FLAGS", "TF_DETERMINISTIC_OPS", "TF_ENABLE_ONEDNN_OPTS", "NVIDIA_TF32_OVERRIDE")
_HOW = {
    "torch": "torch.use_deterministic_algorithms(True)",
    "tensorflow": "tf.config.experimental.enable_op_determinism()",
    "jax": "XLA_FLAGS=--xla_gpu_deterministic_ops=true",
}


def doubts(model: Any) -> list[str]:
    """Return why the same training may give other bits on this machine."""
    reasons = []
    backend = keras.backend.backend()
    strategy = getattr(model, "distribute_strategy", None)
    if keras.distribution.distribution() is not None or getattr(strategy, "num_replicas_in_sync", 1) > 1:
        reasons.append("nothing is promised of a training that is distributed over devices")
    if device() != "cpu" and not deterministic():
        how = _HOW.get(backend, "a setting of this backend")
        reasons.append(f"the device {device()} runs without deterministic operations: {how}")
    if backend == "tensorflow" and model.run_eagerly and (tensorflow() or {}).get("seed") is None:
        reasons.append("with run_eagerly and no seed of TensorFlow, what draws random numbers cannot be told")
    return reasons


def settings(model: Any) -> dict[str, Any]:
    """Tell the settings of Keras and of a compiled model."""
    told = {
        "floatx": keras.config.floatx(),
        "epsilon": keras.config.epsilon(),
        "image_data_format": keras.config.image_data_format(),
        "the dtype policy": getattr(getattr(model, "dtype_policy", None), "name", None),
        "jit_compile": model.jit_compile,
        "run_eagerly": model.run_eagerly,
        "steps_per_execution": model.steps_per_execution,
        **{name: os.environ.get(name) for name in _SETTINGS},
    }
    torch = sys.modules.get("torch")
    if keras.backend.backend() == "torch" and torch is not None:
        told["matrix precision"] = torch.get_float32_matmul_precision()
        told["deterministic algorithms"] = torch.are_deterministic_algorithms_enabled()
    return told


def machine() -> dict[str, Any]:
    """Tell processors, threads and devices."""
    cpu = environment.cpu()
    told: dict[str, Any] = {
        "architecture": platform.machine(),
        "processor": cpu.get("model"),
        "device": device(),
    }
    if keras.backend.backend() != "torch":
        told["usable processors"] = cpu.get("usable")
    torch = sys.modules.get("torch")
    if keras.backend.backend() == "torch" and torch is not None:
        told["threads"] = torch.get_num_threads()
        if told["device"] == "cuda":
            told["device"] = torch.cuda.get_device_name()
    elif keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        told["threads"] = tf.config.threading.get_intra_op_parallelism_threads()
        told["device"] = [
            tf.config.experimental.get_device_details(each).get("device_name", each.device_type)
            for each in tf.config.get_visible_devices("GPU")
        ]
    elif keras.backend.backend() == "jax":
        told["device"] = [each.device_kind for each in sys.modules["jax"].devices()]
    return told


def libraries() -> dict[str, str]:
    """Tell the versions of what computes."""
    told = {"python": platform.python_version()}
    backend = keras.backend.backend()
    names: Iterable[str] = ("keras", "numpy", backend, *(["jaxlib"] if backend == "jax" else []))
    for name in names:
        version = getattr(sys.modules.get(name), "__version__", None)
        if isinstance(version, str):
            told[name] = version
    return told
