"""Every checkpoint a version, and any version back again, bit for bit.

The names of this page are loaded when they are first used: importing the package imports no framework.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mvc_callbacks.errors import MVCError, MVCWarning
    from mvc_callbacks.fingerprint import fingerprint_data
    from mvc_callbacks.restore import restore_version
    from mvc_callbacks.store import VersionStore
    from mvc_callbacks.versions import Evaluation, Fingerprint, Monitor, Parent, Version, Weights

__version__ = "0.1.0"

__all__ = [
    "Evaluation",
    "Fingerprint",
    "MVCError",
    "MVCWarning",
    "Monitor",
    "Parent",
    "Version",
    "VersionStore",
    "Weights",
    "fingerprint_data",
    "restore_version",
]

_HOMES = {
    "Evaluation": "versions",
    "Fingerprint": "versions",
    "MVCError": "errors",
    "MVCWarning": "errors",
    "Monitor": "versions",
    "Parent": "versions",
    "Version": "versions",
    "VersionStore": "store",
    "Weights": "versions",
    "fingerprint_data": "fingerprint",
    "restore_version": "restore",
}


def __getattr__(name: str) -> Any:
    """Load a public name from the module that it lives in (PEP 562)."""
    try:
        home = _HOMES[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value  # the next use is a plain look-up
    return value


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted({*globals(), *__all__})
