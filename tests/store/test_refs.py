"""Promises of refs and names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvc_callbacks.errors import BadName
from mvc_callbacks.refs import Ref, check_digest, check_name, parse_ref


@pytest.mark.parametrize(
    ("text", "ref"),
    [
        ("latest", Ref("latest")),
        ("best", Ref("best")),
        ("best:acc", Ref("best", metric="acc")),
        ("best:acc:max", Ref("best", metric="acc", mode="max")),
        ("best:val/acc:1:min", Ref("best", metric="val/acc:1", mode="min")),
        ("base", Ref("name", "base")),
        ("base/3", Ref("name", "base", number=3)),
        ("base/latest", Ref("name", "base")),
        ("base/best", Ref("best", "base")),
        ("base/best:acc:max", Ref("best", "base", metric="acc", mode="max")),
        ("3fa9", Ref("id", "3fa9")),
        ("3FA9", Ref("id", "3fa9")),
        ("latest~", Ref("latest", up=1)),
        ("latest~2", Ref("latest", up=2)),
        ("base/3~1~2", Ref("name", "base", number=3, up=3)),
    ],
)
def test_each_form_of_a_ref_is_understood(text: str, ref: Ref) -> None:
    assert parse_ref(text) == ref


@pytest.mark.parametrize(
    "text",
    ["", " ", "~1", "abc", "a" * 65 + "b" * 10, "best:", "base/", "base/x", "base/-1", "base/3/4", "latest~x",
     "latest~-1", "latest~" + "9" * 40, "base/" + "9" * 40, "a b", "/abs", "../x", "..", "x\0y", "x\ny", "-x",
     "best:\ud800~y", "b\u00e9"],
)  # fmt: skip
def test_what_has_no_form_of_a_ref_is_refused(text: str) -> None:
    with pytest.raises(BadName):
        parse_ref(text)


@pytest.mark.parametrize("value", [None, 3, b"latest"])
def test_a_ref_is_text(value: object) -> None:
    with pytest.raises(BadName):
        parse_ref(value)  # type: ignore[arg-type]


@given(st.text(max_size=80))
def test_any_text_is_a_ref_or_refused(text: str) -> None:
    try:
        assert parse_ref(text).up >= 0
    except BadName as error:
        assert len(str(error)) < 1000


@pytest.mark.parametrize(
    "name",
    ["", "../x", "/abs", "a/b", "a\\b", "x\0", "CON", "con.txt", "aux", "COM1", "nul", "lpt9.x", "latest",
     "Best", "abc123", "DEAD", "1234", ".hidden", "-x", "x.", "a" * 65, "é", "a b", "x\n", "a:b", "a~1"],
)  # fmt: skip
def test_bad_input_19_a_name_that_something_could_take_for_another_thing_is_refused(name: str) -> None:
    for what in ("run", "alias"):
        with pytest.raises(BadName):
            check_name(name, what)


@pytest.mark.parametrize("name", ["base", "a" * 63 + "z", "Base-2.x_y", "7up", "console", "bestof"])
def test_a_plain_name_is_taken_as_it_is(name: str) -> None:
    assert check_name(name, "run") == name


@pytest.mark.parametrize(
    "digest", ["", "../" + "a" * 61, "A" * 64, "a" * 63, "a" * 65, "g" * 64, "a" * 64 + "\n", None]
)
def test_bad_input_19_what_is_no_digest_is_refused(digest: str) -> None:
    with pytest.raises(BadName):
        check_digest(digest, "object")
