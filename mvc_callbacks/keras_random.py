"""The random state of a Keras training: Keras' own seeds, and those of python, numpy, torch and TensorFlow.

States of the seed generators of layers are variables of the model, and come back with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mvc_callbacks import keras_private, random_state
from mvc_callbacks.tensors import Tensor

__all__ = ["capture", "capture_held", "put_back", "put_back_held", "token"]


def capture() -> dict[str, Any]:
    """Return the state of every global generator, without drawing from any."""
    return {
        "global": random_state.capture(_pack),
        "keras": keras_private.global_seed(),
        "tensorflow": _packed(keras_private.tensorflow()),
    }


def put_back(state: Mapping[str, Any]) -> None:
    """Put the global generators into the state that `capture` returned."""
    keras_private.set_global_seed(state["keras"])  # first, as it may draw
    keras_private.set_tensorflow(_unpacked(state["tensorflow"]))
    random_state.put_back(state["global"], _unpack)


def capture_held(generators: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state of each generator that `random_state.held` found."""
    return random_state.capture_held(generators, _pack)


def put_back_held(generators: Mapping[str, Any], states: Mapping[str, Any]) -> tuple[str, ...]:
    """Put generators back; return the paths of those that only one side has."""
    return random_state.put_back_held(generators, states, _unpack)


def token(held: Mapping[str, Any]) -> str:
    """Return what differs once anything was drawn, from a global generator or from one that is held."""
    state = {"global": random_state.capture(bytes), "held": random_state.capture_held(held, bytes)}
    return repr((state, keras_private.global_seed()))


def _pack(data: bytes) -> Tensor:
    return Tensor("U8", (len(data),), memoryview(data))


def _unpack(tensor: Tensor) -> bytes:
    return bytes(tensor.data)


def _packed(state: dict[str, Any] | None) -> dict[str, Any] | None:
    if state is None or state["operations"] is None:
        return state
    version, words, gauss = state["operations"]
    data = b"".join(word.to_bytes(8, "little") for word in words)
    return {**state, "operations": [version, _pack(data), gauss]}


def _unpacked(state: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if state is None or state["operations"] is None:
        return dict(state) if state is not None else None
    version, packed, gauss = state["operations"]
    data = _unpack(packed)
    words = [int.from_bytes(data[at : at + 8], "little") for at in range(0, len(data), 8)]
    return {**state, "operations": [version, words, gauss]}
