"""Every error and warning that mvc_callbacks raises by name."""

from __future__ import annotations

__all__ = [
    "AliasMoved",
    "AmbiguousRef",
    "BadName",
    "CorruptHistory",
    "CorruptObject",
    "CorruptRecord",
    "DataChanged",
    "IncompatibleModel",
    "MVCError",
    "MVCWarning",
    "Misconfigured",
    "MissingFramework",
    "MissingHyperparameters",
    "MissingObject",
    "PrunedVersion",
    "SaveFailed",
    "StoreLocked",
    "StoreNotFound",
    "UnknownRef",
    "UnsafeFile",
    "UnsupportedFormat",
    "UnsupportedTensor",
]


class MVCError(Exception):
    """Base of every error of this package."""

    def __str__(self) -> str:
        # LookupError's subclass KeyError would print the message's repr; OSError would print an errno.
        return str(self.args[0]) if self.args else ""


class StoreNotFound(MVCError, FileNotFoundError):
    """There is no store in the named folder."""


class UnknownRef(MVCError, LookupError):
    """A ref names no version."""


class AmbiguousRef(MVCError, LookupError):
    """A ref names several versions."""


class BadName(MVCError, ValueError):
    """A ref, label, alias or digest that no store accepts."""


class AliasMoved(MVCError, RuntimeError):
    """An alias does not point to what the caller expected; it was left alone."""


class CorruptObject(MVCError, ValueError):
    """An object whose bytes are not what its name says."""


class MissingObject(MVCError, FileNotFoundError):
    """An object that a version needs is not in the store."""


class CorruptRecord(MVCError, ValueError):
    """A record, run, event or manifest that cannot be believed."""


class CorruptHistory(MVCError, ValueError):
    """A history database that cannot be believed; ``rebuild`` makes it again."""


class UnsafeFile(MVCError, OSError):
    """A symlink, FIFO, device or folder where a regular file of the store should be."""


class UnsupportedFormat(MVCError, ValueError):
    """A store written by a newer format, or with a requirement that this release does not know."""


class UnsupportedTensor(MVCError, TypeError):
    """A tensor whose bits cannot be kept (sparse, quantised, meta, ...)."""


class StoreLocked(MVCError, TimeoutError):
    """The store's lock could not be had in time, or locks do not work there."""


class SaveFailed(MVCError, OSError):
    """A version could not be saved."""


class PrunedVersion(MVCError, LookupError):
    """The weights or the training state of a version were pruned."""


class IncompatibleModel(MVCError, ValueError):
    """Names, shapes or dtypes of a model and a version differ; nothing was assigned."""


class MissingFramework(MVCError, ImportError):
    """A framework, or the backend that it needs, is not installed."""


class MissingHyperparameters(MVCError, ValueError):
    """A model cannot be built because a recorded hyperparameter could not be told or is masked."""


class Misconfigured(MVCError, ValueError):
    """An argument, or a combination of them, that cannot work; the message says what to use."""


class DataChanged(MVCError, ValueError):
    """The training data is not the data that the version was trained on."""


class MVCWarning(UserWarning):
    """Every warning of this package."""
