"""Reading of trees: tagged JSON, which anybody may have written, back into values."""

from __future__ import annotations

import argparse
import collections
import types
from collections.abc import Callable, Mapping
from typing import Any

from mvc_callbacks.errors import CorruptRecord
from mvc_callbacks.markers import Masked, Tagged, Untold
from mvc_callbacks.tensors import Tensor
from mvc_callbacks.tree_foreign import NOT_TOLD, recall_foreign, resolve_class, to_array, to_config
from mvc_callbacks.tree_tags import RECALL, from_base64, named_tuple

__all__ = ["decode"]

_FACTORIES: dict[Any, Callable[[], Any] | None] = {
    None: None,
    **{f"builtins.{kind.__name__}": kind for kind in (bool, dict, float, int, list, set, str, tuple)},
}


def decode(
    json: Any, tensors: Mapping[str, Any] | None = None, *, inline: Callable[[Tensor], Any] | None = None
) -> Any:
    """Make a value of its tree. Nothing is imported or run for it.

    Args:
        json: What `encode` told.
        tensors: What ``{"$tensor": name}`` stands for. Numpy arrays are made of neutral tensors, or of
            anything that has ``numpy()``.
        inline: Makes a value of each tensor that lies in the tree itself; without it they stay neutral.

    Returns:
        The value. Enums, dataclasses, classes, functions, what is masked and what could not be told come back
        as markers; a named tuple as one of the same fields; an instance of a plain type's subclass as that
        plain type.

    Raises:
        CorruptRecord: If it is no tree, or refers to a tensor that is not there.
    """
    reader = _Reader(tensors or {}, inline)
    try:
        return reader.value(json)
    except CorruptRecord:
        raise
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RuntimeError) as error:
        raise CorruptRecord(f"a tree that cannot be read: {type(error).__name__}: {error}"[:300]) from error


class _Reader:
    def __init__(self, tensors: Mapping[str, Any], inline: Callable[[Tensor], Any] | None) -> None:
        self.tensors, self.inline = tensors, inline

    def value(self, json: Any) -> Any:
        if isinstance(json, list):
            return [self.value(each) for each in json]
        if not isinstance(json, dict):
            return json
        if len(json) == 1:
            ((tag, told),) = json.items()
            if tag.startswith("$"):
                return self._tagged(tag, told)
        if any(key.startswith("$") for key in json):
            raise CorruptRecord("a tree has an object with a tag and other keys")
        return {key: self.value(each) for key, each in json.items()}

    def _tagged(self, tag: str, told: Any) -> Any:
        if tag in RECALL:
            return RECALL[tag](told)
        if tag == "$tensor":
            if told not in self.tensors:
                raise CorruptRecord(f"a tree refers to the tensor {str(told)[:80]!r}, which is not there")
            return self.tensors[told]
        if tag in _CONTAINERS:
            return _CONTAINERS[tag](self, told)
        made = recall_foreign(tag, told)
        if made is NOT_TOLD:
            raise CorruptRecord(f"a tree has the tag {tag[:40]!r}, which this release does not know")
        return made

    def _pairs(self, told: Any) -> list[tuple[Any, Any]]:
        return [(self.value(key), self.value(each)) for key, each in told]

    def _dict(self, told: Any) -> dict[Any, Any]:
        return dict(self._pairs(told))

    def _tuple(self, told: Any) -> tuple[Any, ...]:
        return tuple(self.value(each) for each in told)

    def _set(self, told: Any) -> set[Any]:
        return {self.value(each) for each in told}

    def _frozenset(self, told: Any) -> frozenset[Any]:
        return frozenset(self.value(each) for each in told)

    def _ordereddict(self, told: Any) -> Any:
        return collections.OrderedDict(self._pairs(told))

    def _defaultdict(self, told: Any) -> Any:
        factory, pairs = told
        return collections.defaultdict(_FACTORIES.get(factory), self._pairs(pairs))

    def _counter(self, told: Any) -> Any:
        return collections.Counter(dict(self._pairs(told)))

    def _deque(self, told: Any) -> Any:
        return collections.deque((self.value(each) for each in told[1]), maxlen=told[0])

    def _namespace(self, told: Any) -> Any:
        made = argparse.Namespace() if told[0] == "Namespace" else types.SimpleNamespace()
        vars(made).update(self._pairs(told[1]))
        return made

    def _slice(self, told: Any) -> slice:
        start, stop, step = (self.value(each) for each in told)
        return slice(start, stop, step)

    def _array(self, told: Any) -> Any:
        return to_array(self.tensors[told[0]], told[1])

    def _inline(self, told: Any) -> Any:
        dtype, shape, data = told
        tensor = Tensor(dtype, tuple(shape), memoryview(from_base64(data)))
        return tensor if self.inline is None else self.inline(tensor)

    def _enum(self, told: Any) -> Tagged:
        name, member, value = told
        return Tagged("enum", f"{name}.{member}", self.value(value))

    def _dataclass(self, told: Any) -> Tagged:
        return Tagged("dataclass", told[0], self._dict(told[1]))

    def _class(self, told: Any) -> Any:
        return resolve_class(told) or Tagged("class", told)

    def _function(self, told: Any) -> Tagged:
        return Tagged("function", told)

    def _partial(self, told: Any) -> Tagged:
        name, args, keywords = told
        return Tagged("partial", name, (self.value(args), self.value(keywords)))

    def _namedtuple(self, told: Any) -> Any:
        name, fields, items = told
        return named_tuple(name.rpartition(".")[2], fields)(*(self.value(each) for each in items))

    def _object(self, told: Any) -> Any:
        name, plain = told
        known = resolve_class(name)
        value = self.value(plain)
        return known(value) if known is not None and issubclass(known, dict) else value

    def _omegaconf(self, told: Any) -> Any:
        return to_config(self.value(told))

    def _marker(self, told: Any) -> Tagged:
        return Tagged(told[0], told[1], self.value(told[2]))

    def _untold(self, told: Any) -> Untold:
        return Untold(str(told[0]), str(told[1]))

    def _masked(self, told: Any) -> Masked:
        return Masked()


_CONTAINERS: dict[str, Callable[[_Reader, Any], Any]] = {
    "$array": _Reader._array,
    "$class": _Reader._class,
    "$counter": _Reader._counter,
    "$dataclass": _Reader._dataclass,
    "$defaultdict": _Reader._defaultdict,
    "$deque": _Reader._deque,
    "$dict": _Reader._dict,
    "$enum": _Reader._enum,
    "$frozenset": _Reader._frozenset,
    "$function": _Reader._function,
    "$inline": _Reader._inline,
    "$masked": _Reader._masked,
    "$namedtuple": _Reader._namedtuple,
    "$namespace": _Reader._namespace,
    "$object": _Reader._object,
    "$omegaconf": _Reader._omegaconf,
    "$ordereddict": _Reader._ordereddict,
    "$partial": _Reader._partial,
    "$set": _Reader._set,
    "$slice": _Reader._slice,
    "$tagged": _Reader._marker,
    "$tuple": _Reader._tuple,
    "$untold": _Reader._untold,
}
