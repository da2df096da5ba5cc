"""Building a model from recorded hyperparameters, with the caller's class or factory and nothing else."""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Callable, Mapping, MutableMapping
from importlib import import_module
from typing import Any

from mvc_callbacks import hyperparameters
from mvc_callbacks.errors import Misconfigured, MissingHyperparameters
from mvc_callbacks.fitting import annotations_of, fit
from mvc_callbacks.markers import Marker, Masked, find_markers
from mvc_callbacks.tensors import Tensor
from mvc_callbacks.tree_foreign import to_config

__all__ = ["build"]

_FOR_LIGHTNING = ("_instantiator", "_class_path")
_EMPTY = inspect.Parameter.empty
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class _Attributes(dict[str, Any]):
    """Hyperparameters that a module reads as ``hparams.lr`` or as ``hparams["lr"]``."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"there is no hyperparameter {name!r}") from None


def build(
    target: Callable[..., Any], told: Mapping[str, Any], overrides: Mapping[str, Any] | None = None
) -> Any:
    """Build a model from what a version recorded.

    A Lightning class is built as its own ``load_from_checkpoint`` would
    (``_load_state`` in ``lightning.pytorch.core.saving``): with what ``save_hyperparameters`` kept, without
    names that it does not accept, wrapped where it was one object. What ``hyperparameters=`` gave fills its
    remaining parameters. ``configure_model`` is called. Any other class is built by its signature; a factory
    is called with everything.

    An object that LightningCLI made of a ``class_path`` is not made again, since a store's text would say
    what is imported and called: it has to be given in ``overrides``.

    Args:
        target: A class, or a function that returns a model.
        told: The record's ``hyperparameters``.
        overrides: Values that replace recorded ones, by name or, inside of one, by dotted path.

    Returns:
        The model.

    Raises:
        MissingHyperparameters: If a value is needed that is masked, could not be told, or was never recorded.
        Misconfigured: If the record is of another class, or does not fit the factory.
    """
    configs = _configs(told)
    recalled = hyperparameters.recall(told, inline=_tensor_maker())
    replaced = dict(overrides or {})
    call = _Call(target)
    lightning = isinstance(target, type) and _is_lightning(target)
    if lightning:
        values = _for_lightning(call, recalled, replaced)
    elif isinstance(target, type):
        own = {**_section(recalled, "module"), **_section(recalled, "given")}
        values = call.accepted(_replace(own, replaced, call))
    else:
        values = _for_factory(call, recalled, replaced)
    # One with a marker in it was recalled as plain containers; the overrides may have replaced all markers.
    for name in configs - replaced.keys():
        if isinstance(values.get(name), (dict, list)):
            values[name] = to_config(values[name])
    model = call.make(values, replaced, configured=lightning and _is_configured(recalled))
    if lightning and _overrides_configure_model(target):
        model.configure_model()
    return model


def _configs(told: Mapping[str, Any]) -> set[str]:
    """Return the names whose values were OmegaConf's, which is imported then."""
    meta = told.get("module_meta") or {}
    names = (
        {str(meta.get("hparams_name"))} if str(meta.get("hparams_type")).startswith("omegaconf.") else set()
    )
    for section in hyperparameters.SECTIONS:
        content = told.get(section) or {}
        pairs = content.get("$dict", content.items()) if isinstance(content, dict) else ()
        names |= {str(name) for name, each in pairs if isinstance(each, dict) and "$omegaconf" in each}
    if names:
        with contextlib.suppress(ImportError):  # without it they are plain containers
            import_module("omegaconf")
    return names


class _Call:
    """A class or factory, and what it accepts."""

    def __init__(self, target: Callable[..., Any]) -> None:
        self.target = target
        self.name = getattr(target, "__qualname__", type(target).__qualname__)
        try:
            parameters = dict(inspect.signature(target).parameters)
            self.takes_any = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values())
        except (TypeError, ValueError):  # built-in callables tell no signature
            parameters, self.takes_any = {}, True
        self.parameters = {name: each for name, each in parameters.items() if each.kind in _NAMED}
        # A subclass may have another __init__, says mypy; the class itself is asked here.
        made_by = target.__init__ if isinstance(target, type) else target  # type: ignore[misc]
        self._annotations = annotations_of(made_by)

    def accepted(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values that have a parameter."""
        return {name: each for name, each in values.items() if self.takes_any or name in self.parameters}

    def make(self, values: dict[str, Any], overrides: Mapping[str, Any], *, configured: bool = False) -> Any:
        """Call it, if there is everything that it needs and nothing that is not a value."""
        for name, value in values.items():
            parameter = self.parameters.get(name)
            if parameter is not None and name not in overrides:  # who gives a value means it
                annotation = self._annotations.get(name, _EMPTY)
                values[name] = fit(value, parameter, annotation, configured=configured)
        self._refuse(dict(find_markers(values)))
        missing = [
            name for name, each in self.parameters.items() if each.default is _EMPTY and name not in values
        ]
        if missing:
            raise MissingHyperparameters(
                f"{self.name} needs {_listed(missing)}, which this version did not record: give "
                f"{_as_overrides(missing)}, or keep them with save_hyperparameters() or hyperparameters="
            )
        return self.target(**values)

    def _refuse(self, markers: Mapping[str, Marker]) -> None:
        if not markers:
            return
        whys = [
            f"{path} (masked or excluded)" if isinstance(marker, Masked) else f"{path} ({marker!r:.120})"
            for path, marker in markers.items()
        ]
        raise MissingHyperparameters(
            f"{self.name} cannot be built: the values of these hyperparameters are not in the record: "
            f"{_listed(whys)}. Give them as {_as_overrides(list(markers))}"
        )


def _for_lightning(call: _Call, recalled: Mapping[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """Follow ``_load_state`` of Lightning, without importing what a record names."""
    meta = _section(recalled, "module_meta")
    kept = recalled.get("module", {})
    class_path = kept.get("_class_path")
    if class_path is not None:
        _check_class(call.target, class_path)
    name = meta.get("hparams_name")
    if isinstance(name, str) and name in call.parameters and kept:
        inside = {key: each for key, each in overrides.items() if key not in call.parameters}
        outside = {key: each for key, each in overrides.items() if key in call.parameters}
        values = {name: outside.pop(name) if name in outside else _wrapped(name, kept, inside), **outside}
    else:
        values = call.accepted(_replace(_without(kept), overrides, call))
    for key, each in _section(recalled, "given").items():
        if key in call.parameters:
            values.setdefault(key, each)
    return values


def _wrapped(name: str, kept: Any, overrides: Mapping[str, Any]) -> Any:
    """Return what one parameter takes as a whole: OmegaConf's stays that, a dict also has attributes."""
    values = _Attributes(_without(kept)) if isinstance(kept, dict) else kept
    for path, value in overrides.items():
        inside = path.removeprefix(f"{name}.") if name not in values else path
        _put(values, inside, value)
    return values


def _check_class(target: Any, class_path: Any) -> None:
    module, _, name = str(class_path).rpartition(".")
    own = f"{target.__module__}.{target.__qualname__}"
    # The same class has another module when it was, or is, in the script that was started.
    in_script = "__main__" in (module, target.__module__) and name == target.__qualname__
    if class_path != own and not in_script:
        raise Misconfigured(
            f"this version was trained with the class {str(class_path)[:200]}, not {own}: "
            "import that class and pass it"
        )


def _is_configured(recalled: Mapping[str, Any]) -> bool:
    kept = recalled.get("module", {})
    return "_instantiator" in kept or "_class_path" in kept


def _for_factory(call: _Call, recalled: Mapping[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    values = hyperparameters.flat(recalled)
    if not call.takes_any:  # a model's factory need not know what only the datamodule took
        own = {**_section(recalled, "module"), **_section(recalled, "given")}
        values = {name: each for name, each in values.items() if name in own or name in call.parameters}
    values = _replace(values, overrides, call)
    unknown = [name for name in values if not call.takes_any and name not in call.parameters]
    if unknown:
        raise Misconfigured(
            f"{call.name} does not accept {_listed(unknown)}, which this version recorded: "
            "let it take **hyperparameters"
        )
    return values


def _replace(values: Mapping[str, Any], overrides: Mapping[str, Any], call: _Call) -> dict[str, Any]:
    """Return the values with the overrides in them."""
    replaced = dict(values)
    for path, value in overrides.items():
        first, _, rest = path.partition(".")
        if path in replaced or path in call.parameters or (call.takes_any and first not in replaced):
            replaced[path] = value
        elif rest and first in replaced:
            _put(replaced, path, value)
        else:
            known = sorted({*call.parameters, *replaced})
            raise Misconfigured(
                f"overrides= has {path!r}, which {call.name} does not accept; it knows {_listed(known)}"
            )
    return replaced


def _put(values: Any, path: str, value: Any) -> None:
    """Replace a value inside of nested mappings, lists and namespaces."""
    first, _, rest = path.partition(".")
    key: Any = int(first) if isinstance(values, list) and first.isdecimal() else first
    try:
        if isinstance(values, (MutableMapping, list)):
            if rest and path not in values:
                _put(values[key], rest, value)
            elif isinstance(values, list):
                values[key] = value
            else:
                values[path] = value
        elif rest:
            _put(getattr(values, first), rest, value)
        else:
            setattr(values, first, value)
    except (LookupError, AttributeError, TypeError) as error:
        raise Misconfigured(
            f"overrides= has {path!r}, and there is nothing recorded at that place"
        ) from error


def _without(kept: Any) -> dict[str, Any]:
    return {str(key): each for key, each in kept.items() if key not in _FOR_LIGHTNING}


def _section(recalled: Mapping[str, Any], name: str) -> dict[str, Any]:
    return _without(recalled.get(name, {}))


def _is_lightning(target: type) -> bool:
    """Tell a LightningModule without importing Lightning."""
    roots = {
        each.__module__.partition(".")[0] for each in target.__mro__ if each.__name__ == "LightningModule"
    }
    return bool(roots & {"lightning", "pytorch_lightning"}) and hasattr(target, "load_from_checkpoint")


def _overrides_configure_model(target: Any) -> bool:
    owner = next((each for each in target.__mro__ if "configure_model" in vars(each)), None)
    return owner is not None and owner.__module__.partition(".")[0] not in ("lightning", "pytorch_lightning")


def _tensor_maker() -> Callable[[Tensor], Any] | None:
    if "torch" not in sys.modules:
        return None
    from mvc_callbacks.torch_tensors import from_neutral

    return from_neutral


def _listed(names: list[str]) -> str:
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def _as_overrides(names: list[str]) -> str:
    return "overrides={" + ", ".join(f'"{name}": ...' for name in names[:12]) + "}"
