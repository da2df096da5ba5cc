"""Random state: that of python, numpy and torch, and of the generators that objects hold.

Libraries are looked up among those that are loaded, and none is imported: what has not been, has drawn
nothing.
"""

from __future__ import annotations

import random
import sys
from array import array
from collections.abc import Callable, Mapping
from typing import Any

from mvc_callbacks.reachable import walk

__all__ = ["capture", "capture_held", "held", "put_back", "put_back_held"]

Pack = Callable[[bytes], Any]
"""Makes of bytes what the caller can keep."""
Unpack = Callable[[Any], bytes]
"""The way back."""


def capture(pack: Pack) -> dict[str, Any]:
    """Return the state of every global generator, without drawing from any.

    Args:
        pack: Makes of bytes what the caller can keep: a small tensor.

    Returns:
        Plain numbers and packed bytes, one entry for each library and device in use.
    """
    state: dict[str, Any] = {"python": _tell_python(random.getstate(), pack)}
    numpy, torch = sys.modules.get("numpy"), _torch()
    if numpy is not None:
        state["numpy"] = _tell_numpy(numpy.random.get_state(), pack)
    if torch is None:
        return state
    state["torch"] = _tell_torch(torch.get_rng_state(), pack)
    # Where CUDA was not begun, nothing was drawn; asking would begin it, and take memory of every device.
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = [_tell_torch(each, pack) for each in torch.cuda.get_rng_state_all()]
    if torch.backends.mps.is_available():
        state["mps"] = _tell_torch(torch.mps.get_rng_state(), pack)
    return state


def put_back(state: Mapping[str, Any], unpack: Unpack) -> None:
    """Put the global generators into the state that `capture` returned, as far as they are there."""
    random.setstate(_read_python(state["python"], unpack))
    if "numpy" in state:
        import numpy as np

        np.random.set_state(_read_numpy(state["numpy"], unpack))
    torch = _torch()
    if torch is None:
        return
    if "torch" in state:
        torch.set_rng_state(_read_torch(state["torch"], unpack))
        if "cuda" not in state and torch.cuda.is_available():
            # It had not been begun, and would have drawn from the seed that torch had been given.
            torch.cuda.manual_seed_all(torch.initial_seed())
    if "cuda" in state and torch.cuda.is_available() and len(state["cuda"]) <= torch.cuda.device_count():
        torch.cuda.set_rng_state_all([_read_torch(each, unpack) for each in state["cuda"]])
    if "mps" in state and torch.backends.mps.is_available():
        torch.mps.set_rng_state(_read_torch(state["mps"], unpack))


def _torch() -> Any:
    torch = sys.modules.get("torch")
    return torch if hasattr(torch, "get_rng_state") else None  # half imported, it cannot have drawn


def held(roots: Mapping[str, Any]) -> dict[str, Any]:
    """Find the generators that objects lead to: a loader's ``generator``, one in a data set's transform.

    Args:
        roots: Name to object.

    Returns:
        Path to generator, each once.
    """
    found: dict[str, Any] = {}
    seen: set[int] = set()
    for name, root in roots.items():  # each by itself, so that one that leads to too much hides no other
        for path, each in walk(root):
            if _is_generator(each) and id(each) not in seen:
                seen.add(id(each))
                found[f"{name}.{path}" if path else name] = each
    return found


def capture_held(generators: Mapping[str, Any], pack: Pack) -> dict[str, Any]:
    """Return the state of each generator that `held` found."""
    return {path: _tell(each, pack) for path, each in generators.items()}


def put_back_held(
    generators: Mapping[str, Any], states: Mapping[str, Any], unpack: Unpack
) -> tuple[str, ...]:
    """Put generators into the states that `capture_held` returned.

    Returns:
        The paths that have a state but no generator, or a generator but no state.
    """
    for path in generators.keys() & states.keys():
        _read(generators[path], states[path], unpack)
    return tuple(sorted(generators.keys() ^ states.keys()))


def _is_generator(value: Any) -> bool:
    if isinstance(value, random.Random):
        return not isinstance(value, random.SystemRandom)
    numpy, torch = sys.modules.get("numpy"), _torch()
    if torch is not None and isinstance(value, torch.Generator):
        return value is not torch.default_generator  # a global one
    return numpy is not None and isinstance(value, numpy.random.Generator | numpy.random.RandomState)


def _tell(generator: Any, pack: Pack) -> dict[str, Any]:
    if isinstance(generator, random.Random):
        return _tell_python(generator.getstate(), pack)
    if hasattr(generator, "bit_generator"):
        return {"bits": _tell_bits(generator.bit_generator.state, pack)}
    if hasattr(generator, "initial_seed"):
        return {"torch": _tell_torch(generator.get_state(), pack)}
    return {"numpy": _tell_numpy(generator.get_state(legacy=True), pack)}


def _read(generator: Any, state: Mapping[str, Any], unpack: Unpack) -> None:
    if isinstance(generator, random.Random):
        generator.setstate(_read_python(state, unpack))
    elif hasattr(generator, "bit_generator"):
        generator.bit_generator.state = _read_bits(state["bits"], unpack)
    elif hasattr(generator, "initial_seed"):
        generator.set_state(_read_torch(state["torch"], unpack))
    else:
        generator.set_state(_read_numpy(state["numpy"], unpack))


def _tell_python(state: Any, pack: Pack) -> dict[str, Any]:
    version, words, gauss = state
    return {"version": version, "words": pack(array("Q", words).tobytes()), "gauss": gauss}


def _read_python(told: Mapping[str, Any], unpack: Unpack) -> tuple[Any, ...]:
    return (told["version"], tuple(array("Q", unpack(told["words"]))), told["gauss"])


def _tell_torch(state: Any, pack: Pack) -> Any:
    return pack(state.cpu().numpy().tobytes())


def _read_torch(told: Any, unpack: Unpack) -> Any:
    torch = _torch()
    return torch.frombuffer(bytearray(unpack(told)), dtype=torch.uint8)


def _tell_numpy(state: Any, pack: Pack) -> dict[str, Any]:
    name, keys, position, has_gauss, gauss = state
    return {
        "name": name,
        "keys": pack(keys.tobytes()),
        "position": int(position),
        "has_gauss": int(has_gauss),
        "gauss": float(gauss),
    }


def _read_numpy(told: Mapping[str, Any], unpack: Unpack) -> tuple[Any, ...]:
    import numpy as np

    keys = np.frombuffer(unpack(told["keys"]), dtype=np.uint32)
    return (told["name"], keys, told["position"], told["has_gauss"], told["gauss"])


def _tell_bits(value: Any, pack: Pack) -> Any:
    # Its integers have 128 bits, which no tensor holds; its arrays are those of older generators.
    if isinstance(value, dict):
        return {key: _tell_bits(each, pack) for key, each in value.items()}
    if hasattr(value, "tobytes"):
        return {"dtype": str(value.dtype), "data": pack(value.tobytes())}
    return str(value) if isinstance(value, int) else value


def _read_bits(value: Any, unpack: Unpack) -> Any:
    import numpy as np

    if isinstance(value, Mapping):
        if value.keys() == {"dtype", "data"}:
            return np.frombuffer(unpack(value["data"]), dtype=value["dtype"]).copy()
        return {key: _read_bits(each, unpack) for key, each in value.items()}
    return int(value) if isinstance(value, str) and value.isdigit() else value
