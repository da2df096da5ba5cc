"""HTML: the pieces that views in a notebook or on a page are made of; text of a store never becomes markup.

Views are trees of elements and not strings: text goes in as text, and is escaped when the tree is written
(docs/adr/0005-html-as-trees.md). What would move, hide or reorder text on a terminal is escaped here too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from xml.etree.ElementTree import Element, tostring

from mvc_callbacks.render import Cell, clean

__all__ = [
    "STYLE",
    "Content",
    "cell",
    "element",
    "facts",
    "markup",
    "rows_table",
    "section",
    "shown",
    "table",
]

Content = str | Cell | Element
"""What stands in an element: text, text with a look, an element."""

_LOOKS = {"", "bold", "dim", "good", "bad", "id", "name"}
_LIGHT = """
    --mvc-line: #00000021; --mvc-soft: #00000008; --mvc-dim: #666; --mvc-good: #14773a; --mvc-bad: #b3261e;
    --mvc-id: #7a5b00; --mvc-name: #0b5cad; --mvc-bar: #5b9bd9; --mvc-paper: #fff;
"""
_DARK = """
    --mvc-line: #ffffff24; --mvc-soft: #ffffff0d; --mvc-dim: #a3a3a3; --mvc-good: #57c98a; --mvc-bad: #ff7b72;
    --mvc-id: #d9b25f; --mvc-name: #6cb6ff; --mvc-bar: #3d7fc4; --mvc-paper: #1b1b1b;
"""
# Jupyter, Sphinx, Colab and VS Code each say in a way of their own whether they are light or dark.
STYLE = f"""
.mvc {{{_LIGHT}}}
@media (prefers-color-scheme: dark) {{ .mvc {{{_DARK}}} }}
[data-jp-theme-light="true"] .mvc, [data-theme="light"] .mvc, [theme="light"] .mvc,
.vscode-light .mvc {{{_LIGHT}}}
[data-jp-theme-light="false"] .mvc, [data-theme="dark"] .mvc, [theme="dark"] .mvc,
.vscode-dark .mvc {{{_DARK}}}
.mvc {{ font-size: 13px; line-height: 1.45; max-width: 100%; overflow-x: auto; }}
.mvc table {{ border-collapse: collapse; margin: 2px 0 8px 0; border: none; font-size: inherit; }}
.mvc th, .mvc td {{
    padding: 3px 10px 3px 0; border: none; border-bottom: 1px solid var(--mvc-line); text-align: left;
    vertical-align: top; background: none; overflow-wrap: break-word;
}}
.mvc th {{ color: var(--mvc-dim); font-weight: normal; white-space: nowrap; }}
.mvc tr {{ background: none; }}
.mvc tbody tr:hover {{ background: var(--mvc-soft); }}
.mvc .mvc-right {{ text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }}
.mvc td > span + span {{ margin-left: 0.6em; }}
.mvc .mvc-bold {{ font-weight: 600; }}
.mvc .mvc-dim {{ color: var(--mvc-dim); }}
.mvc .mvc-good {{ color: var(--mvc-good); }}
.mvc .mvc-bad {{ color: var(--mvc-bad); }}
.mvc .mvc-id {{ color: var(--mvc-id); font-family: monospace; white-space: nowrap; }}
.mvc .mvc-name {{ color: var(--mvc-name); white-space: nowrap; }}
.mvc .mvc-badge {{
    display: inline-block; padding: 0 7px; margin-right: 4px; border-radius: 9px; font-weight: 600;
    border: 1px solid var(--mvc-line); background: var(--mvc-soft); white-space: nowrap;
}}
.mvc summary {{ cursor: pointer; font-weight: 600; padding: 2px 0; }}
.mvc details {{ margin: 2px 0; }}
.mvc details > *:not(summary) {{ margin-left: 16px; }}
.mvc .mvc-bar {{
    display: inline-block; height: 9px; min-width: 2px; background: var(--mvc-bar); border-radius: 2px;
}}
.mvc .mvc-bars {{ width: 180px; }}
.mvc .mvc-code {{ font-family: monospace; white-space: pre; }}
.mvc .mvc-title {{ font-weight: 600; margin: 2px 0 4px 0; }}
"""


def element(tag: str, *children: Content | Iterable[Content], **attributes: object) -> Element:
    """Make an element.

    Args:
        tag: Its name, never text of a store.
        children: In their order; an iterable stands for what it gives.
        attributes: ``class_`` is ``class``, ``data_id`` is ``data-id``; None leaves one out, True is empty.

    Returns:
        The element.
    """
    made = Element(tag)
    for name, value in attributes.items():
        if value is not None and value is not False:
            made.set(name.rstrip("_").replace("_", "-"), "" if value is True else clean(value))
    for child in children:
        for each in [child] if isinstance(child, (str, Cell, Element)) else child:
            _add(made, each)
    return made


def _add(parent: Element, child: Content) -> None:
    if isinstance(child, Cell):
        child = cell(child) if child.look else child.text
    if isinstance(child, Element):
        parent.append(child)
        return
    # A tree keeps text in two places: before the first element, and after each.
    text = clean(child)
    if len(parent):
        parent[-1].tail = (parent[-1].tail or "") + text
    else:
        parent.text = (parent.text or "") + text


def cell(content: Cell, tag: str = "span", **attributes: object) -> Element:
    """Make an element of text with a look."""
    look = content.look if content.look in _LOOKS else ""
    own = [f"mvc-{look}"] if look else []
    own += [str(attributes.pop("class_"))] if "class_" in attributes else []
    return element(tag, content.text, class_=" ".join(own) or None, **attributes)


def table(
    heads: Sequence[str], rows: Iterable[Sequence[Content | Sequence[Content]]], *, right: Iterable[str] = ()
) -> Element:
    """Make a table; a column without any content is left out.

    Args:
        heads: One for each column; all of them empty for a table without heads.
        rows: As many cells each; a cell may hold several pieces of content.
        right: Heads of columns aligned to the right.
    """
    every = [list(row) for row in rows]
    kept = [at for at in range(len(heads)) if not every or any(_has_content(row[at]) for row in every)]
    sides = {at: "mvc-right" for at in kept if heads[at] in set(right)}
    body = element(
        "tbody",
        [
            element("tr", [element("td", _pieces(row[at]), class_=sides.get(at)) for at in kept])
            for row in every
        ],
    )
    named = any(heads[at] for at in kept)
    head = [element("thead", element("tr", [element("th", heads[at], class_=sides.get(at)) for at in kept]))]
    return element("table", head if named else [], body)


def _pieces(content: Content | Sequence[Content]) -> list[Content]:
    if isinstance(content, (str, Cell, Element)):
        return [content]
    spaced: list[Content] = []
    for each in content:
        spaced += [" ", each] if spaced else [each]
    return spaced


def _has_content(content: Content | Sequence[Content]) -> bool:
    return any(
        bool(each.text) if isinstance(each, Cell) else isinstance(each, Element) or bool(each)
        for each in _pieces(content)
    )


def rows_table(rows: Iterable[Sequence[Content | Sequence[Content]]]) -> Element:
    """Make a table of names and values, without heads."""
    every = [list(row) for row in rows]
    return table([""] * max(map(len, every), default=0), every)


def facts(told: Mapping[str, str]) -> Element:
    """Make a table of names and texts."""
    return rows_table([Cell(name, "dim"), text] for name, text in told.items())


def section(name: Content, *children: Content | Iterable[Content], open_: bool = True) -> Element:
    """Make a part that can be folded."""
    return element("details", element("summary", name), *children, open=open_)


def shown(*children: Content | Iterable[Content]) -> Element:
    """Put a view together, with its style."""
    return element("div", _style(), *children, class_="mvc")


def _style() -> Element:
    made = Element("style")
    made.text = STYLE
    return made


def markup(tree: Element) -> str:
    """Write a tree as HTML; every text and every attribute in it is escaped."""
    return tostring(tree, encoding="unicode", method="html")
