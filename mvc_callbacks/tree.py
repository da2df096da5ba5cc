"""Trees: any Python value as JSON with tags, made again without importing or running anything."""

from __future__ import annotations

import argparse
import collections
import dataclasses
import enum
import functools
import re
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mvc_callbacks import canonical
from mvc_callbacks.markers import Marker, Masked, Tagged, Untold, find_markers
from mvc_callbacks.tensors import Tensor
from mvc_callbacks.tree_foreign import NOT_TOLD, array_tensor, config_content, tell_foreign
from mvc_callbacks.tree_reader import decode
from mvc_callbacks.tree_tags import TELL, to_base64

__all__ = ["Encoded", "Marker", "Masked", "Tagged", "Untold", "decode", "encode", "find_markers"]

_DEEPEST = 80
_MOST_VALUES = 5_000_000  # [[[x, x], [x, x]], ...] holds few objects and tells as many values
_LARGE_ARRAY = 4096  # bytes, from which a numpy array is kept like a tensor
_SHOWN = 200
_SIZED = frozenset({str, bytes, bytearray, list, tuple, dict, set, frozenset})
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


@dataclass(frozen=True, slots=True)
class Encoded:
    """A value as a tree.

    Attributes:
        json: Plain JSON values with tags.
        tensors: Name to tensor, as ``{"$tensor": name}`` refers to them; large numpy arrays are neutral.
        untold: ``path: type`` of what could not be told.
    """

    json: Any
    tensors: dict[str, Any]
    untold: tuple[str, ...]


def encode(
    value: Any,
    *,
    is_tensor: Callable[[Any], bool],
    masked: Callable[[str, str, Any], bool] | None = None,
    cap: int | None = None,
    inline: Callable[[Any], Tensor] | None = None,
    keep_order: bool = True,
) -> Encoded:
    """Tell a value as a tree.

    None, booleans, integers, finite floats, text, lists, and dicts whose keys are sorted text that does not
    begin with ``$`` stay plain JSON. Everything else has a tag: an object whose only key begins with ``$``.
    Canonical JSON sorts keys, so a dict in any other order is told as ``{"$dict": [[key, value], ...]}``.

    Args:
        value: Anything.
        is_tensor: Tells whether something is a tensor to be kept as such.
        masked: Called with (dotted path, key, value) for each named value; True hides the value.
        cap: Most characters or bytes of one value; a longer one is untold. None is no limit.
        inline: Turns a tensor neutral; with it tensors lie in the tree itself, for small states only.
        keep_order: Without it a dict with sortable text keys is always a plain object.

    Returns:
        The tree, the tensors that it refers to, and what it could not tell.
    """
    encoder = _Encoder(is_tensor, masked, cap, inline, keep_order)
    return Encoded(encoder.tell(value, ""), encoder.tensors, tuple(encoder.untold))


class _Encoder:
    def __init__(
        self,
        is_tensor: Callable[[Any], bool],
        masked: Callable[[str, str, Any], bool] | None,
        cap: int | None,
        inline: Callable[[Any], Tensor] | None,
        keep_order: bool,
    ) -> None:
        self.is_tensor, self.masked, self.cap, self.inline = is_tensor, masked, cap, inline
        self.keep_order = keep_order
        self.tensors: dict[str, Any] = {}
        self.untold: list[str] = []
        self._open: set[int] = set()  # containers that are being told: meeting one again is a cycle
        self._left = _MOST_VALUES

    def tell(self, value: Any, path: str) -> Any:
        kind = type(value)
        self._left -= 1
        if self.cap is not None and kind in _SIZED and len(value) > self.cap:
            return self._give_up_long(value, path)
        if kind in TELL:
            try:
                return TELL[kind](value)
            except ValueError as error:  # a closed BytesIO, a Fraction of too many digits
                return self._give_up(value, path, f"{error}: ", show=False)
        if self.is_tensor(value):
            return self._tell_tensor(value, path)
        if isinstance(value, Marker):
            return self._tell_marker(value, path)
        if id(value) in self._open:
            return self._give_up(value, path, "a cycle: ", show=False)
        if len(self._open) >= _DEEPEST or self._left < 0:
            return self._give_up(value, path, "nested too deeply or too large: ", show=False)
        self._open.add(id(value))
        before = len(self.tensors)
        try:
            return self._tell_container(value, path)
        except Exception as error:  # properties, __iter__ and __getattr__ of user classes may raise anything
            for name in list(self.tensors)[before:]:
                del self.tensors[name]  # nothing refers to them
            return self._give_up(value, path, f"{type(error).__name__} while it was told: ", show=False)
        finally:
            self._open.discard(id(value))

    def _tell_container(self, value: Any, path: str) -> Any:
        kind = type(value)
        if kind is dict:
            return self._tell_dict(value, path)
        if kind is list:
            return self._tell_items(value, path)
        if kind in (tuple, set, frozenset):
            items = self._tell_items(value, path)
            return {f"${kind.__name__}": items if kind is tuple else sorted(items, key=canonical.encode)}
        if kind is collections.OrderedDict:
            return {"$ordereddict": self._tell_pairs(value, path)}
        if kind is collections.defaultdict:
            factory = None if value.default_factory is None else _name_of(value.default_factory)
            return {"$defaultdict": [factory, self._tell_pairs(value, path)]}
        if kind is collections.Counter:
            return {"$counter": self._tell_pairs(value, path)}
        if kind is collections.deque:
            return {"$deque": [value.maxlen, self._tell_items(value, path)]}
        if kind in (argparse.Namespace, types.SimpleNamespace):
            return {"$namespace": [kind.__name__, self._tell_pairs(vars(value), path)]}
        if kind is slice:
            return {"$slice": self._tell_items((value.start, value.stop, value.step), path)}
        return self._tell_named(value, path)

    def _tell_named(self, value: Any, path: str) -> Any:
        """Tell what is known by its class's name, and the subclasses of plain values."""
        kind = type(value)
        if isinstance(value, enum.Enum):
            return {"$enum": [_name_of(kind), value.name, self.tell(value.value, path)]}
        if isinstance(value, type):
            return {"$class": _name_of(value)}
        if isinstance(value, (types.FunctionType, types.BuiltinFunctionType, types.MethodType)):
            name = _name_of(value)
            if "<" in name:
                self.untold.append(f"{path}: {name}")
            return {"$function": name}
        if isinstance(value, functools.partial):
            parts = self._tell_items((value.args, value.keywords), path)
            return {"$partial": [_name_of(value.func), *parts]}
        if dataclasses.is_dataclass(value):
            names = [each.name for each in dataclasses.fields(value)]
            fields = {name: getattr(value, name) for name in names if hasattr(value, name)}
            return {"$dataclass": [_name_of(kind), self._tell_pairs(fields, path)]}
        large = array_tensor(value, _LARGE_ARRAY) if self.inline is None and self.cap is None else None
        if large is not None:
            return {"$array": [self._named(large, path), value.dtype.str]}
        if self.cap is not None and getattr(value, "nbytes", 0) > self.cap:
            return self._give_up(value, path, f"longer than {self.cap}: ")
        if (told := tell_foreign(value)) is not NOT_TOLD:
            return told
        if (content := config_content(value)) is not NOT_TOLD:
            return {"$omegaconf": self.tell(content, path)}
        return self._tell_subclass(value, path)

    def _tell_subclass(self, value: Any, path: str) -> Any:
        """Tell an instance of a subclass of a plain type by its plain value."""
        name = _name_of(type(value))
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return {"$namedtuple": [name, list(value._fields), self._tell_items(tuple(value), path)]}
        if isinstance(value, dict):
            return {"$object": [name, self._tell_dict(dict(value), path)]}
        plain: Any
        for plain in (list, tuple, set, frozenset, str, int, float, complex, bytes, bytearray):
            if isinstance(value, plain):
                return {"$object": [name, self.tell(plain(value), path)]}
        return self._give_up(value, path)

    def _tell_items(self, items: Any, path: str) -> list[Any]:
        return [
            self.tell(each, f"{path}.{index}" if path else str(index)) for index, each in enumerate(items)
        ]

    def _tell_dict(self, value: dict[Any, Any], path: str) -> Any:
        keys = list(value)
        plain = all(
            type(key) is str and not key.startswith("$") and (key.isascii() or _is_clean(key)) for key in keys
        )
        if plain and (not self.keep_order or keys == sorted(keys)):
            return {key: self._tell_at(key, each, path) for key, each in value.items()}
        return {"$dict": self._tell_pairs(value, path)}

    def _tell_pairs(self, value: dict[Any, Any], path: str) -> list[Any]:
        return [
            [self.tell(key, f"{path}.<key>"), self._tell_at(key, each, path)] for key, each in value.items()
        ]

    def _tell_at(self, key: Any, value: Any, path: str) -> Any:
        name = key if isinstance(key, str) else repr(key)[:80]
        where = f"{path}.{name}" if path else name
        if self.masked is not None and isinstance(key, str) and self.masked(where, key, value):
            return {"$masked": True}
        return self.tell(value, where)

    def _tell_tensor(self, value: Any, path: str) -> Any:
        if self.inline is None:
            return {"$tensor": self._named(value, path)}
        tensor = self.inline(value)
        return {"$inline": [tensor.dtype, list(tensor.shape), to_base64(tensor.data)]}

    def _named(self, value: Any, path: str) -> str:
        name = path = path.encode("utf-8", "backslashreplace").decode("utf-8")
        again = 1
        while name in self.tensors:  # {0: a, "0": b} and {"x.y": a, "x": {"y": b}} give equal paths
            again += 1
            name = f"{path}#{again}"
        self.tensors[name] = value
        return name

    def _tell_marker(self, value: Marker, path: str) -> Any:
        if isinstance(value, Masked):
            return {"$masked": True}
        if isinstance(value, Untold):
            return {"$untold": [value.type_name, value.text]}
        assert isinstance(value, Tagged)
        return {"$tagged": [value.kind, value.name, self.tell(value.value, path)]}

    def _give_up_long(self, value: Any, path: str) -> Any:
        why = f"{len(value)} long, more than the {self.cap} that are told: "
        if type(value) is str:  # two versions can still be compared
            why = f"{len(value)} long, sha256 {canonical.digest_of(value.encode('utf-8', 'surrogatepass'))}: "
        return self._give_up(value, path, why, show=type(value) in (str, bytes, bytearray))

    def _give_up(self, value: Any, path: str, why: str = "", *, show: bool = True) -> Any:
        name = _name_of(type(value))
        self.untold.append(f"{path}: {name}".encode("utf-8", "backslashreplace").decode("utf-8"))
        text = why
        if show:
            try:
                short = value[:_SHOWN] if isinstance(value, (str, bytes, bytearray)) else value
                text += _ADDRESS.sub("", repr(short))
            except Exception:  # a repr is user code
                text += "it has no repr"
        return {"$untold": [name, text[:_SHOWN].encode("utf-8", "backslashreplace").decode("utf-8")]}


def _name_of(thing: Any) -> str:
    module = getattr(thing, "__module__", None)
    name = (
        getattr(thing, "__qualname__", None) or getattr(thing, "__name__", None) or type(thing).__qualname__
    )
    text = f"{module}.{name}" if isinstance(module, str) else str(name)
    return text[:_SHOWN].encode("utf-8", "backslashreplace").decode("utf-8")


def _is_clean(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
