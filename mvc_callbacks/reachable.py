"""What objects lead to: attributes, containers, closures, and the globals that their functions name."""

from __future__ import annotations

import collections
import dis
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cache, partial
from itertools import islice
from types import CodeType, FunctionType, GeneratorType, MethodType, ModuleType
from typing import Any

__all__ = ["UNSEEN", "is_framework", "is_framework_name", "owner_of", "walk"]

UNSEEN = "…"
"""The path of what was too much to be gone through."""

_COMPILER = "_torchdynamo"
_DEEPEST = 24
_MOST_OBJECTS = 20_000
_MOST = 64  # entries of a container at its begin, and as many at its end
_LONG = 4096
_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_FRAMEWORKS = frozenset(
    (
        "jax",
        "keras",
        "lightning",
        "lightning_fabric",
        "lightning_utilities",
        "mvc_callbacks",
        "numpy",
        "optree",
        "pytorch_lightning",
        "tensorflow",
        "torch",
        "torchdata",
        "torchmetrics",
        "torchvision",
    )
)
# What holds other people's objects, and nothing that changes by itself.
_OPEN = ("argparse", "collections", "functools", "torch.utils.data", "torchdata", "torchvision", "types")
_SKIPPED = frozenset(("_fabric", "_iterator", "_trainer", "trainer", "training"))


def walk(root: Any, *, code: bool = True) -> Iterator[tuple[str, Any]]:
    """Yield everything that an object leads to, each once, itself first, what is near before what is far.

    No property is called and nothing is iterated but containers. The trainer and a loader's running iterator
    are left out, as they lead to everything else there is, and so is what frameworks keep for themselves.

    Args:
        root: Where to begin.
        code: Whether to look into classes, and at the globals that functions name.

    Yields:
        Path and value; the last path is `UNSEEN` if there are too many objects. In another process that is
        made in the same way, the paths are the same.
    """
    seen: dict[int, Any] = {}  # which also keeps them, as an id is given again
    waiting: collections.deque[tuple[str, Any, int]] = collections.deque([("", root, 0)])
    while waiting:
        path, value, depth = waiting.popleft()
        if not isinstance(value, _PLAIN):
            if id(value) in seen:
                continue
            if len(seen) >= _MOST_OBJECTS:
                yield UNSEEN, None
                return
            seen[id(value)] = value
        yield path, value
        if depth < _DEEPEST and not isinstance(value, _PLAIN):
            waiting += [(_joined(path, key), each, depth + 1) for key, each in _inside(value, code)]


def is_framework(value: Any) -> bool:
    """Tell whether a framework made an object's class, so that it keeps its state itself."""
    kind = value if isinstance(value, type) else type(value)
    return kind is object or is_framework_name(kind.__module__)


def is_framework_name(module: str | None) -> bool:
    """Tell whether a module, by its name, is a framework's."""
    return (module or "").partition(".")[0] in _FRAMEWORKS


def owner_of(kind: type, name: str) -> type:
    """Return the class that an attribute of a class comes from."""
    return next((each for each in kind.__mro__ if name in vars(each)), object)


def _joined(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _inside(value: Any, code: bool) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        yield from [(_key(key), each) for key, each in _ends(value.items(), len(value))]
    elif isinstance(value, list | tuple | collections.deque):
        yield from [(str(index), each) for index, each in _ends(enumerate(value), len(value))]
    elif isinstance(value, FunctionType):
        yield from _of_function(value, code)
    elif isinstance(value, MethodType):
        # Such as `log`, which Lightning lends to callbacks.
        if not is_framework_name(value.__func__.__module__):
            yield from (("self", value.__self__), (value.__name__, value.__func__))
    elif isinstance(value, partial):
        yield from (("function", value.func), ("arguments", value.args), ("keywords", value.keywords))
    elif isinstance(value, GeneratorType):
        yield from value.gi_frame.f_locals.items() if value.gi_frame is not None else ()
    elif isinstance(value, type):
        yield from _of_class(value) if code else ()
    elif not isinstance(value, ModuleType):
        yield from _of_object(value)


def _ends(entries: Iterable[Any], count: int) -> list[Any]:
    entries = iter(entries)
    head = list(islice(entries, _MOST))
    if count <= _LONG:  # of what is longer, the end is not worth the way there
        head += [each for index, each in enumerate(entries, _MOST) if index >= count - _MOST]
    return head


def _key(key: Any) -> str:
    return str(key) if isinstance(key, _PLAIN) else type(key).__name__


def _of_object(value: Any) -> Iterator[tuple[str, Any]]:
    kind: Any = type(value)  # mypy does not know that classes are hashable
    attributes = getattr(value, "__dict__", None)
    if _is_open(kind) and isinstance(attributes, dict):
        own: frozenset[str] = _own_names(kind)
        for name, each in list(attributes.items()):
            # Lightning keeps what loaders were made with, under such names.
            if name not in _SKIPPED and name not in own and not name.startswith("__"):
                yield name, each
    for base, slots in _users_bases(kind):
        for name in slots:
            if hasattr(value, name) and name not in _SKIPPED:
                yield name, getattr(value, name)
        yield base.__name__, base
    torch = sys.modules.get("torch")
    module = getattr(getattr(torch, "nn", None), "Module", None)
    if module is not None and isinstance(value, module):
        yield from _of_module(value)


def _of_module(module: Any) -> Iterator[tuple[str, Any]]:
    yield from list(module._modules.items())
    for name in sorted(module._non_persistent_buffers_set):
        yield name, module._buffers.get(name)


@cache
def _users_bases(kind: type) -> tuple[tuple[type, tuple[str, ...]], ...]:
    """Return a class and its bases that are neither Python's nor an installed package's, with their slots."""
    return tuple((base, _slots(base)) for base in kind.__mro__ if _is_users(base))


def _slots(kind: type) -> tuple[str, ...]:
    slots = vars(kind).get("__slots__", ())
    names = (slots,) if isinstance(slots, str) else tuple(slots)
    return tuple(each for each in names if not each.startswith("__"))


def _of_class(kind: type) -> Iterator[tuple[str, Any]]:
    if not _is_users(kind):
        return
    for name, each in list(vars(kind).items()):
        if isinstance(each, staticmethod | classmethod):
            yield name, each.__func__
        elif isinstance(each, property):
            yield name, each.fget
        elif isinstance(each, FunctionType) or not (name.startswith("__") or hasattr(each, "__get__")):
            yield name, each


def _of_function(function: FunctionType, code: bool) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        try:
            yield name, cell.cell_contents
        except ValueError:  # not filled yet
            continue
    if not is_framework_name(function.__module__):
        yield "defaults", function.__defaults__
        yield "keyword defaults", function.__kwdefaults__
    wrapped = getattr(function, "__wrapped__", None)
    if wrapped is not None:
        yield "wrapped", wrapped
    if not is_framework_name(function.__module__):
        # What torch.compile writes there are numbers of objects, other ones in each process.
        told = (name for name in vars(function) if name != "__wrapped__" and not name.startswith(_COMPILER))
        yield from ((name, vars(function)[name]) for name in list(told))
    if not code or not _is_users_code(function.__globals__):
        return
    names = _names(function.__code__)
    for name in names:
        each = function.__globals__.get(name)
        if isinstance(each, ModuleType) and _is_users_code(vars(each)):
            yield from ((f"{name}.{inner}", vars(each)[inner]) for inner in names if inner in vars(each))
        elif name in function.__globals__ and not isinstance(each, ModuleType):
            yield name, each


@cache
def _names(code: CodeType) -> tuple[str, ...]:
    names = dict.fromkeys(code.co_names)
    for each in code.co_consts:
        if isinstance(each, CodeType):
            names.update(dict.fromkeys(_names(each)))
    return tuple(names)


@cache
def _is_open(kind: type) -> bool:
    module = kind.__module__
    if module.startswith(_OPEN):
        return True
    top = module.partition(".")[0]
    return top not in _FRAMEWORKS and top not in sys.stdlib_module_names | {"builtins"} - {"__main__"}


def _is_users(kind: type) -> bool:
    module = sys.modules.get(kind.__module__)
    top = kind.__module__.partition(".")[0]
    if top in _FRAMEWORKS or (top in sys.stdlib_module_names and top != "__main__"):
        return False
    return module is None or _is_users_code(vars(module))


def _is_users_code(names: Mapping[str, Any]) -> bool:
    """Tell whether a module, by its globals, is neither Python's own nor an installed package."""
    top = str(names.get("__name__", "")).partition(".")[0]
    if top in _FRAMEWORKS or (top in sys.stdlib_module_names and top != "__main__"):
        return False
    file = str(names.get("__file__") or "")
    return "site-packages" not in file and "dist-packages" not in file


@cache
def _own_names(kind: type) -> frozenset[str]:
    """Return the private attributes that framework classes, among a class's bases, set themselves."""
    found: set[str] = set()
    for base in kind.__mro__:
        if is_framework(base):
            for each in vars(base).values():
                function = each.fset if isinstance(each, property) else getattr(each, "__func__", each)
                if isinstance(function, FunctionType):
                    found |= _stored(function.__code__)
    return frozenset(each for each in found if each.startswith("_"))


def _stored(code: CodeType) -> set[str]:
    names = {str(each.argval) for each in dis.get_instructions(code) if each.opname == "STORE_ATTR"}
    for each in code.co_consts:
        if isinstance(each, CodeType):
            names |= _stored(each)
        elif isinstance(each, str):  # setattr and the like are given it
            names.add(each)
    return names
