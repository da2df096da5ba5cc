"""Random state with torch's small tensors: what checkpoints of Lightning keep of `random_state`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from mvc_callbacks import random_state
from mvc_callbacks.random_state import held

__all__ = ["capture", "capture_held", "held", "put_back", "put_back_held"]


def capture() -> dict[str, Any]:
    """Return the state of every global generator, without drawing from any."""
    return random_state.capture(_tensor)


def put_back(state: Mapping[str, Any]) -> None:
    """Put the global generators into the state that `capture` returned, as far as they are there."""
    random_state.put_back(state, _bytes)


def capture_held(generators: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state of each generator that `held` found."""
    return random_state.capture_held(generators, _tensor)


def put_back_held(generators: Mapping[str, Any], states: Mapping[str, Any]) -> tuple[str, ...]:
    """Put generators into the states that `capture_held` returned; return the paths of only one side."""
    return random_state.put_back_held(generators, states, _bytes)


def _tensor(data: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().numpy().tobytes()
