"""Values of numpy, torch, OmegaConf and Lightning in a tree, told without importing any of them."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import Any

from mvc_callbacks.markers import Tagged, find_markers
from mvc_callbacks.tensors import Tensor
from mvc_callbacks.tree_tags import from_base64, to_base64

__all__ = [
    "KNOWN_CLASSES",
    "NOT_TOLD",
    "array_tensor",
    "config_content",
    "recall_foreign",
    "resolve_class",
    "tell_foreign",
    "to_array",
    "to_config",
]

NOT_TOLD = object()
"""Answer of `tell_foreign` for what it does not know."""

KNOWN_CLASSES = frozenset(
    {
        *(f"builtins.{name}" for name in ("bool", "bytes", "complex", "dict", "float", "int", "list")),
        *(f"builtins.{name}" for name in ("object", "set", "str", "tuple")),
        "omegaconf.dictconfig.DictConfig",
        "omegaconf.listconfig.ListConfig",
        "lightning.fabric.utilities.data.AttributeDict",
        "lightning_fabric.utilities.data.AttributeDict",
    }
)
"""Harmless classes that come back as themselves where their module is imported already."""

_PLAIN_DTYPE = re.compile(r"[<>|=][biufcmMSU]\d{1,6}(\[[0-9A-Za-z/]{1,12}\])?")
_TENSOR_DTYPES = {
    "|b1": "BOOL",
    "|u1": "U8",
    "|i1": "I8",
    **{f"<u{size}": f"U{size * 8}" for size in (2, 4, 8)},
    **{f"<i{size}": f"I{size * 8}" for size in (2, 4, 8)},
    **{f"<f{size}": f"F{size * 8}" for size in (2, 4, 8)},
    "<c8": "C64",
    "<c16": "C128",
}


def tell_foreign(value: Any) -> Any:
    """Tell a small numpy array or scalar, a torch dtype, device or size; else return `NOT_TOLD`."""
    module, name = type(value).__module__, type(value).__name__
    root = module.partition(".")[0]
    if root == "numpy":
        return _tell_numpy(value)
    if module == "torch" and name in ("dtype", "device"):
        return {"$torch": [name, str(value).removeprefix("torch.")]}
    if module == "torch" and name == "Size":
        return {"$torch": [name, [int(axis) for axis in value]]}
    return NOT_TOLD


def _tell_numpy(value: Any) -> Any:
    import numpy as np

    if type(value) is np.ndarray or type(value) is np.memmap or isinstance(value, np.generic):
        dtype = value.dtype.str
        if not _PLAIN_DTYPE.fullmatch(dtype):
            return NOT_TOLD  # objects, records, and extension types such as ml_dtypes.bfloat16 ("<V2")
        told = {"dtype": dtype, "data": to_base64(value.tobytes())}
        if isinstance(value, np.generic):
            return {"$npscalar": told}
        return {"$numpy": {**told, "shape": list(value.shape)}}
    if isinstance(value, np.dtype) and _PLAIN_DTYPE.fullmatch(value.str):
        return {"$npdtype": value.str}
    return NOT_TOLD


def array_tensor(value: Any, smallest: int) -> Tensor | None:
    """Return a large numpy array as a neutral tensor, without a copy where it is contiguous; else None."""
    if type(value).__module__.partition(".")[0] != "numpy" or getattr(value, "nbytes", 0) < smallest:
        return None
    import numpy as np

    if not isinstance(value, np.ndarray) or type(value) not in (np.ndarray, np.memmap):
        return None
    dtype = _TENSOR_DTYPES.get(value.dtype.str)
    if dtype is None:
        return None
    flat: Any = np.ascontiguousarray(value).reshape(-1).view(np.uint8)
    return Tensor(dtype, tuple(value.shape), memoryview(flat))


def to_array(value: Any, dtype: str) -> Any:
    """Return a stored tensor as a numpy array of its own, or as a marker where numpy is not installed."""
    if not isinstance(value, Tensor):
        return (value.numpy() if hasattr(value, "numpy") else value).copy()
    return _array(dtype, value.shape, value.data)


def _array(dtype: str, shape: Any, data: Any) -> Any:
    if not _PLAIN_DTYPE.fullmatch(dtype):
        raise ValueError("not a dtype that is told")
    try:
        import numpy as np
    except ImportError:
        return Tagged("numpy", dtype, list(shape))
    return np.frombuffer(data, dtype=np.dtype(dtype)).reshape(tuple(shape)).copy()


def _scalar(dtype: str, data: bytes) -> Any:
    array = _array(dtype, (), data)
    return array if isinstance(array, Tagged) else array[()]


def recall_foreign(tag: str, told: Any) -> Any:
    """Make again what `tell_foreign` told: `NOT_TOLD` for other tags, a marker without the library."""
    if tag == "$numpy":
        return _array(told["dtype"], told["shape"], from_base64(told["data"]))
    if tag == "$npscalar":
        return _scalar(told["dtype"], from_base64(told["data"]))
    if tag == "$npdtype":
        array = _array(told, (0,), b"")
        return array if isinstance(array, Tagged) else array.dtype
    if tag == "$torch":
        return _recall_torch(*told)
    return NOT_TOLD


def _recall_torch(kind: str, told: Any) -> Any:
    torch = sys.modules.get("torch")
    if kind == "Size":
        return tuple(told) if torch is None else torch.Size(told)
    if torch is not None and kind == "device":
        return torch.device(told)
    if torch is not None and kind == "dtype" and isinstance(vars(torch).get(told), torch.dtype):
        return vars(torch)[told]  # not getattr, which imports submodules
    return Tagged("torch", f"torch.{kind}", told)


def resolve_class(name: str) -> type | None:
    """Return a class of `KNOWN_CLASSES` if its module is imported already; anything else is None."""
    if name not in KNOWN_CLASSES:
        return None
    module, _, attribute = name.rpartition(".")
    found = getattr(sys.modules.get(module), attribute, None)
    return found if isinstance(found, type) else None


def config_content(value: Any) -> Any:
    """Return an OmegaConf container as plain containers, or `NOT_TOLD` for anything else.

    Interpolations are resolved, as later they would be by whatever is registered then. Where that fails they
    stay text.
    """
    omegaconf = sys.modules.get("omegaconf")
    if omegaconf is None or not isinstance(value, (omegaconf.DictConfig, omegaconf.ListConfig)):
        return NOT_TOLD
    try:
        return omegaconf.OmegaConf.to_container(value, resolve=True)
    except Exception:  # a custom resolver is the user's code
        return omegaconf.OmegaConf.to_container(value, resolve=False)


def to_config(content: Any) -> Any:
    """Return plain containers as an OmegaConf container where that is imported already, else as they are."""
    omegaconf = sys.modules.get("omegaconf")
    if omegaconf is None or next(find_markers(content), None) is not None:
        return content
    try:
        return omegaconf.OmegaConf.create(_escaped(content), flags={"allow_objects": True})
    except Exception:  # whatever OmegaConf does not take; the plain containers hold the same values
        return content


def _escaped(content: Any) -> Any:
    # "${...}" in stored text must not become an interpolation, which may call a resolver.
    if isinstance(content, str):
        return content.replace("${", "\\${")
    if isinstance(content, Mapping):
        return {key: _escaped(each) for key, each in content.items()}
    if isinstance(content, list):
        return [_escaped(each) for each in content]
    return content
