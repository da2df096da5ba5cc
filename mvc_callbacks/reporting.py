"""Reporting: what a report shows of a store is read here."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvc_callbacks import files, listings
from mvc_callbacks.commit import now
from mvc_callbacks.errors import MVCError, UnknownRef, UnsafeFile
from mvc_callbacks.export import check_target
from mvc_callbacks.render_diff import touched
from mvc_callbacks.render_page import GENERATOR
from mvc_callbacks.render_tables import best_of
from mvc_callbacks.render_values import flatten, hyperparameters
from mvc_callbacks.report import Comparisons, Report
from mvc_callbacks.storage import disk_bytes, storage
from mvc_callbacks.versions import Fingerprint, Version
from mvc_callbacks.viewing import aliases_of, parents_of

if TYPE_CHECKING:
    from mvc_callbacks.layout import Layout
    from mvc_callbacks.store_reader import StoreReader

__all__ = ["gather", "write"]

_HEAD = 4096
MOST_TENSORS = 1_500_000
"""Tensors of all versions together that a page can compare; each takes some seven bytes of it."""
MOST_FILES = 200_000
"""Files of one listing that are held in memory to compare it with the others."""
MOST_APART = 20_000
"""Files of one source of data, over all of its listings, that are told apart."""


def gather(
    store: StoreReader,
    layout: Layout,
    *,
    created: str,
    runs: Collection[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Read what a report shows.

    Args:
        store: The store.
        layout: Where its files lie.
        created: When the report is made, UTC ISO-8601.
        runs: Labels of the runs to show; all if it is empty.
        progress: Called with the number of versions read and of all.

    Raises:
        UnknownRef: If there is no such run.
        CorruptHistory: If a history cannot be read. Records and manifests that cannot be are told as such.
    """
    every = store.versions()
    unknown = [run for run in runs if run not in {each.run for each in every}]
    if unknown:
        known = ", ".join(dict.fromkeys(each.run for each in every)) or "none yet"
        raise UnknownRef(f"there is no run {unknown[0]!r:.80} in {store.path}; runs: {known:.400}")
    shown = [each for each in every if not runs or each.run in runs]
    by_id = {each.id: each for each in every}
    inside = {each.id for each in shown}
    aliases = aliases_of(store)
    best = best_of(every)
    moves = [each for each in store.alias_log()[::-1] if not runs or {each.id, each.previous} & inside]
    return Report(
        path=str(store.path),
        created=created,
        versions=shown,
        elsewhere={key: each for key, each in parents_of(store, shown, by_id).items() if key not in inside},
        aliases=aliases,
        best=best,
        moves=moves,
        storage=[each for each in storage(layout, every) if not runs or each.run in runs],
        disk_bytes=disk_bytes(layout),
        left_out=len(every) - len(shown),
        comparisons=_comparisons(store, shown, {*aliases, *best}, progress),
    )


def write(
    store: StoreReader,
    layout: Layout,
    file: str | os.PathLike[str],
    *,
    runs: Collection[str] = (),
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a report; the file appears whole or not at all.

    Args:
        store: The store.
        layout: Where its files lie.
        file: The page; a report is replaced, other files only with ``overwrite``.
        runs: As `gather`.
        overwrite: Replace a file that is no report.
        progress: As `gather`.

    Returns:
        The file, links followed.

    Raises:
        FileExistsError: If the file is there already, and is no report.
        UnsafeFile: If the path is a folder, a device, or inside the store.
        OSError: If the disk refuses; nothing is left behind.
    """
    from mvc_callbacks.render_report import report_text

    target = check_target(file, overwrite=overwrite or _is_report(Path(file).expanduser()))
    if layout.path.resolve() in target.resolve().parents:
        raise UnsafeFile(f"{target} is inside the store {store.path}: give a file elsewhere")
    text = report_text(gather(store, layout, created=now(), runs=runs, progress=progress))
    files.sweep(target.parent)
    files.move(files.stage(target.parent, [text.encode("utf-8", "backslashreplace")]), target)
    files.sync_folder(target.parent)
    return target


def _is_report(path: Path) -> bool:
    """Tell whether a file is a report that was written before."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return f'name="generator" content="{GENERATOR}"'.encode() in file.read(_HEAD)
    except OSError:
        return False


def _comparisons(
    store: StoreReader,
    versions: list[Version],
    first: Collection[str],
    progress: Callable[[int, int], None] | None,
) -> Comparisons:
    found = Comparisons()
    listed = _files(store, found, versions)
    patches: dict[str, dict[str, Any]] = {}
    # Those that people look at most come first, should there be more tensors than a page takes.
    ordered = sorted(versions, key=lambda each: (each.id not in first, -each.sequence))
    left = MOST_TENSORS
    for place, version in enumerate(ordered):
        digest = version.weights.digest
        told: dict[str, Any] = {
            "files": {name: listed[name, each.listing] for name, each in version.data.items()}
        }
        told.update(_recorded(store, found, version, patches))
        if found.has_weights(digest) or version.weights.tensors <= left:
            left -= 0 if found.has_weights(digest) else version.weights.tensors
            try:
                told["weights"] = found.add_weights(digest, store.entries(version))
            except MVCError:  # pruned, with its manifest; or damaged, and `verify` tells it
                told["why"] = "pruned" if not version.has_weights else "damaged"
        else:
            told["why"] = "too many"
        found.versions[version.id] = told
        if progress is not None:
            progress(place + 1, len(ordered))
    return found


def _recorded(
    store: StoreReader, found: Comparisons, version: Version, patches: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    try:
        details = version.details
    except (MVCError, OSError) as error:
        return {"trouble": str(error)}
    code = flatten(details.code)
    patch = details.code.get("patch")
    if isinstance(patch, str):
        if patch not in patches:
            patches[patch] = _touched(store, patch)
        code |= patches[patch]
    return {
        "hyperparameters": found.add_facts(hyperparameters(details.record.get("hyperparameters"))),
        "code": found.add_facts({key: each for key, each in code.items() if each not in (None, "", [], {})}),
        "environment": found.add_facts(flatten(details.environment)),
    }


def _touched(store: StoreReader, patch: str) -> dict[str, Any]:
    """Name the files that a patch touches. Its text stays in the store: a page is easily given away."""
    try:
        text = store.patch(patch).decode("utf-8", "replace")
    except MVCError:
        return {}
    return {f"not committed: {name}": f"+{more} -{less}" for name, (more, less) in touched(text).items()}


def _files(
    store: StoreReader, found: Comparisons, versions: Iterable[Version]
) -> dict[tuple[str, str | None], int | None]:
    """Take the listings of each source: to compare any two, only what some of them lack has to be told."""
    sources: dict[str, dict[str | None, Fingerprint]] = {}
    for version in versions:
        for name, each in version.data.items():
            sources.setdefault(name, {})[each.listing] = each
    numbers: dict[tuple[str, str | None], int | None] = {}
    for name, mine in sources.items():
        known = {listing: _entries(store, each) for listing, each in mine.items() if listing is not None}
        readable = [each for each in known.values() if each is not None]
        common = set.intersection(*readable) if readable else set()
        enough = sum(len(each) - len(common) for each in readable) <= MOST_APART
        for listing in mine:
            entries = known.get(listing) if listing is not None else None
            told = None
            if entries is not None and enough:
                told = [(listings.show_name(each.path), each[1:]) for each in sorted(entries - common)]
            numbers[name, listing] = None if listing is None else found.add_files(told)
    return numbers


def _entries(store: StoreReader, data: Fingerprint) -> set[listings.Entry] | None:
    if data.listing is None or data.files > MOST_FILES:
        return None
    try:
        return set(listings.read([store.listing(data.listing)]))
    except MVCError:  # missing or damaged: `verify` tells it
        return None
