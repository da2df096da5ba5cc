"""Promises of markup: no text of a store becomes markup, in an element, an attribute or a script."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvc_callbacks.markup import Markup, escaped, joined, json_text, tag

EVIL = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</script><script>alert(1)//",
    "<!--<script>",
    "&lt;script&gt;",
    "]]><b>",
    "\u202eevil\u2028\x00\x1b[31m",
)


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


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    reader.close()
    return reader


@pytest.mark.parametrize("evil", EVIL)
def test_text_in_an_element_or_an_attribute_is_no_markup(evil: str) -> None:
    seen = read(tag("p", evil, title=evil, data_name=evil))
    shown = seen.text
    assert seen.elements == [("p", {"title": shown, "data-name": shown})]
    assert shown.isprintable()
    assert evil.isprintable() is (shown == evil)


@given(st.text())
def test_any_text_is_the_content_of_its_element_only(text: str) -> None:
    seen = read(tag("td", text, title=text))
    assert [name for name, _ in seen.elements] == ["td"]
    assert seen.elements[0][1] == {"title": seen.text}


@given(
    st.recursive(
        st.text() | st.integers() | st.none(), lambda each: st.lists(each) | st.dictionaries(st.text(), each)
    )
)
def test_json_in_a_script_ends_no_script_and_says_the_same(value: Any) -> None:
    told = json_text(value)
    assert not set(told) & set("<>&\u2028\u2029") and told.isascii()
    assert json.loads(told) == value


def test_numbers_that_json_lacks_are_texts() -> None:
    told = json.loads(json_text({"a": [float("nan"), float("inf"), -float("inf"), 0.0, 1e308]}))
    assert told == {"a": ["nan", "inf", "-inf", 0.0, 1e308]}


def test_elements_nest_and_attributes_may_be_left_out() -> None:
    inner = tag("b", "1 < 2", hidden=True, class_="x", lang=None, draggable=False)
    assert inner == '<b hidden class="x">1 &lt; 2</b>'
    assert tag("p", inner, None, " & ", 3) == f"<p>{inner} &amp; 3</p>"
    assert tag("br") == "<br>"
    assert joined(inner, "<", between=", ") == f"{inner}, &lt;"
    assert escaped("long" * 10, 5) == "long…"
    assert isinstance(escaped(inner), Markup) and escaped(inner) is inner


@pytest.mark.parametrize("name", ["", "a b", "x>", "on/", "é"])
def test_a_name_that_could_be_more_than_a_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no name"):
        tag(name)
    with pytest.raises(ValueError, match="no name"):
        tag("p", **{name: 1})
