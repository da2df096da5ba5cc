"""Promises of HTML: no text of a store becomes markup, and what a reader looks for is there."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import fromstring

import pytest
from hypothesis import given
from hypothesis import strategies as st
from neutral_store import files, make_store, snapshot

from mvc_callbacks.render import Cell
from mvc_callbacks.render_html import STYLE, element, markup, rows_table, shown, table
from mvc_callbacks.store import VersionStore

EVIL = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</style><script>alert(1)//",
    "</title></svg><iframe>",
    "<!--<script>",
    "&lt;script&gt;",
    "]]><b>",
    "\u202eevil\u2028\x00\x1b[31m",
)
OURS = {
    *("div", "style", "table", "thead", "tbody", "tr", "th", "td", "span", "details", "summary"),
    *("svg", "text", "g", "title", "path", "circle", "polygon"),
}
VOCABULARY = {"class", "open", "style", "data-version"} | {
    *("xmlns", "viewbox", "width", "height", "role", "font-family", "font-size", "x", "y", "fill", "d"),
    *("stroke", "stroke-width", "stroke-opacity", "stroke-dasharray", "cx", "cy", "r", "points"),
}


class Reader(HTMLParser):
    """Says what a browser would see."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((name, dict(attributes)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    reader.close()
    return reader


def is_plain(html: str) -> Reader:
    """Look that a view has no elements and attributes but ours, and nothing that is loaded or run."""
    seen = read(html)
    assert {name for name, _ in seen.elements} <= OURS
    for _, attributes in seen.elements:
        assert set(attributes) <= VOCABULARY
        assert re.fullmatch(r"(width: \d+px|margin-left: 2em)?", attributes.get("style") or "")
    assert "http" not in html.replace('xmlns="http://www.w3.org/2000/svg"', "")
    return seen


@given(st.text())
def test_any_text_is_the_content_of_its_element_only(text: str) -> None:
    seen = read(markup(element("td", text, Cell(text, "bad"), text, title=text)))
    assert [name for name, _ in seen.elements] == ["td", "span"]
    assert seen.text == 3 * (seen.elements[0][1]["title"] or "")
    assert seen.text.isprintable()


@pytest.mark.parametrize("evil", EVIL)
def test_heads_cells_and_looks_are_text(evil: str) -> None:
    look: Any = evil
    seen = read(markup(table([evil, "b"], [[evil, [Cell(evil, look), evil]]], right={evil})))
    assert {name for name, _ in seen.elements} <= OURS
    assert {str(value) for _, attributes in seen.elements for value in attributes.values()} <= {"mvc-right"}


def test_a_column_without_content_is_left_out_and_so_are_heads_without_names() -> None:
    assert read(markup(table(["a", "b"], [["1", ""], ["2", Cell("")]]))).text == "a12"
    assert "thead" not in markup(rows_table([["a", "1"]]))


def test_the_style_is_for_light_and_dark_and_for_nothing_else_on_the_page() -> None:
    assert "prefers-color-scheme: dark" in STYLE
    for line in re.sub(r"@media[^{]*", "", STYLE).splitlines():
        if "{" in line and not line.startswith(" "):
            assert all(".mvc" in each for each in line.split("{")[0].split(",") if each.strip())
    assert "url(" not in STYLE and "@import" not in STYLE
    assert markup(shown("x")).count("<style>") == 1


@pytest.fixture
def hostile(tmp_path: Path) -> VersionStore:
    """A store that a stranger wrote, with every text that can be theirs."""
    store, _ = make_store(tmp_path / "store")
    record = {
        "code": {"branch": EVIL[0], "commit": "c" * 40, EVIL[1]: EVIL[2]},
        "environment": {"packages": {each: each for each in EVIL}, EVIL[0]: EVIL[0]},
        "argv": list(EVIL),
    }
    run = store.open_run("stranger", framework="lightning", record=record)
    for place in range(2):
        run.commit(
            snapshot(50 + place),
            epoch=place,
            step=place,
            metrics={each: float(place) for each in EVIL},
            hyperparameters={"given": {each: [each, place] for each in EVIL}},
            data={EVIL[0]: files(store, {f"{each}{place}": each for each in EVIL if "\x00" not in each})},
        )
    for each in EVIL:
        store.note("stranger", each)
        store.promote("stranger", "production", why=each)
    store.evaluate("stranger", "test", {EVIL[1]: 0.5})
    store.prune("stranger/1", policy=EVIL[0])
    return store


def test_nothing_of_a_strangers_store_is_markup(hostile: VersionStore) -> None:
    views = (
        hostile._repr_html_(),
        hostile.versions()._repr_html_(),
        hostile.get("stranger")._repr_html_() or "",
        hostile.get("stranger/1")._repr_html_() or "",
        hostile.diff("stranger/1", "stranger")._repr_html_(),
        hostile.diff("baseline/3", "stranger", weights=True)._repr_html_(),
        hostile.lineage()._repr_html_(),
    )
    for view in views:
        assert is_plain(view).text.replace("\n", " ").isprintable()
    assert "<script>alert(1)</script>" in is_plain(views[2]).text  # it is shown, as text
    assert fromstring(hostile.lineage().svg).tag.endswith("svg")
