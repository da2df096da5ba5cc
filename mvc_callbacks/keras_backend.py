"""The backend that Keras is going to use, looked at before Keras is imported."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path

from mvc_callbacks.errors import MissingFramework

__all__ = ["check_backend"]

_MODULES = {"tensorflow": "tensorflow", "torch": "torch", "jax": "jax"}


def check_backend() -> None:
    """Refuse to import Keras where that would fail.

    Raises:
        MissingFramework: If Keras, or the backend that it would choose, is not installed; the message
            says what to
            install or to set.
    """
    if "keras" in sys.modules:
        return
    if importlib.util.find_spec("keras") is None:
        raise MissingFramework(
            "Keras is not installed: pip install 'mvc-callbacks[tensorflow]', or keras with a backend"
        )
    chosen = _chosen()
    module = _MODULES.get(chosen or "tensorflow")
    if module is None or importlib.util.find_spec(module) is not None:
        return
    others = [each for each in _MODULES if importlib.util.find_spec(_MODULES[each]) is not None]
    instead = (
        f"set KERAS_BACKEND={others[0]} before Python starts ({', '.join(others)} can be imported here)"
        if others
        else "install torch or jax and set KERAS_BACKEND to it"
    )
    why = (
        f"the backend {chosen} was chosen for it"
        if chosen
        else "no backend was chosen, and TensorFlow is the default"
    )
    raise MissingFramework(
        f"Keras cannot be imported: {why}, but {module} is not installed. Either pip install {module}, or "
        f"{instead}"
    )


def _chosen() -> str | None:
    """Return the backend that the environment or Keras' configuration file names, in Keras' own order."""
    if name := os.environ.get("KERAS_BACKEND"):
        return name
    home = os.environ.get("KERAS_HOME")
    path = (Path(home) if home else Path("~").expanduser() / ".keras") / "keras.json"
    try:
        told = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    name = told.get("backend") if isinstance(told, dict) else None
    return name if isinstance(name, str) else None
