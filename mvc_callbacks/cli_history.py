"""What the reading commands ask a store for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mvc_callbacks.errors import Misconfigured, MVCError
from mvc_callbacks.render_lists import RunLine
from mvc_callbacks.render_tables import Log, best_of
from mvc_callbacks.versions import AliasMove, RunInfo, Version

if TYPE_CHECKING:
    from mvc_callbacks.render_version import Page
    from mvc_callbacks.selecting import Selection
    from mvc_callbacks.store import VersionStore

__all__ = [
    "aliases_of",
    "chains",
    "log_of",
    "page_of",
    "run_lines_of",
    "told_aliases",
    "told_log",
    "told_page",
    "told_runs",
    "versions_of",
]


_MOST_NAMED = 12
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


def log_of(
    store: VersionStore,
    ref: str | None,
    run: str | None,
    limit: int | None,
    metrics: Sequence[str],
    selection: Selection | None = None,
    graph: bool | None = None,
) -> tuple[Log, int]:
    """Gather a log, newest version first.

    Args:
        store: The store.
        ref: Only this version and its ancestors.
        run: Only this run.
        limit: Most versions; None for all.
        metrics: Metrics to show.
        selection: What else the versions must be.
        graph: Whether the lineage is drawn; None where there is more to it than straight lines.

    Raises:
        Misconfigured: If no version has one of the metrics.

    Returns:
        The log, and the number of versions that the limit left out. The best are those of all versions that
        ``ref`` and ``run`` choose, whatever the limit.
    """
    every = store.versions(run)
    if every:
        _refuse_unknown(metrics, every)
    known = {version.id: version for version in every}
    chosen = every[::-1] if ref is None else list(_ancestry(store.get(ref), known))
    remarks: Mapping[str, str] = {}
    best = best_of(chosen)
    if selection:
        from mvc_callbacks.selecting import select

        chosen, remarks = select(store, chosen, selection)
    shown = chosen if limit is None else chosen[:limit]
    log = Log(
        versions=shown,
        parents={**known, **_parents(store, shown, known)},
        aliases=aliases_of(store),
        best=best,
        metrics=metrics,
        graph=graph,
        remarks=remarks,
    )
    return log, len(chosen) - len(shown)


def _refuse_unknown(metrics: Sequence[str], versions: Sequence[Version]) -> None:
    known = dict.fromkeys(name for each in versions for name in each.metrics)
    for name in metrics:
        if name not in known:
            there = ", ".join(list(known)[:_MOST_NAMED]) or "none"
            raise Misconfigured(f"no version here has the metric {name!r:.80}; there are: {there}")


def _ancestry(version: Version, known: Mapping[str, Version]) -> Iterable[Version]:
    seen: set[str] = set()  # a cycle cannot be written, but somebody may have edited the history
    each: Version | None = version
    while each is not None and each.id not in seen:
        seen.add(each.id)
        yield each
        each = known.get(each.parent.id) if each.parent else None


def _parents(
    store: VersionStore, shown: Iterable[Version], known: Mapping[str, Version]
) -> dict[str, Version]:
    found = {}
    for identity in dict.fromkeys(parent.id for version in shown for parent in version.parents):
        version = known.get(identity) or _get(store, identity)
        if version is not None:
            found[identity] = version
    return found


def _get(store: VersionStore, identity: str) -> Version | None:
    try:
        return store.get(identity)
    except MVCError:  # deleted, or the history is damaged; `mvc verify` says so
        return None


def aliases_of(store: VersionStore) -> dict[str, list[str]]:
    """Return id to the aliases that point to it."""
    found: dict[str, list[str]] = {}
    for name, identity in store.aliases().items():
        found.setdefault(identity, []).append(name)
    return found


def told_log(log: Log) -> list[dict[str, Any]]:
    """Tell a log as JSON values."""
    return [
        {
            **each.to_dict(),
            "aliases": list(log.aliases.get(each.id, ())),
            "best": sorted(log.best.get(each.id, ())),
        }
        for each in log.versions
    ]


def page_of(store: VersionStore, ref: str) -> Page:
    """Gather everything of one version; a record that cannot be read is told as such."""
    from mvc_callbacks.render_values import hyperparameters
    from mvc_callbacks.render_version import Page

    version = store.get(ref)
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
        parents=_parents(store, [version], {}),
        aliases=aliases_of(store).get(version.id, ()),
        best=best_of(store.versions()).get(version.id, frozenset()),
        hyperparameters=given,
        run=run,
        more=more,
        trouble=trouble,
    )


def _without(record: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in names}


def run_lines_of(store: VersionStore) -> list[RunLine]:
    """Gather the lines of the table of runs, oldest first: one for each chain of resumed runs."""
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


def versions_of(store: VersionStore, ids: Iterable[str]) -> dict[str, Version]:
    """Return id to version, for those that the store has."""
    return {each: version for each in ids if (version := _get(store, each)) is not None}


def told_page(page: Page) -> dict[str, Any]:
    """Tell everything of a version as JSON values; hyperparameters as the tagged tree that was recorded."""
    version = page.version
    told = {
        **version.to_dict(),
        "aliases": list(page.aliases),
        "best": sorted(page.best),
        "trouble": page.trouble or None,
    }
    if page.trouble:
        return {**told, **dict.fromkeys(("hyperparameters", "code", "environment", "run_record", "more"))}
    details = version.details
    return {
        **told,
        "hyperparameters": details.record.get("hyperparameters") or {},
        "code": dict(details.code),
        "environment": dict(details.environment),
        "run_record": dict(page.run),
        "more": dict(page.more),
    }


def told_runs(store: VersionStore) -> list[dict[str, Any]]:
    """Tell runs as JSON values, each for itself."""
    runs = store.runs()
    first = {info.label: chain[0].label for chain in chains(runs) for info in chain}
    by_run: dict[str, list[Version]] = {}
    for version in store.versions():
        by_run.setdefault(version.run, []).append(version)
    return [
        {**info.to_dict(), "best": _told_best(by_run.get(info.label, [])), "chain": first[info.label]}
        for info in runs
    ]


def _told_best(versions: Sequence[Version]) -> dict[str, Any] | None:
    monitor = next((each.monitor for each in reversed(versions) if each.monitor), None)
    best = best_of(versions)
    for each in versions:
        if monitor is not None and monitor.name in best.get(each.id, ()):
            return {"number": each.number, "metric": monitor.name, "value": each.metrics[monitor.name]}
    return None


def told_aliases(
    current: Mapping[str, str], moves: Mapping[str, AliasMove], known: Mapping[str, Version]
) -> list[dict[str, Any]]:
    """Tell aliases as JSON values."""
    told = []
    for name, identity in current.items():
        version, move = known.get(identity), moves.get(name)
        place = {"run": version.run if version else None, "number": version.number if version else None}
        told.append({"name": name, "id": identity, **place, "move": move.to_dict() if move else None})
    return told
