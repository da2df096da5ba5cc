"""What is shown of a store: the values that views are made of, gathered from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from mvc_callbacks.errors import MVCError
from mvc_callbacks.render_tables import best_of
from mvc_callbacks.versions import RunInfo, Version

if TYPE_CHECKING:
    from mvc_callbacks.render_lists import RunLine
    from mvc_callbacks.render_version import Page
    from mvc_callbacks.store_reader import StoreReader

__all__ = ["aliases_of", "chains", "page_of", "parents_of", "run_lines_of", "versions_of"]

_KNOWN_OF_RUN = ("kind", "format", "label", "code", "environment")
_KNOWN = (
    *(
        "kind",
        "format",
        "run",
        "number",
        "sequence",
        "created",
        "framework",
        "epoch",
        "step",
        "metrics",
        "monitor",
    ),
    *("parents", "weights", "training_state", "hyperparameters", "data", "flags"),
)


def parents_of(
    store: StoreReader, shown: Iterable[Version], known: Mapping[str, Version]
) -> dict[str, Version]:
    """Return id to version of the parents of some versions, as far as the store has them.

    Args:
        store: The store.
        shown: The versions.
        known: Id to version of those that need not be looked for.
    """
    found = {}
    for identity in dict.fromkeys(parent.id for version in shown for parent in version.parents):
        version = known.get(identity) or _get(store, identity)
        if version is not None:
            found[identity] = version
    return found


def _get(store: StoreReader, identity: str) -> Version | None:
    try:
        return store.get(identity)
    except MVCError:  # deleted, or the history is damaged; `mvc verify` says so
        return None


def aliases_of(store: StoreReader) -> dict[str, list[str]]:
    """Return id to the aliases that point to it."""
    found: dict[str, list[str]] = {}
    for name, identity in store.aliases().items():
        found.setdefault(identity, []).append(name)
    return found


def page_of(store: StoreReader, ref: str | Version) -> Page:
    """Gather everything of one version; a record that cannot be read is told as such."""
    from mvc_callbacks.render_values import hyperparameters
    from mvc_callbacks.render_version import Page

    version = store.get(ref) if isinstance(ref, str) else ref
    trouble = ""
    given: Mapping[str, Any] = {}
    run: Mapping[str, Any] = {}
    more: Mapping[str, Any] = {}
    try:
        details = version.details
        given = hyperparameters(details.record.get("hyperparameters"))
        run, more = _without(details.run_record, _KNOWN_OF_RUN), _without(details.record, _KNOWN)
    except (MVCError, OSError) as error:
        trouble = str(error)
    return Page(
        version=version,
        parents=parents_of(store, [version], {}),
        aliases=aliases_of(store).get(version.id, ()),
        best=store.overview().best.get(version.id, frozenset()),
        hyperparameters=given,
        run=run,
        more=more,
        trouble=trouble,
    )


def _without(record: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in names}


def run_lines_of(store: StoreReader) -> list[RunLine]:
    """Gather the lines of the table of runs, oldest first: one for each chain of resumed runs."""
    from mvc_callbacks.render_lists import RunLine  # a log never needs it

    every = store.versions()
    by_id = {version.id: version for version in every}
    by_run: dict[str, list[Version]] = {}
    for version in every:
        by_run.setdefault(version.run, []).append(version)
    lines = []
    for chain in chains(store.runs()):
        first = chain[0]
        mine = [version for info in chain for version in by_run.get(info.label, [])]
        monitor = next((each.monitor for each in reversed(mine) if each.monitor), None)
        best = best_of(mine)
        winner = next(
            (each for each in mine if monitor is not None and monitor.name in best.get(each.id, ())), None
        )
        start = by_id.get(first.resumes) if first.resumes else None
        lines.append(
            RunLine(
                label=first.label,
                framework=first.framework,
                created=first.created,
                versions=sum(info.versions for info in chain),
                stored_bytes=sum(info.stored_bytes for info in chain),
                resumes=f"{start.run}/{start.number}" if start else first.resumes and first.resumes[:12],
                best=f"{winner.run}/{winner.number}" if winner else None,
                monitor=monitor.name if monitor else "",
                value=winner.metrics[monitor.name] if winner and monitor else None,
                further=tuple(info.label for info in chain[1:]),
            )
        )
    return lines


def chains(runs: Iterable[RunInfo]) -> list[list[RunInfo]]:
    """Put runs that went on one from the other together: an interrupted training is one line.

    A run goes on with another's chain if it was resumed from the newest version of its last run, and is the
    first that was. What was resumed from an earlier version is a branch, and a chain of its own.
    """
    found: list[list[RunInfo]] = []
    for info in runs:
        chain = next(
            (each for each in found if info.resumes is not None and each[-1].last == info.resumes), None
        )
        if chain is None:
            found.append([info])
        else:
            chain.append(info)
    return found


def versions_of(store: StoreReader, ids: Iterable[str]) -> dict[str, Version]:
    """Return id to version, for those that the store has."""
    return {each: version for each in ids if (version := _get(store, each)) is not None}
