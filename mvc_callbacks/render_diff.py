"""The difference of two versions as plain text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from mvc_callbacks.diff import Change, DataDifference, Difference, WeightsDifference
from mvc_callbacks.render import PLAIN, Cell, Paint, clean, clip, columns, count, number, short
from mvc_callbacks.render_values import told
from mvc_callbacks.versions import Fingerprint, Version

__all__ = [
    "MOST",
    "difference_lines",
    "extent",
    "metric_step",
    "nonfinite",
    "percent",
    "reshaped",
    "short_told",
    "touched",
    "weights_words",
]

MOST = 12
"""Lines of one kind that are shown unless all are asked for."""
_BAR = 30
_WIDEST_NAME = 48
_SIGNS = {"added": "+", "removed": "-", "changed": "~", "same": " "}


def difference_lines(difference: Difference, *, paint: Paint = PLAIN, most: int | None = MOST) -> list[str]:
    """Tell a difference.

    Args:
        difference: What differs.
        paint: How it is coloured.
        most: Most lines of one kind (files, tensors, packages); None for all.

    Returns:
        The lines.
    """
    lines = [f"a  {_end(difference.a, paint)}", f"b  {_end(difference.b, paint)}"]
    sections = (
        ("metrics", list(_metrics(difference.metrics, paint))),
        ("hyperparameters", list(_facts(difference.hyperparameters, paint, most))),
        ("data", [line for each in difference.data for line in _data(each, paint, most)]),
        ("code", [*_facts(difference.code, paint, most), *_patches(difference.patches, paint, most)]),
        ("environment", list(_facts(difference.environment, paint, most))),
        ("weights", list(_weights(difference, paint, most))),
    )
    for name, inside in sections:
        if inside:
            lines += ["", paint(name, "bold"), *(f"  {line}".rstrip() for line in inside)]
    untouched = [name for name, inside in sections if not inside]
    if untouched:
        lines += ["", paint(f"no difference known in {', '.join(untouched)}", "dim")]
    return lines


def _end(version: Version, paint: Paint) -> str:
    where = [f"epoch {version.epoch}"] if version.epoch is not None else []
    where += [f"step {version.step}"] if version.step is not None else []
    name = f"{clean(version.run, 64)}/{version.number}"
    return f"{paint(version.short_id, 'id')}  {paint(name, 'name')}  {', '.join(where)}".rstrip()


def _metrics(changes: Sequence[Change], paint: Paint) -> Iterator[str]:
    rows = [
        [
            Cell(clean(each.name, 60)),
            Cell("" if each.kind == "added" else number(each.a)),
            Cell("->", "dim"),
            Cell("" if each.kind == "removed" else number(each.b)),
            Cell(metric_step(each), "dim"),
        ]
        for each in changes
    ]
    if rows:
        yield from columns(
            ["metric", "a", "  ", "b", "difference"], rows, right={"a", "b", "difference"}, paint=paint
        )


def metric_step(change: Change) -> str:
    """Tell by how much a metric differs."""
    if not (isinstance(change.a, (int, float)) and isinstance(change.b, (int, float))):
        return ""
    step = number(change.b - change.a)
    return "=" if change.kind == "same" else step if step.startswith(("-", "n")) else f"+{step}"


def _facts(changes: Sequence[Change], paint: Paint, most: int | None) -> Iterator[str]:
    for each in changes[:most]:
        name = clean(each.name, 80)
        if each.kind == "added":
            yield paint(f"+ {name}  {told(each.b, 120)}", "good")
        elif each.kind == "removed":
            yield paint(f"- {name}  {told(each.a, 120)}", "bad")
        else:
            yield f"~ {name}  {short_told(each.a)} -> {short_told(each.b)}"
    yield from _more(len(changes), most)


def short_told(value: object) -> str:
    """Tell a value in short: a digest is known by its beginning, and a module's source is not read here."""
    if (
        isinstance(value, str)
        and len(value) in (40, 64)
        and all(each in "0123456789abcdef" for each in value)
    ):
        return value[:12]
    if isinstance(value, str) and "\n" in value:
        return f"({count(len(value.splitlines()), 'line')})"
    return told(value, 80)


def _data(each: DataDifference, paint: Paint, most: int | None) -> Iterator[str]:
    name = clean(each.name, 60)
    if each.same:
        digest = each.a.digest if each.a else None
        yield f"{name}: the same ({extent(each.a)}{f', {short(digest)}' if digest else ''})"
        return
    if each.a is None or each.b is None:
        yield f"{name}: only in {'b' if each.a is None else 'a'} ({extent(each.b or each.a)})"
        return
    if each.same is None:
        yield f"{name}: cannot be compared ({extent(each.a)} -> {extent(each.b)})"
        return
    yield paint(f"{name}: changed ({extent(each.a)} -> {extent(each.b)})", "bad")
    if each.files is None:
        if each.a.listing or each.b.listing:
            yield "  which files differ is not known: a listing of one of them is missing"
        return
    if not each.files:
        yield "  no file differs: the samples chosen from them, or their order, do"
    files = each.files
    for sign, look, amount, names in (
        ("~", "", files.changed, files.changed_names),
        ("+", "good", files.added, files.added_names),
        ("-", "bad", files.removed, files.removed_names),
    ):
        shown = names[:most]
        for path in shown:
            yield "  " + paint(f"{sign} {clean(path, 400)}", look)  # type: ignore[arg-type]
        if amount > len(shown):
            yield f"  {sign} ... and {amount - len(shown):,} more"


def extent(data: Fingerprint | None) -> str:
    """Tell how much data there is."""
    if data is None:
        return "nothing"
    return count(data.files, "file") if data.files else clean(data.coverage, 20)


def _patches(patches: tuple[str, str], paint: Paint, most: int | None) -> Iterator[str]:
    """Tell what was not committed on each side, file by file."""
    for side, patch in zip("ab", patches, strict=True):
        known = touched(patch)
        if known:
            yield f"not committed in {side}"
        for name, (more, less) in list(known.items())[:most]:
            yield f"  {clean(name, 200)}  {paint(f'+{more}', 'good')} {paint(f'-{less}', 'bad')}"
        yield from (f"  {line}" for line in _more(len(known), most))


def touched(patch: str) -> dict[str, tuple[int, int]]:
    """Return file to the numbers of lines that a patch adds and removes."""
    found: dict[str, tuple[int, int]] = {}
    name, inside = "", False
    for line in patch.splitlines():
        if line.startswith("diff --git "):
            name, inside = line.rpartition(" b/")[2], False
            found[name] = (0, 0)
        elif line.startswith("@@"):
            inside = True
        elif inside and name and line[:1] in "+-" and line:
            more, less = found[name]
            found[name] = (more + (line[0] == "+"), less + (line[0] == "-"))
    return found


def weights_words(difference: Difference) -> list[str]:
    """Tell in words what is known of the weights, without naming any tensor."""
    weights = difference.weights
    words = []
    if difference.a.framework != difference.b.framework and not weights.same:
        words.append(
            f"of different frameworks ({clean(difference.a.framework, 40)}, "
            f"{clean(difference.b.framework, 40)}): tensors are compared by their names "
            "there, which may not be those of the same layers"
        )
    if weights.why_no_values:
        words.append(f"how much they changed is not known: {clean(weights.why_no_values, 300)}")
    if weights.same:
        return [*words, "the same, bit for bit"]
    if weights.unchanged is None:
        return [*words, "different; tensor by tensor it cannot be told, as the weights of one were pruned"]
    parts = [f"{len(weights.changed)} tensors changed", f"{weights.unchanged} unchanged"]
    parts += [f"{len(weights.renamed)} renamed"] if weights.renamed else []
    parts += [f"{len(weights.added)} added"] if weights.added else []
    parts += [f"{len(weights.removed)} removed"] if weights.removed else []
    return [*words, ", ".join(parts)]


def _weights(difference: Difference, paint: Paint, most: int | None) -> Iterator[str]:
    weights = difference.weights
    yield from weights_words(difference)
    if weights.same or weights.unchanged is None:
        return
    if weights.values is not None:
        yield from _values(weights, paint, most)
    for change in weights.changed[:most] if weights.values is None else reshaped(weights)[:most]:
        form = (
            clean(change.a, 60) if change.a == change.b else f"{clean(change.a, 60)} -> {clean(change.b, 60)}"
        )
        yield f"  ~ {clean(change.name, 120)}  {paint(form, 'dim')}"
    unmeasured = weights.changed if weights.values is None else reshaped(weights)
    yield from (f"  {line}" for line in _more(len(unmeasured), most))
    for old, new in weights.renamed[:most]:
        yield f"  = {clean(old, 120)} -> {clean(new, 120)}"
    yield from (f"  {line}" for line in _more(len(weights.renamed), most))
    for sign, look, names in (("+", "good", weights.added), ("-", "bad", weights.removed)):
        for name in names[:most]:
            yield "  " + paint(f"{sign} {clean(name, 120)}", look)  # type: ignore[arg-type]
        yield from (f"  {line}" for line in _more(len(names), most))


def reshaped(weights: WeightsDifference) -> list[Change]:
    """Return the tensors that changed and were not measured, as their shapes differ."""
    measured = {each.name for each in weights.values or ()}
    return [each for each in weights.changed if each.name not in measured]


def _values(weights: WeightsDifference, paint: Paint, most: int | None) -> Iterator[str]:
    """Tell how much: a bar for each layer, and the tensors that changed most."""
    layers = weights.layers[:most]
    top = max((each.relative for each in weights.layers if math.isfinite(each.relative)), default=0.0)
    rows = [
        [
            Cell(clip(clean(each.name), _WIDEST_NAME)),
            Cell(percent(each.relative)),
            Cell(_bar(each.relative, top), "name"),
        ]
        for each in layers
    ]
    yield from (
        f"  {line}"
        for line in columns(["layer", "relative L2", ""], rows, right={"relative L2"}, paint=paint)
    )
    yield from (f"  {line}" for line in _more(len(weights.layers), most))
    moved = sorted((each for each in weights.values or () if not each.same), key=lambda each: -each.relative)
    rows = [
        [
            Cell(clip(clean(each.name), _WIDEST_NAME)),
            Cell(percent(each.relative)),
            Cell(f"{each.largest:.2e}"),
            Cell(nonfinite(each.nonfinite), "bad"),
        ]
        for each in moved[:most]
    ]
    heads = ["tensor", "relative L2", "largest", "NaN or Inf"]
    if rows:
        yield from (f"  {line}" for line in columns(heads, rows, right={*heads[1:3]}, paint=paint))
    yield from (f"  {line}" for line in _more(len(moved), most))


def percent(value: float) -> str:
    """Tell a relative change."""
    return (
        "from zero"
        if math.isinf(value)
        else "0"
        if value == 0
        else f"{value:.2%}"
        if value >= 1e-4
        else f"{value:.1e}"
    )


def _bar(value: float, top: float) -> str:
    if not value or not top:
        return ""
    return "█" * max(1, round(_BAR * min(value / top, 1.0)))


def nonfinite(counts: tuple[int, int]) -> str:
    """Tell how many values are NaN or Inf in a and in b; nothing where none is."""
    return f"{counts[0]:,} -> {counts[1]:,}" if any(counts) else ""


def _more(amount: int, most: int | None) -> Iterator[str]:
    if most is not None and amount > most:
        yield f"... and {amount - most:,} more"
