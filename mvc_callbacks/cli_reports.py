"""What the commands say of what they did."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from mvc_callbacks.render import clean, count, short, size
from mvc_callbacks.versions import AliasMove, Version

if TYPE_CHECKING:
    from mvc_callbacks.pruning import PruneReport
    from mvc_callbacks.rebuilding import RebuildReport
    from mvc_callbacks.verifying import Report
    from mvc_callbacks.weight_files import Identified

__all__ = ["identified", "moved", "named", "rebuilt", "removed", "unnamed", "verified"]

_MOST = 20


def named(version: Version) -> str:
    """Tell a version as ``run/3 (0123456789ab)``."""
    return f"{clean(version.run, 64)}/{version.number} ({version.short_id})"


def _name(identity: str, known: Mapping[str, Version]) -> str:
    return named(known[identity]) if identity in known else short(identity)


def moved(name: str, before: str | None, after: str, known: Mapping[str, Version]) -> Iterator[str]:
    """Tell where an alias points to now."""
    was = (
        "it is new"
        if before is None
        else "as before"
        if before == after
        else f"it was {_name(before, known)}"
    )
    yield f"{clean(name, 64)} -> {_name(after, known)}; {was}"


def unnamed(move: AliasMove, known: Mapping[str, Version]) -> Iterator[str]:
    """Tell that an alias is gone, and from where."""
    yield f"removed the alias {clean(move.name, 64)}; it was {_name(str(move.previous), known)}, which stays"


def removed(report: PruneReport, did: str, what: str, known: Mapping[str, Version]) -> Iterator[str]:
    """Tell what pruning or deleting removed.

    Args:
        report: What it did.
        did: In words, ``pruned`` or ``would prune``.
        what: In words, ``the weights of``.
        known: Id to version, as far as they are to be named.
    """
    freed = size(report.freed_bytes) + (f" ({count(report.objects, 'object')})" if report.objects else "")
    if report.versions:
        would = "that would free" if report.dry_run else "that freed"
        yield f"{did} {what}{count(len(report.versions), 'version')}; {would} {freed}"
    else:
        yield "nothing to prune" + (f"; swept {freed} that no version needs" if report.objects else "")
    chosen = sorted(
        (known[each] for each in report.versions if each in known), key=lambda each: each.sequence
    )
    for version in chosen[:_MOST]:
        yield f"  {named(version)}"
    if len(chosen) > _MOST:
        yield f"  ... and {len(chosen) - _MOST} more"
    for identity, why in report.kept:
        yield f"  kept {_name(identity, known)}: {clean(why)}"


def verified(report: Report, known: Mapping[str, Version]) -> Iterator[str]:
    """Tell what a verification found."""
    looked = f"{count(report.versions, 'version')}, {count(report.objects, 'object')}"
    how = (
        f"every byte read ({size(report.bytes)})"
        if report.full
        else "structure and presence; --full reads every byte"
    )
    if report.ok:
        yield f"all is well: {looked}; {how}"
        return
    for problem in report.problems:
        yield f"{clean(problem.kind)}: {clean(problem.text)}"
        hurt = [_name(each, known) for each in problem.versions]
        if hurt:
            yield f"  versions: {_some(hurt)}"
        tensors = [clean(each, 120) for each in problem.tensors if each]
        if tensors:
            yield f"  holds: {_some(tensors)}"
    yield f"{count(len(report.problems), 'problem')}: {looked}; {how}"


def rebuilt(report: RebuildReport) -> Iterator[str]:
    """Tell what a rebuild made."""
    parts = [
        count(report.versions, "version"),
        count(report.runs, "run"),
        count(report.aliases, "alias", "aliases"),
    ]
    yield f"made again: {', '.join(parts)}"
    for identity, why in report.left_out:
        yield f"  left out {short(identity)}: {clean(why)}"
    for problem in report.problems:
        yield f"  problem: {clean(problem)}"


def identified(found: Identified) -> Iterator[str]:
    """Tell whose weights a file holds."""
    for version in found.exact:
        yield f"{named(version)}: the same weights, bit for bit"
    for version, shared in found.nearest if not found.exact else ():
        yield f"{named(version)}: {shared} of the file's {count(found.tensors, 'tensor')}"
    if not found.exact and not found.nearest:
        yield f"no version shares any of the file's {count(found.tensors, 'tensor')}"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
    return ", ".join(names[:_MOST]) + more
