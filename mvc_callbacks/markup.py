"""Markup: values of a store as HTML, SVG, and JSON inside a page, where no text of theirs can be markup."""

from __future__ import annotations

import html
import json
import re
from typing import Any

from mvc_callbacks.render import clean, finite

__all__ = ["Markup", "escaped", "joined", "json_text", "tag"]

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]*")
_VOID = frozenset(("base", "br", "col", "hr", "img", "input", "link", "meta"))
# What could end a script element, or open one inside it; and line ends that JSON does not know as such.
_IN_SCRIPT = {ord(each): f"\\u{ord(each):04x}" for each in "<>&\u2028\u2029"}


class Markup(str):
    """Text that is markup already: made here, of escaped parts."""

    __slots__ = ()


def escaped(text: object, limit: int | None = None) -> Markup:
    """Make any text safe as the content of an element, or of a quoted attribute.

    Args:
        text: Any text; what is `Markup` already stays as it is.
        limit: Most characters, as `clean` takes it.

    Returns:
        The text on one line; control characters, bidirectional marks and the like are shown as escapes.
    """
    if isinstance(text, Markup):
        return text
    return Markup(html.escape(clean(text, limit), quote=True))


def joined(*parts: object, between: str = "") -> Markup:
    """Put parts one after the other; None is left out."""
    return Markup(escaped(between).join(escaped(part) for part in parts if part is not None))


def tag(name: str, *inside: object, **attributes: object) -> Markup:
    """Make an element.

    Args:
        name: Of the element; the program's own, never text of a store.
        inside: What is in it: texts, which are escaped, and markup; None is left out.
        attributes: ``class_`` stands for ``class``, ``data_id`` for ``data-id``. None and False leave an
            attribute out, True gives it without a value.

    Raises:
        ValueError: If a name is none of an element or an attribute.
    """
    told = []
    for key, value in attributes.items():
        # Of SVG a few attributes are written in mixed case; those of HTML are the same in any.
        known = _checked(key.rstrip("_").replace("_", "-"))
        if value is True:
            told.append(f" {known}")
        elif value is not None and value is not False:
            told.append(f' {known}="{escaped(value)}"')
    head = f"<{_checked(name)}{''.join(told)}>"
    return Markup(head if name in _VOID else f"{head}{joined(*inside)}</{name}>")


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of an element or an attribute")
    return name


def json_text(value: Any) -> Markup:
    """Tell JSON values as text that may stand inside a ``<script>`` element; NaN and Inf as texts.

    Raises:
        TypeError: If a value is none of JSON.
    """
    told = json.dumps(finite(value), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return Markup(told.translate(_IN_SCRIPT))
