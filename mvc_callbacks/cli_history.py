"""What the reading commands ask a store for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mvc_callbacks.errors import Misconfigured
from mvc_callbacks.render_tables import Log, best_of
from mvc_callbacks.versions import AliasMove, Version
from mvc_callbacks.viewing import aliases_of, chains, parents_of

if TYPE_CHECKING:
    from mvc_callbacks.render_version import Page
    from mvc_callbacks.selecting import Selection
    from mvc_callbacks.store_reader import StoreReader

__all__ = ["log_of", "told_aliases", "told_log", "told_page", "told_runs"]


_MOST_NAMED = 12


def log_of(
    store: StoreReader,
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
    if ref is None and not selection and limit is not None:
        return _newest(store, run, limit, metrics, graph)
    every = store.versions(run)
    if every:
        _refuse_unknown(metrics, [name for each in every for name in each.metrics])
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
        parents={**known, **parents_of(store, shown, known)},
        aliases=aliases_of(store),
        best=best,
        metrics=metrics,
        graph=graph,
        remarks=remarks,
    )
    return log, len(chosen) - len(shown)


def _newest(
    store: StoreReader, run: str | None, limit: int, metrics: Sequence[str], graph: bool | None
) -> tuple[Log, int]:
    """Gather the newest versions alone: a store may have 100 000."""
    found = store.overview(run, newest=2 * limit)  # most parents are among those before
    if found.versions:
        _refuse_unknown(metrics, found.metrics)
    shown = found.newest[:limit]
    known = {version.id: version for version in found.newest}
    log = Log(
        versions=shown,
        parents={**known, **parents_of(store, shown, known)},
        aliases=aliases_of(store),
        best=found.best,
        metrics=metrics,
        graph=graph,
        remarks={},
    )
    return log, max(found.versions - len(shown), 0)


def _refuse_unknown(metrics: Sequence[str], names: Iterable[str]) -> None:
    known = dict.fromkeys(names)
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


def told_runs(store: StoreReader) -> list[dict[str, Any]]:
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
