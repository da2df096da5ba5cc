"""Random state: that of python, numpy and torch, and of the generators that objects hold."""

from __future__ import annotations

import random
import sys
from array import array
from collections.abc import Iterator, Mapping
from typing import Any

import torch

__all__ = ["capture", "capture_held", "held", "put_back", "put_back_held"]

_DEEPEST = 6
_MOST_OBJECTS = 20_000
_LONGEST = 64  # a longer container holds data


def capture() -> dict[str, Any]:
    """Return the state of every global generator, without drawing from any.

    Returns:
        Plain numbers and small byte tensors, one entry for each library and device in use.
    """
    version, words, gauss = random.getstate()
    state: dict[str, Any] = {
        "python": {"version": version, "words": _bytes(array("Q", words).tobytes()), "gauss": gauss},
        "torch": torch.get_rng_state(),
    }
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        state["numpy"] = _tell_numpy(numpy.random.get_state())
    if torch.cuda.is_available():
        state["cuda"] = [each.cpu() for each in torch.cuda.get_rng_state_all()]
    if torch.backends.mps.is_available():
        state["mps"] = torch.mps.get_rng_state().cpu()
    return state


def put_back(state: Mapping[str, Any]) -> None:
    """Put the global generators into the state that `capture` returned, as far as they are there."""
    python = state["python"]
    random.setstate((python["version"], tuple(array("Q", _plain(python["words"]))), python["gauss"]))
    torch.set_rng_state(state["torch"])
    if "numpy" in state:
        import numpy as np

        np.random.set_state(_read_numpy(state["numpy"]))
    if "cuda" in state and torch.cuda.is_available() and len(state["cuda"]) <= torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    if "mps" in state and torch.backends.mps.is_available():
        torch.mps.set_rng_state(state["mps"])


def held(roots: Mapping[str, Any]) -> dict[str, Any]:
    """Find the generators that objects hold: a loader's ``generator``, a data set's own numpy generator.

    Only attributes and short containers are looked at; no property is called, and nothing is iterated.

    Args:
        roots: Name to object.

    Returns:
        Path to generator, each once.
    """
    found: dict[str, Any] = {}
    seen: set[int] = set()
    for name, root in roots.items():
        for path, each in _walk(name, root, 0, seen):
            found[path] = each
    return found


def capture_held(generators: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state of each generator that `held` found."""
    return {path: _tell(each) for path, each in generators.items()}


def put_back_held(generators: Mapping[str, Any], states: Mapping[str, Any]) -> tuple[str, ...]:
    """Put generators into the states that `capture_held` returned.

    Returns:
        The paths that have a state but no generator, or a generator but no state.
    """
    for path in generators.keys() & states.keys():
        _read(generators[path], states[path])
    return tuple(sorted(generators.keys() ^ states.keys()))


def _walk(path: str, value: Any, depth: int, seen: set[int]) -> Iterator[tuple[str, Any]]:
    if depth > _DEEPEST or len(seen) > _MOST_OBJECTS or id(value) in seen:
        return
    kind = type(value)
    if kind in (int, float, str, bytes, bool, type(None)) or isinstance(value, torch.Tensor | type):
        return
    seen.add(id(value))
    if _is_generator(value):
        yield path, value
        return
    for key, each in _inside(value):
        yield from _walk(f"{path}.{key}", each, depth + 1, seen)


def _inside(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, dict):
        yield from list(value.items()) if len(value) <= _LONGEST else []
    elif isinstance(value, list | tuple):
        yield from enumerate(value) if len(value) <= _LONGEST else []
    elif hasattr(value, "__dict__") and type(value).__module__ not in ("builtins", "types", "threading"):
        # A loader's iterator, and a module's Trainer, lead to everything else there is.
        skipped = ("_iterator", "_trainer", "trainer", "_fabric")
        yield from [(key, each) for key, each in vars(value).items() if key not in skipped]


def _is_generator(value: Any) -> bool:
    if isinstance(value, torch.Generator | random.Random):
        return not isinstance(value, random.SystemRandom)
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.random.Generator | numpy.random.RandomState)


def _tell(generator: Any) -> dict[str, Any]:
    if isinstance(generator, torch.Generator):
        return {"torch": generator.get_state().clone()}
    if isinstance(generator, random.Random):
        version, words, gauss = generator.getstate()
        return {"version": version, "words": _bytes(array("Q", words).tobytes()), "gauss": gauss}
    if hasattr(generator, "bit_generator"):
        return {"bits": _tell_bits(generator.bit_generator.state)}
    return {"numpy": _tell_numpy(generator.get_state(legacy=True))}


def _read(generator: Any, state: Mapping[str, Any]) -> None:
    if isinstance(generator, torch.Generator):
        generator.set_state(state["torch"])
    elif isinstance(generator, random.Random):
        generator.setstate((state["version"], tuple(array("Q", _plain(state["words"]))), state["gauss"]))
    elif hasattr(generator, "bit_generator"):
        generator.bit_generator.state = _read_bits(state["bits"])
    else:
        generator.set_state(_read_numpy(state["numpy"]))


def _tell_numpy(state: Any) -> dict[str, Any]:
    name, keys, position, has_gauss, gauss = state
    return {
        "name": name,
        "keys": _bytes(keys.tobytes()),
        "position": int(position),
        "has_gauss": int(has_gauss),
        "gauss": float(gauss),
    }


def _read_numpy(told: Mapping[str, Any]) -> tuple[Any, ...]:
    import numpy as np

    keys = np.frombuffer(_plain(told["keys"]), dtype=np.uint32)
    return (told["name"], keys, told["position"], told["has_gauss"], told["gauss"])


def _tell_bits(value: Any) -> Any:
    # Its integers have 128 bits, which no tensor holds; its arrays are those of older generators.
    if isinstance(value, dict):
        return {key: _tell_bits(each) for key, each in value.items()}
    if hasattr(value, "tobytes"):
        return {"dtype": str(value.dtype), "data": _bytes(value.tobytes())}
    return str(value) if isinstance(value, int) else value


def _read_bits(value: Any) -> Any:
    import numpy as np

    if isinstance(value, Mapping):
        if value.keys() == {"dtype", "data"}:
            return np.frombuffer(_plain(value["data"]), dtype=value["dtype"]).copy()
        return {key: _read_bits(each) for key, each in value.items()}
    return int(value) if isinstance(value, str) and value.isdigit() else value


def _bytes(data: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def _plain(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().numpy().tobytes()
