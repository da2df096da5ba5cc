"""Promises of reports: one file that needs nothing, says what the store says, and makes no text markup."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from neutral_store import make_store, snapshot
from report_values import many_versions

from mvc_callbacks import reporting
from mvc_callbacks.cli import mvc
from mvc_callbacks.errors import UnknownRef, UnsafeFile
from mvc_callbacks.render_curves import curve_svg
from mvc_callbacks.render_html import element, markup
from mvc_callbacks.render_page import asset, json_text, page_text
from mvc_callbacks.render_report import report_text
from mvc_callbacks.report import Comparisons
from mvc_callbacks.storage import storage
from mvc_callbacks.store import VersionStore

EVIL = '</script><script>alert(1)</script><img src=x onerror="alert(1)"><!--'
VOID = {"link", "meta", "input", "br"}


class Reader(HTMLParser):
    """Says what a browser would make of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inside: dict[str, list[str]] = {"script": [], "style": []}
        self._open: list[str] = []

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((name, dict(attributes)))
        if name not in VOID:
            self._open.append(name)

    def handle_endtag(self, name: str) -> None:
        assert self._open.pop() == name

    def handle_data(self, text: str) -> None:
        if self._open and self._open[-1] in self.inside:
            self.inside[self._open[-1]].append(text)

    def close(self) -> None:
        super().close()
        assert self._open == []


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    reader.close()
    return reader


def data_of(text: str) -> Any:
    return json.loads("".join(read(text).inside["script"][:1]))


@pytest.fixture
def store(tmp_path: Path) -> VersionStore:
    return make_store(tmp_path / "store")[0]


# --- the file ---


def test_a_report_is_one_file_that_is_replaced_by_the_next(
    store: VersionStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    before = sorted(store.path.rglob("*"))
    for _ in range(2):
        result = CliRunner().invoke(mvc, ["report", "--store", str(store.path)])
        assert result.exit_code == 0, result.output
        assert result.stdout.startswith("report.html: ")
    assert [each.name for each in Path.cwd().iterdir()] == ["report.html"]
    assert sorted(store.path.rglob("*")) == before
    told = json.loads(CliRunner().invoke(mvc, ["report", "--json", "--store", str(store.path)]).stdout)
    assert told == {
        "file": str(Path.cwd() / "report.html"),
        "bytes": Path("report.html").stat().st_size,
    }


def test_a_file_that_is_no_report_is_not_replaced_unless_that_is_asked_for(
    store: VersionStore, tmp_path: Path
) -> None:
    target = tmp_path / "mine.html"
    target.write_text("mine")
    with pytest.raises(FileExistsError):
        store.report(target)
    assert target.read_text() == "mine"
    assert store.report(target, overwrite=True) == target
    assert store.report(target) == target


def test_a_report_is_never_written_into_a_store_or_over_a_folder(store: VersionStore, tmp_path: Path) -> None:
    with pytest.raises(UnsafeFile, match="inside the store"):
        store.report(store.path / "report.html")
    with pytest.raises(UnsafeFile, match="not a regular file"):
        store.report(tmp_path)
    with pytest.raises(FileNotFoundError):
        store.report(tmp_path / "none" / "report.html")


def test_a_report_of_some_runs_says_what_is_left_out(store: VersionStore, tmp_path: Path) -> None:
    text = store.report(tmp_path / "report.html", runs=["finetune"]).read_text("utf-8")
    told = data_of(text)
    assert [each["name"] for each in told["versions"]] == ["finetune/1", "finetune/2"]
    assert told["versions"][0]["parents"] == [["baseline/2", "resume"]]
    assert "3 versions of other runs left out" in text
    with pytest.raises(UnknownRef, match="runs: baseline, finetune"):
        store.report(tmp_path / "report.html", runs=["finetun"])


def test_a_store_without_a_version_has_a_report_too(tmp_path: Path) -> None:
    store = VersionStore(tmp_path / "store")
    store.open_run("empty", framework="torch", record={})
    text = store.report(tmp_path / "report.html").read_text("utf-8")
    assert "There is no version yet." in text
    read(text)


def test_what_is_damaged_is_told_and_the_rest_is_shown(store: VersionStore, tmp_path: Path) -> None:
    hurt = store.get("baseline/3")
    for folder, identity in (("versions", hurt.id), ("manifests", hurt.weights.digest)):
        (store.path / folder / identity[:2] / f"{identity}.json").write_text("{}")
    listing = store.get("finetune/1").data["train"].listing
    assert listing is not None
    (store.path / "objects" / listing[:2] / f"{listing}.jsonl").unlink()
    told = data_of(store.report(tmp_path / "report.html").read_text("utf-8"))
    by_name = {each["name"]: each for each in told["versions"]}
    assert "changed" in by_name["baseline/3"]["trouble"] and by_name["baseline/3"]["why"] == "damaged"
    assert by_name["finetune/2"]["trouble"] is None and by_name["finetune/2"]["weights"] is not None
    assert told["files"][by_name["finetune/2"]["data"]["train"][1]] is None


# --- what is in it ---


def test_the_policy_names_this_style_and_this_script_and_nothing_else(
    store: VersionStore, tmp_path: Path
) -> None:
    text = store.report(tmp_path / "report.html").read_text("utf-8")
    page = read(text)
    [policy] = [each["content"] for name, each in page.elements if each.get("http-equiv")]
    assert policy is not None
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'"
    for rule, name in (("script-src", "report.js"), ("style-src", "report.css")):
        digest = base64.b64encode(hashlib.sha256(asset(name).encode()).digest()).decode()
        assert rules[rule] == f"'sha256-{digest}'"
    assert page.inside["style"] == [asset("report.css")]
    assert page.inside["script"][1:] == [asset("report.js")]
    for name, attributes in page.elements:
        assert not [each for each in attributes if each.startswith("on") or each == "style"], name
        assert not [each for each in ("src", "action", "data", "formaction") if each in attributes], name
        assert re.match(r"#|data:,$|$", attributes.get("href") or ""), name


def test_no_text_of_a_store_becomes_markup(tmp_path: Path) -> None:
    store = VersionStore(tmp_path / "store")
    record = {"code": {"branch": EVIL}, "environment": {EVIL: [EVIL]}}
    for label in ("first", "second"):
        run = store.open_run(label, framework="torch", record=record)
        run.commit(snapshot(1), metrics={EVIL: 1.0}, hyperparameters={"given": {EVIL: EVIL}}, flags=(EVIL,))
    harmless = read(report_text(many_versions(runs=1, each=1, tensors=1)))
    store.note("first", EVIL)
    store.promote("first", "production", why=EVIL)
    store.prune("second", policy=EVIL)
    text = store.report(tmp_path / f"{EVIL[:9].replace('/', '')}.html").read_text("utf-8")
    page = read(text)
    kinds = {name for name, _ in page.elements}
    assert kinds - {name for name, _ in harmless.elements} <= {"h3", "s"}
    assert len(page.inside["script"]) == 2
    [version, _] = data_of(text)["versions"]
    assert version["notes"][0][0] == EVIL and EVIL in version["metrics"]


@given(
    st.recursive(
        st.text() | st.integers() | st.none(), lambda each: st.dictionaries(st.text(), each) | st.lists(each)
    )
)
def test_json_in_a_script_ends_no_script_and_says_the_same(value: Any) -> None:
    told = json_text(value)
    assert not set(told) & set("<>&\u2028\u2029") and told.isascii()
    assert json.loads(told) == value


def test_numbers_that_json_lacks_are_texts() -> None:
    assert json.loads(json_text([float("nan"), float("inf"), -float("inf"), 0.0])) == [
        "nan",
        "inf",
        "-inf",
        0.0,
    ]


@pytest.mark.parametrize("bad", ["</SCRIPT >", "a<!--b"])
def test_a_script_that_would_end_itself_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="end its own script"):
        page_text("title", [], style="", script=bad, data=None)


def test_a_value_is_told_once_however_many_versions_have_it() -> None:
    report = many_versions(runs=3, each=20, tensors=50)
    told = data_of(report_text(report))
    assert len(told["facts"]) == 4 and len(told["forms"]) == 1
    assert len(told["fingerprints"]) == 1
    assert len({number for _, numbers in told["weights"] for number in numbers}) == 3 * 20 * 50 - 2


def test_two_values_are_the_same_only_if_they_are() -> None:
    compared = Comparisons()
    values = [1, 1.0, True, "1", None, "None", float("nan")]
    numbers = [compared.facts[compared.add_facts({"x": each})]["x"] for each in [*values, *values]]
    assert numbers[: len(values)] == numbers[len(values) :]
    assert len(set(numbers)) == len(values)


def test_what_is_too_much_for_a_page_is_left_out_and_told(
    store: VersionStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.promote("baseline/1", "production")
    monkeypatch.setattr(reporting, "MOST_TENSORS", 6)
    monkeypatch.setattr(reporting, "MOST_APART", 0)
    told = data_of(store.report(tmp_path / "report.html").read_text("utf-8"))
    left_out = [each["name"] for each in told["versions"] if each["why"] == "too many"]
    assert left_out == ["baseline/2", "baseline/3", "finetune/1"], "an alias and the best come first"
    assert told["files"] == [None, None]


def test_only_files_that_differ_between_versions_are_told(store: VersionStore, tmp_path: Path) -> None:
    told = data_of(store.report(tmp_path / "report.html").read_text("utf-8"))
    assert sorted(map(sorted, told["files"])) == [["a/0.png"], ["a/0.png", "c/0.png"]]


def test_a_patch_is_named_and_its_text_stays_in_the_store(store: VersionStore, tmp_path: Path) -> None:
    patch = store.put_patch(
        b"diff --git a/model.py b/model.py\n--- a/model.py\n+++ b/model.py\n@@ -1 +1 @@\n-a\n+secret\n"
    )
    run = store.open_run("patched", framework="torch", record={"code": {"commit": "c" * 40, "patch": patch}})
    run.commit(snapshot(9))
    text = store.report(tmp_path / "report.html").read_text("utf-8")
    told = data_of(text)
    facts = told["facts"][told["versions"][-1]["code"]]
    assert told["values"][facts["not committed: model.py"]] == "+1 -1"
    assert "secret" not in text


# --- storage and curves ---


def test_what_a_run_has_of_its_own_is_what_deleting_it_frees(tmp_path: Path) -> None:
    store = VersionStore(tmp_path / "store")
    for label in ("first", "second"):
        run = store.open_run(label, framework="torch", record={})
        for number in range(3):
            run.commit(snapshot(number if label == "first" else 10 * number))
    store.prune("second/2")
    first, second = storage(store._layout, store.versions())
    assert (second.run, second.versions, second.kept) == ("second", 3, 2)
    assert 0 < second.own_bytes < second.held_bytes < second.logical_bytes
    assert store.delete_run("second").freed_bytes == second.own_bytes
    [first] = storage(store._layout, store.versions())
    assert first.held_bytes == first.own_bytes


def test_a_curve_leaves_out_what_is_no_number_and_joins_runs_to_where_they_began() -> None:
    report = many_versions(runs=3, each=10)
    known = {each.id: each for each in report.versions}
    runs = {"run-0": 0, "run-1": 1, "run-2": 2}
    options: dict[str, Any] = {"axis": "step", "runs": runs, "known": known, "best": {}}
    svg = curve_svg("val_loss", report.versions, **options)
    assert svg is not None
    assert len(svg.findall("polyline")) == 3 and len(svg.findall("path[@class]")) == 1
    assert svg.get("data-log") is None and "30 versions of 3 runs" in str(svg.get("aria-label"))
    rates = curve_svg("lr", many_versions(runs=1, each=60).versions, **options)
    assert rates is not None and rates.get("data-log") is not None, (
        "six decades are drawn by their logarithms"
    )
    assert curve_svg("nothing", report.versions, **options) is None
    for values in ([float("nan")], [float("inf"), 1.0], [0.0], [-1.7e308, 1.7e308], [5e-324, 1.0]):
        odd = list(report.versions[: len(values)])
        for version, value in zip(odd, values, strict=True):
            version.metrics["odd"] = value  # type: ignore[index]
        drawn = curve_svg("odd", odd, **options)
        assert drawn is None or not re.search(r"nan|inf", markup(element("p", drawn.findall("polyline"))))
