"""The source text of a class, also of one that was defined in a notebook."""

from __future__ import annotations

import ast
import hashlib
import inspect
import linecache
import os
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import CodeType
from typing import Any

__all__ = ["file_of", "tell_source"]

LARGEST = 100_000
_LIBRARIES = ("site-packages", "dist-packages")


def tell_source(thing: Any) -> dict[str, Any]:
    """Tell the source of a class and of its own bases, as plain JSON values.

    Args:
        thing: A class, a function, or an instance of a class.

    Returns:
        ``class``, ``how`` (``inspect``, ``linecache`` or ``history``), ``text`` (cut after `LARGEST`
        characters, with ``capped``), ``sha256`` of the whole text, and ``file``; or ``class`` and ``why``
        there is none.
    """
    target = thing if isinstance(thing, type) or inspect.isroutine(thing) else type(thing)
    told: dict[str, Any] = {
        "class": f"{target.__module__}.{getattr(target, '__qualname__', target.__name__)}"
    }
    texts: list[str] = []
    how = ""
    for each in _own(target):
        found = _find(each)
        if found is not None and found[1] not in texts:
            how = how or found[0]
            texts.append(found[1])
    if not texts:
        return {
            **told,
            "why": "its source was not found: it is part of a library, or was made without a file or a cell",
        }
    text = "\n\n".join(texts).encode("utf-8", "backslashreplace").decode("utf-8")
    told.update(how=how, text=text[:LARGEST], sha256=hashlib.sha256(text.encode("utf-8")).hexdigest())
    if len(text) > LARGEST:
        told["capped"] = True
    notebook = os.environ.get("JPY_SESSION_NAME")
    file = file_of(target)
    if file is not None or notebook:
        told["file"] = str(file or notebook)
    return told


def file_of(thing: Any) -> Path | None:
    """Return the file of a class or function; None for those of a notebook, a library or Python itself."""
    try:
        path = Path(inspect.getsourcefile(thing) or "")
    except (TypeError, OSError):
        return None
    return (
        path.resolve() if path.is_file() and not _is_library(path) and "ipykernel_" not in str(path) else None
    )


def _is_library(path: Path) -> bool:
    standard = Path(sysconfig.get_paths()["stdlib"])
    return any(part in _LIBRARIES for part in path.parts) or standard in path.parents


def _own(target: Any) -> Iterator[Any]:
    """Go through a class and its bases, leaving out what is part of a library."""
    for each in target.__mro__ if isinstance(target, type) else (target,):
        module = sys.modules.get(each.__module__)
        file = getattr(module, "__file__", None)
        if each.__module__ == "__main__" or (file is not None and not _is_library(Path(file))):
            yield each


def _find(target: Any) -> tuple[str, str] | None:
    ways = (_from_cell, _from_history, _from_file) if _is_interactive(target) else (_from_file, _from_cell)
    for way in ways:
        found = way(target)
        if found:
            return found
    return None


def _is_interactive(target: Any) -> bool:
    return target.__module__ == "__main__" and not hasattr(sys.modules.get("__main__"), "__file__")


def _from_file(target: Any) -> tuple[str, str] | None:
    try:
        return "inspect", inspect.getsource(target)
    except (OSError, TypeError, IndentationError, SyntaxError):
        return None


def _from_cell(target: Any) -> tuple[str, str] | None:
    """Find the cell by the code of a method: before 3.13 Python does not know where a class is from."""
    for code in _codes(target):
        lines = linecache.getlines(code.co_filename)
        text = _class_text("".join(lines), target.__name__, code.co_firstlineno) if lines else None
        if text:
            return "linecache", text
    return None


def _codes(target: Any) -> Iterator[CodeType]:
    for each in vars(target).values() if isinstance(target, type) else (target,):
        function = inspect.unwrap(
            getattr(each, "__func__", getattr(each, "fget", each)), stop=lambda _: False
        )
        code = getattr(function, "__code__", None)
        if isinstance(code, CodeType):
            yield code


def _from_history(target: Any) -> tuple[str, str] | None:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    cells: Sequence[str] = list(shell.user_ns.get("In", ())) if shell is not None else ()
    for cell in reversed(cells):
        text = _class_text(cell, target.__name__, None) if target.__name__ in cell else None
        if text:
            return "history", text
    return None


def _class_text(source: str, name: str, line: int | None) -> str | None:
    """Return the text of the class or function of that name, the one around the line where it is known."""
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except (SyntaxError, ValueError, RecursionError):
        return source if line is not None else None  # the whole cell is better than nothing
    for node in nodes:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and node.name == name:
            first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
            last = node.end_lineno or node.lineno
            if line is None or first <= line <= last:
                return "\n".join(source.splitlines()[first - 1 : last]) + "\n"
    return None
