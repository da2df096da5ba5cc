"""Promises of the package as a whole: what importing it costs, which names it has, what is shipped."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import mvc_callbacks

FRAMEWORKS = ("torch", "lightning", "pytorch_lightning", "keras", "tensorflow", "jax", "numpy")
PACKAGE = Path(mvc_callbacks.__file__).parent
SOURCES = sorted(PACKAGE.glob("*.py"))


def modules_after(code: str) -> set[str]:
    """Run code in a Python of its own and say which modules it has then."""
    told = subprocess.run(
        [sys.executable, "-c", f"import sys, json\n{code}\nprint(json.dumps(sorted(sys.modules)))"],
        capture_output=True,
        text=True,
        check=True,
    )
    names: list[str] = json.loads(told.stdout.splitlines()[-1])
    return set(names)


def imported_by(code: str) -> set[str]:
    """Say which frameworks a piece of code imports."""
    return modules_after(code) & set(FRAMEWORKS)


def test_importing_the_package_imports_no_framework() -> None:
    assert imported_by("import mvc_callbacks") == set()


def test_importing_the_package_loads_no_other_module_of_it() -> None:
    assert {name for name in modules_after("import mvc_callbacks") if name.startswith("mvc_")} == {
        "mvc_callbacks"
    }


@pytest.mark.parametrize("name", mvc_callbacks.__all__)
def test_using_a_public_name_imports_no_framework(name: str) -> None:
    assert imported_by(f"import mvc_callbacks; mvc_callbacks.{name}") == set()


def test_the_command_line_starts_without_a_framework() -> None:
    assert imported_by("import mvc_callbacks.cli") == set()


def test_mvc_log_imports_no_framework(tmp_path: Path) -> None:
    code = f"""
import mvc_callbacks.cli
sys.argv = ["mvc", "log", "--store", {str(tmp_path / "none")!r}]
try:
    mvc_callbacks.cli.main()
except SystemExit:
    pass
"""
    assert imported_by(code) == set()


def test_the_file_system_protocol_imports_no_framework_and_is_registered_under_its_name() -> None:
    pytest.importorskip("fsspec")
    [entry] = importlib.metadata.entry_points(group="fsspec.specs", name="mvc")
    module, _, attribute = entry.value.partition(":")
    assert hasattr(importlib.import_module(module), attribute)
    assert imported_by(f"import {module}") == set()


def test_every_public_name_is_there_and_listed() -> None:
    assert set(mvc_callbacks.__all__) <= set(dir(mvc_callbacks))
    for name in mvc_callbacks.__all__:
        assert getattr(mvc_callbacks, name) is not None
    assert set(mvc_callbacks._HOMES) == set(mvc_callbacks.__all__)


def test_an_unknown_name_is_an_attribute_error_that_names_it() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = mvc_callbacks.no_such_name
    assert not hasattr(mvc_callbacks, "__wrapped__")  # what inspect and pytest ask modules for


def public_names(source: Path) -> list[str] | None:
    """Read a module's ``__all__`` without importing it: a room's framework may not be installed."""
    for node in ast.parse(source.read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            value: list[str] = ast.literal_eval(node.value)
            return value
    return None


def in_ruffs_order(name: str) -> tuple[int, str]:
    """Constants first, then classes, then the rest (RUF022)."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_every_module_lists_its_public_names_in_order(source: Path) -> None:
    names = public_names(source)
    assert names is not None, f"{source.name} has no __all__"
    assert names == sorted(names, key=in_ruffs_order)
    assert not [name for name in names if name.startswith("_")]


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_every_module_says_what_it_is_and_is_no_longer_than_one_noun(source: Path) -> None:
    text = source.read_text("utf-8")
    assert ast.get_docstring(ast.parse(text))
    assert len(text.splitlines()) <= 450


def test_type_information_is_shipped() -> None:
    assert (PACKAGE / "py.typed").is_file()


def test_the_version_is_the_installed_one() -> None:
    assert mvc_callbacks.__version__ == importlib.metadata.version("mvc-callbacks")
    assert re.fullmatch(r"\d+\.\d+\.\d+", mvc_callbacks.__version__)


def test_no_framework_is_a_dependency_of_the_core() -> None:
    needed = [line for line in importlib.metadata.requires("mvc-callbacks") or [] if "extra ==" not in line]
    names = {re.split(r"[^A-Za-z0-9_.-]", line)[0].lower() for line in needed}
    assert names <= {"click", "safetensors", "tinydb", "typing-extensions", "typing_extensions"}
