"""The card of a model: a version as the README.md of a Hugging Face folder."""

from __future__ import annotations

import json
import re

from mvc_callbacks.render import clean, count, moment, short, size
from mvc_callbacks.render_values import told
from mvc_callbacks.render_version import Page

__all__ = ["card_text"]

_FRAMEWORKS = {"keras": "keras"}


def card_text(page: Page) -> str:
    """Tell a version as Markdown with the front matter that Hugging Face reads.

    Args:
        page: Everything of the version.

    Returns:
        The text; nothing in it that a store holds is markup.
    """
    version = page.version
    name = f"{version.run}/{version.number}"
    lines = [
        *("---", f"library_name: {_FRAMEWORKS.get(version.framework, 'pytorch')}"),
        *("tags:", "- mvc-callbacks", f"mvc_version: {json.dumps(version.id)}", "---"),
        *(
            "",
            f"# {_text(name)}",
            "",
            f"Exported by mvc_callbacks from the version `{short(version.id)}`.",
            "",
        ),
        *("| | |", "|---|---|", f"| version | {_text(name)} |", f"| id | `{clean(version.id, 80)}` |"),
        f"| saved | {_text(moment(version.created))} |",
        f"| trained with | {_text(version.framework)} |",
        f"| weights | {count(version.weights.tensors, 'tensor')}, {size(version.weights.bytes)}, digest "
        f"`{clean(version.weights.digest, 80)}` |",
    ]
    lines += [f"| epoch | {version.epoch} |"] if version.epoch is not None else []
    lines += [f"| step | {version.step} |"] if version.step is not None else []
    sections = (
        ("Metrics", {key: repr(value) for key, value in version.metrics.items()}),
        ("Hyperparameters", {key: told(value, 300) for key, value in page.hyperparameters.items()}),
        (
            "Data",
            {
                key: f"{count(each.files, 'file')}, fingerprint {each.digest or 'not known'}"
                for key, each in version.data.items()
            },
        ),
        ("Code", {} if page.trouble else _code(page)),
        (
            "Lineage",
            {
                (
                    f"{page.parents[each.id].run}/{page.parents[each.id].number}"
                    if each.id in page.parents
                    else short(each.id)
                ): f"{each.how}, id {each.id}"
                for each in version.parents
            },
        ),
        ("Notes", {note.time: note.text for note in version.notes}),
    )
    for head, facts in sections:
        if facts:
            lines += ["", f"## {head}", "", "| | |", "|---|---|"]
            lines += [f"| {_text(key)} | {_text(value)} |" for key, value in facts.items()]
    return "\n".join(lines) + "\n"


def _code(page: Page) -> dict[str, str]:
    code = page.version.code
    return {name: told(code[name], 200) for name in ("commit", "branch", "dirty", "remote") if code.get(name)}


def _text(value: object) -> str:
    """Return text of a store with everything that Markdown or HTML could take for markup escaped."""
    return re.sub(r"([\\`*_{}\[\]<>()#+\-.!|~&$@:])", _escaped, clean(value, 1000))


def _escaped(found: re.Match[str]) -> str:
    return (
        f"&#{ord(found[1])};"
        if found[1] in "<>&|`@"
        else f"\\{found[1]}"
        if found[1] in "\\*_[]~$"
        else found[1]
    )
