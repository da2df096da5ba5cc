"""Pages: one HTML file that needs nothing beside itself, and may do nothing but what is written in it."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from typing import Any
from xml.etree.ElementTree import Element

from mvc_callbacks.render import clean, finite
from mvc_callbacks.render_html import element, markup

__all__ = ["GENERATOR", "asset", "json_text", "page_text"]

GENERATOR = "mvc_callbacks"
"""What the page says that made it: by this a page of ours is known."""
# What could end a script element or open one inside it, and line ends that JSON does not know as such.
_IN_SCRIPT = {ord(each): f"\\u{ord(each):04x}" for each in "<>&\u2028\u2029"}


def page_text(title: str, body: Iterable[Element], *, style: str, script: str, data: Any) -> str:
    """Write a page.

    Its policy lets the browser apply this style and run this script, by their digests, and nothing else: if
    text of a store became markup in spite of everything, it could neither run nor load anything. Where the
    browser knows trusted types, the script cannot even make markup of text.

    Args:
        title: Of the page.
        body: What is in it.
        style: Its style sheet, the program's own.
        script: Its script, the program's own.
        data: JSON values for the script, in an element named ``data``.

    Returns:
        The text of the file.
    """
    rules = (
        "default-src 'none'",
        f"script-src {_digest(script)}",
        f"style-src {_digest(style)}",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "require-trusted-types-for 'script'",
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content="; ".join(rules)),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="generator", content=GENERATOR),
        element("meta", name="color-scheme", content="light dark"),
        element("link", rel="icon", href="data:,"),
        element("title", clean(title)),
        _verbatim("style", style),
    )
    parts = (
        *body,
        _verbatim("script", json_text(data), type="application/json", id="data"),
        _verbatim("script", script),
    )
    return f"<!doctype html>\n{markup(element('html', head, element('body', parts), lang='en'))}\n"


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}'"


def _verbatim(tag: str, text: str, **attributes: str) -> Element:
    """Make an element whose text a browser takes as it stands; the caller knows that it cannot end it."""
    if f"</{tag}" in text.lower() or "<!--" in text:
        raise ValueError(f"this text would end its own {tag} element")
    made = element(tag, **attributes)
    made.text = text
    return made


def json_text(value: Any) -> str:
    """Tell JSON values as text that may stand inside a script element; NaN and Inf as texts.

    Raises:
        TypeError: If a value is none of JSON.
    """
    told = json.dumps(finite(value), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return told.translate(_IN_SCRIPT)


@cache
def asset(name: str) -> str:
    """Read a style sheet or a script that comes with the package."""
    return (files(__package__) / "page" / name).read_text("utf-8")
