"""Everything that is known of one version, as plain text in sections."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from mvc_callbacks.render import (
    PLAIN,
    Cell,
    Paint,
    age,
    clean,
    columns,
    count,
    moment,
    number,
    short,
    size,
    wrapped,
)
from mvc_callbacks.render_tables import changed_data, marks
from mvc_callbacks.render_values import flatten, told
from mvc_callbacks.versions import Fingerprint, Version

__all__ = [
    "HOW",
    "Page",
    "data_lines",
    "evaluation_lines",
    "exact",
    "known_facts",
    "state_lines",
    "version_lines",
    "weights_lines",
]

HOW = {
    "run": "the run's version before",
    "resume": "training went on from it",
    "restore": "its weights were restored",
    "content": "its weights were recognised",
    "declared": "declared",
}
"""How a parent was found, in words."""


@dataclass(frozen=True, slots=True)
class Page:
    """What is shown of a version.

    Attributes:
        version: The version.
        parents: Id to version, as far as the store has them.
        aliases: Aliases that point to it.
        best: Metrics of which it is the best in the store.
        hyperparameters: Dotted path to tagged value.
        run: What the run's record tells beside code and environment.
        more: What the version's record tells beside all that is known of every version.
        trouble: Why its record could not be read, or an empty string.
    """

    version: Version
    parents: Mapping[str, Version] = field(default_factory=dict)
    aliases: Sequence[str] = ()
    best: frozenset[str] = frozenset()
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    run: Mapping[str, Any] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)
    trouble: str = ""


def version_lines(page: Page, *, now: datetime, paint: Paint = PLAIN, width: int = 100) -> list[str]:
    """Tell a version.

    Args:
        page: What is shown.
        now: The time that ages are counted to.
        paint: How it is coloured.
        width: Columns into which lists of packages and the like are laid out.

    Returns:
        The lines.
    """
    version = page.version
    code: Mapping[str, Any] = {} if page.trouble else version.code
    environment: Mapping[str, Any] = {} if page.trouble else version.environment
    sections: list[tuple[str, list[str]]] = [
        ("notes", list(_notes(version, paint))),
        ("metrics", list(_metrics(page, paint))),
        ("evaluations", list(evaluation_lines(version))),
        ("weights", list(weights_lines(version, paint))),
        ("training state", list(state_lines(version, paint))),
        ("data", list(data_lines(page, paint))),
        ("hyperparameters", _facts(page.hyperparameters, width)),
        ("code", _facts(flatten(code), width)),
        ("run", _facts(flatten(page.run), width)),
        ("more", _facts(flatten(page.more), width)),
        ("environment", _environment(environment, width)),
    ]
    lines = [f"version {paint(clean(version.id, 80), 'id')}", *_head(page, now, paint)]
    for name, inside in sections:
        if inside:
            lines += ["", paint(name, "bold"), *(f"  {line}".rstrip() for line in inside)]
    if page.trouble:
        lines += ["", paint(f"the rest cannot be read: {clean(page.trouble, 400)}", "bad")]
    return lines


def _head(page: Page, now: datetime, paint: Paint) -> Iterator[str]:
    version = page.version
    name = f"{clean(version.run, 64)}/{version.number}"
    yield f"  {'run':<9}{paint(name, 'name')}  ({clean(version.framework, 40)})"
    yield f"  {'created':<9}{moment(version.created)}  ({age(version.created, now)})"
    place = [f"epoch {version.epoch}"] if version.epoch is not None else []
    place += [f"step {version.step}"] if version.step is not None else []
    if place:
        yield f"  {'after':<9}{', '.join(place)}"
    if page.aliases:
        yield f"  {'aliases':<9}{paint(', '.join(clean(each, 64) for each in page.aliases), 'bold')}"
    for place_of, parent in enumerate(version.parents):
        known = page.parents.get(parent.id)
        lost = "(of another store)" if parent.elsewhere else "(not in this store)"
        where = lost if known is None else f"{clean(known.run, 64)}/{known.number}"
        how = HOW.get(parent.how, clean(parent.how, 40))
        shared = f", {clean(parent.shared, 40)} tensors shared" if parent.shared else ""
        head = ("parents" if len(version.parents) > 1 else "parent") if place_of == 0 else ""
        yield f"  {head:<9}{paint(short(parent.id), 'id')}  {where}  ({how}{shared})"
    if marks(version):
        yield f"  {'marks':<9}{paint(', '.join(marks(version)), 'bad')}"
    for gone in version.pruned:
        yield f"  {'pruned':<9}{clean(gone.what, 20)}, {moment(gone.time)}, by {clean(gone.policy, 120)}"


def _notes(version: Version, paint: Paint) -> Iterator[str]:
    for note in version.notes:
        yield clean(note.text)
        yield paint(f"  {moment(note.time)}, {clean(note.who, 64)}", "dim")


def _metrics(page: Page, paint: Paint) -> Iterator[str]:
    version = page.version
    rows = []
    watched = version.monitor
    first = [watched.name] if watched is not None and watched.name in version.metrics else []
    for name in dict.fromkeys([*first, *sorted(version.metrics)]):
        note = f"monitored, {clean(watched.mode, 8)}" if watched is not None and name == watched.name else ""
        if name in page.best:
            note += ", the best" if note else "the best"
        rows.append([Cell(clean(name, 80)), Cell(exact(version.metrics[name])), Cell(note, "dim")])
    yield from columns(["", "", ""], rows, paint=paint)[1:]


def exact(value: object) -> str:
    """Tell a metric's value with all of its digits: a log may round, and here is the place to read it."""
    return repr(value) if isinstance(value, (int, float)) else clean(value, 60)


def evaluation_lines(version: Version) -> Iterator[str]:
    """Tell what was measured later."""
    for each in version.evaluations:
        metrics = ", ".join(f"{clean(name, 80)} {number(value)}" for name, value in each.metrics.items())
        yield f"{clean(each.kind, 20)}, {moment(each.time)}: {metrics or 'no metric'}"
        for name, data in each.data.items():
            yield f"  on {clean(name, 60)}: {_extent(data)}"


def weights_lines(version: Version, paint: Paint = PLAIN) -> Iterator[str]:
    """Tell of the weights, without reading them."""
    weights = version.weights
    of = "" if weights.of == "training" else f", {clean(weights.of, 40)} of the training's"
    yield f"{count(weights.tensors, 'tensor')}, {size(weights.bytes)}{of}"
    yield f"{size(weights.stored_bytes)} were new to the store when it was saved"
    yield f"digest {clean(weights.digest, 80)}"
    if weights.nonfinite:
        yield paint("NaN or Inf is among the weights", "bad")
    if not version.has_weights:
        yield paint("pruned: they cannot be restored", "bad")


def state_lines(version: Version, paint: Paint = PLAIN) -> Iterator[str]:
    """Tell of the rest of the training state."""
    state = version.training_state
    if state is None:
        yield "none was saved"
        return
    yield f"{count(state.tensors, 'tensor')}, {size(state.bytes)}"
    if version.pruned:
        yield paint("pruned: training cannot go on from it as it was", "dim")
    for each in state.untold[:20]:
        yield f"not told: {clean(each, 200)}"
    if len(state.untold) > 20:
        yield f"... and {len(state.untold) - 20} more that were not told"


def data_lines(page: Page, paint: Paint = PLAIN) -> Iterator[str]:
    """Tell of the data, and what of it changed."""
    version = page.version
    parent = page.parents.get(version.parent.id) if version.parent else None
    changed = changed_data(version, parent)
    for name, data in version.data.items():
        mark = f"  {paint('changed since the parent', 'bad')}" if name in changed else ""
        yield f"{clean(name, 60)}: {_extent(data)}{mark}"
        if data.digest:
            yield f"  digest {clean(data.digest, 80)}"
        if data.how:
            yield f"  found by {clean(data.how, 200)}"
        for problem in data.problems[:8]:
            yield paint(f"  problem: {clean(problem, 200)}", "bad")
        if len(data.problems) > 8:
            yield f"  ... and {len(data.problems) - 8} more problems"


def _extent(data: Fingerprint) -> str:
    if data.coverage == "pending":
        return "the fingerprint was not ready yet"
    if data.coverage == "none":
        return "not found"
    if data.coverage == "files":
        return f"{count(data.files, 'file')}, {size(data.bytes)}"
    files = f", {count(data.files, 'file')}" if data.files else ""
    return f"{clean(data.coverage, 20)}{files}{f', {size(data.bytes)}' if data.bytes else ''}"


def _facts(facts: Mapping[str, Any], width: int) -> list[str]:
    longest = min(
        28, max((len(clean(name, 80)) for name, each in facts.items() if _is_told(each)), default=0)
    )
    told_of = known_facts(facts, max(40, width - longest - 4))
    return [f"{name:<{longest}}  {text}" for name, text in told_of.items()]


def known_facts(facts: Mapping[str, Any], limit: int) -> dict[str, str]:
    """Return name to one line of text, of those that say something."""
    return {clean(name, 80): _one_line(value, limit) for name, value in facts.items() if _is_told(value)}


def _is_told(value: Any) -> bool:
    return value not in (None, "", [], {})


def _one_line(value: Any, limit: int) -> str:
    if isinstance(value, str) and "\n" in value:
        return f"({count(len(value.splitlines()), 'line')}; --json has them)"
    return told(value, limit)


def _environment(environment: Mapping[str, Any], width: int) -> list[str]:
    packages = environment.get("packages")
    if not isinstance(packages, Mapping):
        return _facts(flatten(environment), width)
    lines = _facts(flatten({name: each for name, each in environment.items() if name != "packages"}), width)
    words = [f"{clean(name, 60)} {clean(told(version), 40)}" for name, version in packages.items()]
    return [*lines, f"packages ({len(words)})", *wrapped(words, width=width, indent="  ")]
