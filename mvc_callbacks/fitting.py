"""Fitting recorded values to the parameters that take them, by types that the caller's own code names."""

from __future__ import annotations

import argparse
import collections.abc
import dataclasses
import enum
import inspect
import types
import typing
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, Union

from mvc_callbacks import tree
from mvc_callbacks.markers import Marker, Tagged, Untold

__all__ = ["annotations_of", "fit"]

_NONE = type(None)
_PLAIN = (bool, bytes, complex, float, int, object, str)


def fit(value: Any, parameter: inspect.Parameter, annotation: Any, *, configured: bool) -> Any:
    """Make of a recorded value what its parameter takes.

    The member of an enum, a dataclass, a function come back where an annotation or the default of the
    caller's own class says which. Nothing is ever looked up by a name from the store.

    Args:
        value: As recalled.
        parameter: The parameter.
        annotation: Its resolved annotation; `inspect.Parameter.empty` without one.
        configured: Whether it is from a configuration (LightningCLI): enums are names, objects a
            ``class_path``.

    Returns:
        The value; a marker, or something with markers in it, where only code that the store names could make
        it.
    """
    fitted = _fit(value, annotation, configured)
    return _default(fitted, parameter.default) if isinstance(fitted, Tagged) else fitted


def _default(value: Tagged, default: Any) -> Any:
    """Return the parameter's default where exactly this was recorded, as with ``activation=nn.ReLU``."""
    if default is inspect.Parameter.empty or "<" in value.name:  # every lambda has the same name
        return value
    if isinstance(default, enum.Enum):
        return _member(value, type(default))
    told = tree.encode(default, is_tensor=lambda _: False)
    return default if not told.untold and tree.decode(told.json) == value else value


def _fit(value: Any, annotation: Any, configured: bool) -> Any:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _fit(value, arguments[0], configured)
    if origin in (Union, types.UnionType):
        return _fit_one_of(value, arguments, configured)
    if origin in (list, collections.abc.Sequence) and isinstance(value, (list, tuple)) and arguments:
        return type(value)([_fit(each, arguments[0], configured) for each in value])
    if origin is tuple and isinstance(value, (list, tuple)) and arguments:
        kinds = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(kinds) == len(value):
            return tuple(_fit(each, kind, configured) for each, kind in zip(value, kinds, strict=True))
    if origin in (dict, collections.abc.Mapping) and isinstance(value, dict) and arguments:
        return {key: _fit(each, arguments[1], configured) for key, each in value.items()}
    if isinstance(annotation, type) and origin is None and annotation is not Any:  # a class since 3.11
        return _fit_class(value, annotation, configured)
    return _plain(value, annotation) if configured else value


def _fit_one_of(value: Any, annotations: tuple[Any, ...], configured: bool) -> Any:
    if value is None and _NONE in annotations:
        return None
    answers = [_fit(value, each, configured) for each in annotations if each is not _NONE]
    usable = [each for each in answers if not _has_markers(each)]
    # One that changed the value knows more about it than one that let it pass.
    changed = [each for each in usable if each is not value and each != value]
    exact = isinstance(value, tuple(each for each in annotations if isinstance(each, type)))
    return next(iter([*([] if exact else changed), *usable, *answers]), value)


def _fit_class(value: Any, annotation: type, configured: bool) -> Any:
    if not isinstance(value, (str, Mapping, list)) and _is_instance(value, annotation):
        return value
    made = value
    if issubclass(annotation, enum.Enum):
        made = _member(value, annotation)
    elif dataclasses.is_dataclass(annotation):
        made = _filled(value, annotation, configured)
    elif issubclass(annotation, PurePath) and isinstance(value, str):
        made = annotation(value)
    elif annotation is argparse.Namespace and isinstance(value, dict):
        made = argparse.Namespace(**value)
    elif annotation is tuple and isinstance(value, list):
        made = tuple(value)
    return _plain(value, annotation) if configured and made is value else made


def _is_instance(value: Any, annotation: type) -> bool:
    try:
        return isinstance(value, annotation)
    except TypeError:  # a protocol that cannot be asked
        return False


def _member(value: Any, kind: type[enum.Enum]) -> Any:
    """Return the member of the caller's enum that was recorded: by name, else by value."""
    name = value
    if isinstance(value, Tagged):
        where, _, name = value.name.rpartition(".")
        if value.kind != "enum" or where.rpartition(".")[2] != kind.__name__:
            return value
    if isinstance(name, str) and name in kind.__members__:
        return kind[name]
    try:
        return value if isinstance(value, Marker) else kind(value)
    except ValueError:
        return value


def _filled(value: Any, kind: Any, configured: bool) -> Any:
    """Return the caller's dataclass with the recorded fields; the value as it was where these are others."""
    content = value.value if isinstance(value, Tagged) and value.kind == "dataclass" else value
    names = {each.name: each.init for each in dataclasses.fields(kind)}
    if not isinstance(content, Mapping) or not names.keys() >= content.keys():
        return value
    known = annotations_of(kind)
    fields = {name: _fit(content[name], known.get(name, Any), configured) for name in content if names[name]}
    return value if _has_markers(fields) else kind(**fields)


def annotations_of(thing: Any) -> dict[str, Any]:
    """Return the annotations of a class or function, as far as they can be resolved."""
    try:
        return typing.get_type_hints(thing)
    except Exception:  # one may name what is imported for type checkers only
        return {
            name: each
            for name, each in getattr(thing, "__annotations__", {}).items()
            if not isinstance(each, str)
        }


def _has_markers(value: Any) -> bool:
    return any(True for _ in tree.find_markers(value))


def _plain(value: Any, annotation: Any) -> Any:
    """Return a value of a configuration as it stands, or a marker where it describes an object.

    For a class or a callable "torch.nn.ReLU" or {"class_path": ...} would have to be imported, and called.
    """
    if isinstance(value, Mapping):
        if "class_path" in value:
            return Untold(str(value["class_path"])[:200], "an object that the configuration described")
        return {key: _plain(each, Any) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each, Any) for each in value]
    text_is_meant = annotation in (Any, inspect.Parameter.empty, *_PLAIN) or typing.get_origin(
        annotation
    ) in (
        typing.Literal,
        list,
        tuple,
        dict,
    )
    if isinstance(value, str) and not text_is_meant:
        return Untold(value[:200], "an object that the configuration named")
    return value
