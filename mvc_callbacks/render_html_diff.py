"""The difference of two versions as HTML."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from xml.etree.ElementTree import Element

from mvc_callbacks.diff import Change, DataDifference, Difference, WeightsDifference
from mvc_callbacks.render import Cell, Look, clean, count, number, short
from mvc_callbacks.render_diff import (
    extent,
    metric_step,
    nonfinite,
    percent,
    reshaped,
    short_told,
    touched,
    weights_words,
)
from mvc_callbacks.render_html import Content, element, rows_table, section, table
from mvc_callbacks.render_values import told
from mvc_callbacks.versions import Version

__all__ = ["difference_html"]

_MOST = 40
_MOST_LINES = 400
_SIGNS = {"added": "+", "removed": "-", "changed": "~", "same": "="}
_LOOKS: dict[str, Look] = {"added": "good", "removed": "bad", "changed": "", "same": "dim"}


def difference_html(difference: Difference, *, most: int | None = _MOST) -> Element:
    """Tell a difference.

    Args:
        difference: What differs.
        most: Most rows of one kind (files, tensors, packages); None for all.

    Returns:
        The view, without a style.
    """
    parts: list[tuple[str, list[Content]]] = [
        ("metrics", _metrics(difference.metrics)),
        ("hyperparameters", _facts(difference.hyperparameters, most)),
        ("data", [each for data in difference.data for each in _data(data, most)]),
        ("code", [*_facts(difference.code, most), *_patches(difference.patches)]),
        ("environment", _facts(difference.environment, most)),
        ("weights", _weights(difference, most)),
    ]
    untouched = [name for name, inside in parts if not inside]
    return element(
        "div",
        rows_table([("a", *_end(difference.a)), ("b", *_end(difference.b))]),
        [section(name, inside) for name, inside in parts if inside],
        [Cell(f"no difference known in {', '.join(untouched)}", "dim")] if untouched else [],
    )


def _end(version: Version) -> Iterator[Content]:
    yield Cell(f"{clean(version.run, 64)}/{version.number}", "name")
    yield Cell(version.short_id, "id")
    where = [f"epoch {version.epoch}"] if version.epoch is not None else []
    yield ", ".join([*where, *([f"step {version.step}"] if version.step is not None else [])])


def _metrics(changes: Sequence[Change]) -> list[Content]:
    rows: list[list[Content]] = [
        [
            Cell(clean(each.name, 60), "dim"),
            "" if each.kind == "added" else number(each.a),
            "" if each.kind == "removed" else number(each.b),
            Cell(metric_step(each), "dim"),
        ]
        for each in changes
    ]
    heads = ["metric", "a", "b", "difference"]
    return [table(heads, rows, right={*heads[1:]})] if rows else []


def _facts(changes: Sequence[Change], most: int | None) -> list[Content]:
    rows: list[list[Content]] = [
        [
            _sign(each.kind),
            Cell(clean(each.name, 80), "dim"),
            "" if each.kind == "added" else Cell(_value(each, each.a), "bad"),
            "" if each.kind == "removed" else Cell(_value(each, each.b), "good"),
        ]
        for each in changes[:most]
    ]
    return [table(["", "name", "a", "b"], rows), *_more(len(changes), most)] if rows else []


def _value(change: Change, value: object) -> str:
    return short_told(value) if change.kind == "changed" else told(value, 120)


def _sign(kind: str) -> Cell:
    return Cell(_SIGNS[kind], _LOOKS[kind])


def _data(each: DataDifference, most: int | None) -> Iterator[Content]:
    name = Cell(clean(each.name, 60), "bold")
    if each.same:
        digest = each.a.digest if each.a else None
        yield element("div", name, f" the same ({extent(each.a)}{f', {short(digest)}' if digest else ''})")
        return
    if each.a is None or each.b is None:
        yield element("div", name, f" only in {'b' if each.a is None else 'a'} ({extent(each.b or each.a)})")
        return
    if each.same is None:
        yield element("div", name, f" cannot be compared ({extent(each.a)} → {extent(each.b)})")
        return
    yield element("div", name, " ", Cell("changed", "bad"), f" ({extent(each.a)} → {extent(each.b)})")
    files = each.files
    if files is None:
        if each.a.listing or each.b.listing:
            yield element("div", "which files differ is not known: a listing of one of them is missing")
        return
    if not files:
        yield element("div", "no file differs: the samples chosen from them, or their order, do")
    rows: list[list[Content]] = []
    kinds = (
        ("changed", files.changed, files.changed_names),
        ("added", files.added, files.added_names),
        ("removed", files.removed, files.removed_names),
    )
    for kind, amount, names in kinds:
        shown = names[:most]
        rows += [[_sign(kind), Cell(clean(path, 400), _LOOKS[kind])] for path in shown]
        if amount > len(shown):
            rows.append([_sign(kind), f"… and {amount - len(shown):,} more"])
    if rows:
        yield rows_table(rows)


def _patches(patches: tuple[str, str]) -> Iterator[Content]:
    for side, patch in zip("ab", patches, strict=True):
        known = touched(patch)
        if known:
            lines = (
                Cell(line, "good" if line[:1] == "+" else "bad" if line[:1] == "-" else "")
                for line in map(clean, patch.splitlines()[:_MOST_LINES])
            )
            inside = [
                element("div", each, style="font-family: monospace; white-space: pre") for each in lines
            ]
            yield section(f"not committed in {side}: {count(len(known), 'file')}", inside, open_=False)


def _weights(difference: Difference, most: int | None) -> list[Content]:
    weights = difference.weights
    words: list[Content] = [element("div", line) for line in weights_words(difference)]
    if weights.same or weights.unchanged is None:
        return words
    if weights.values is not None:
        words += [*_layers(weights, most), *_tensors(weights, most)]
    forms = weights.changed if weights.values is None else reshaped(weights)
    rows: list[list[Content]] = [
        [
            _sign("changed"),
            clean(each.name, 120),
            clean(each.a, 60) if each.a == each.b else f"{clean(each.a, 60)} → {clean(each.b, 60)}",
        ]
        for each in forms[:most]
    ]
    rows += [
        [_sign("same"), f"{clean(old, 120)} → {clean(new, 120)}", "renamed"]
        for old, new in weights.renamed[:most]
    ]
    for kind, names in (("added", weights.added), ("removed", weights.removed)):
        rows += [[_sign(kind), Cell(clean(name, 120), _LOOKS[kind]), ""] for name in names[:most]]
    if rows:
        words.append(rows_table(rows))
    kinds: Iterable[Sequence[object]] = (forms, weights.renamed, weights.added, weights.removed)
    words += _more(sum(max(0, len(each) - (most or len(each))) for each in kinds), 0)
    return words


def _layers(weights: WeightsDifference, most: int | None) -> Iterator[Content]:
    top = max((each.relative for each in weights.layers if math.isfinite(each.relative)), default=0.0)
    rows: list[list[Content]] = [
        [Cell(clean(each.name, 120), "dim"), percent(each.relative), _bar(each.relative, top)]
        for each in weights.layers[:most]
    ]
    if rows:
        yield table(["layer", "relative L2", " "], rows, right={"relative L2"})
    yield from _more(len(weights.layers), most)


def _bar(value: float, top: float) -> Element:
    share = min(value / top, 1.0) if value and top else 0.0
    bar = [element("span", class_="mvc-bar", style=f"width: {max(share * 180, 2):.0f}px")] if share else []
    return element("div", bar, class_="mvc-bars")


def _tensors(weights: WeightsDifference, most: int | None) -> Iterator[Content]:
    moved = sorted((each for each in weights.values or () if not each.same), key=lambda each: -each.relative)
    rows: list[list[Content]] = [
        [
            Cell(clean(each.name, 120), "dim"),
            percent(each.relative),
            f"{each.largest:.2e}",
            Cell(nonfinite(each.nonfinite), "bad"),
        ]
        for each in moved[:most]
    ]
    heads = ["tensor", "relative L2", "largest change", "NaN or Inf"]
    if rows:
        yield section(
            f"{count(len(moved), 'tensor')} changed",
            table(heads, rows, right={*heads[1:3]}),
            _more(len(moved), most),
            open_=len(moved) <= 12,
        )


def _more(amount: int, most: int | None) -> list[Content]:
    if most is None or amount <= most:
        return []
    return [element("div", Cell(f"… and {amount - most:,} more", "dim"))]
