"""Every known kind of bad input has its line in the documents, and tests that carry its number."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

TESTS = Path(__file__).parent
ROOT = TESTS.parent
LINES = range(1, 71)
_NAME = re.compile(r"test_bad_input_((?:\d+_)+)[a-z]")
_ROW = re.compile(r"^\| (\d+) \| .+ \| .+ \| (.+) \|$", re.MULTILINE)


def _tests() -> dict[int, set[str]]:
    """Return the files of the tests of each number."""
    found: dict[int, set[str]] = defaultdict(set)
    for path in sorted(TESTS.rglob("test_*.py")):
        for each in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(each, ast.FunctionDef) and each.name.startswith("test_bad_input"):
                match = _NAME.match(each.name)
                assert match, f"{path.name}: {each.name} has no number"
                for number in match[1].strip("_").split("_"):
                    found[int(number)].add(path.name)
    return found


def test_every_number_has_a_test() -> None:
    assert sorted(_tests()) == list(LINES)


def test_every_number_has_its_line_which_names_where_it_is_tested() -> None:
    tests = _tests()
    rows = _ROW.findall((ROOT / "docs/bad-inputs.md").read_text("utf-8"))
    assert [int(number) for number, _ in rows] == list(LINES)
    for number, where in rows:
        named = set(re.findall(r"`([\w.]+)`", where))
        assert named and named <= tests[int(number)], f"line {number} of docs/bad-inputs.md"


def test_the_torture_session_and_the_documents_name_tests_that_are_there() -> None:
    session = (ROOT / "noxfile.py").read_text("utf-8").partition("def torture")[2]
    names = re.search(r"names = \(([^)]+)\)", session)
    assert names is not None
    tortured = {f"test_{name}.py" for name in re.findall(r'"(\w+)"', names[1])}
    assert {path.name for path in (TESTS / "store").glob("test_*.py")} >= tortured >= {"test_faults.py"}
    there = {path.name for path in TESTS.rglob("*.py")}
    for document in ("docs/reliability.md", "docs/bad-inputs.md", "SECURITY.md"):
        text = (ROOT / document).read_text("utf-8")
        assert set(re.findall(r"\b(test_\w+\.py)", text)) <= there, document
