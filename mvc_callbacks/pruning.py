"""Pruning: which objects nobody needs, and their removal beside saves that go on."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mvc_callbacks import files
from mvc_callbacks.commit import now
from mvc_callbacks.errors import CorruptRecord, MissingObject, StoreLocked
from mvc_callbacks.history import Row
from mvc_callbacks.layout import Layout
from mvc_callbacks.needs import File, Needs
from mvc_callbacks.rows import apply_event

__all__ = ["PruneReport", "Pruner", "has"]

_A_DAY = 24 * 3600


@dataclass(frozen=True, slots=True)
class PruneReport:
    """What a removal did, or would do.

    Attributes:
        versions: Full ids of the versions pruned.
        objects: Number of objects removed.
        freed_bytes: Their bytes, and those of staged files that crashes left.
        dry_run: Whether nothing was removed.
        kept: Ids left alone although they were chosen, with the reason.
    """

    versions: tuple[str, ...]
    objects: int
    freed_bytes: int
    dry_run: bool = False
    kept: tuple[tuple[str, str], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Tell the report as plain JSON values."""
        return {
            "versions": list(self.versions),
            "objects": self.objects,
            "freed_bytes": self.freed_bytes,
            "dry_run": self.dry_run,
            "kept": [{"id": identity, "why": why} for identity, why in self.kept],
        }


class Pruner:
    """Removes what no version needs. All of its methods hold the store's lock themselves.

    Args:
        layout: The store.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._rows: dict[Path, tuple[tuple[int, int, int], list[Row]]] = {}
        self.needs = Needs(layout)

    def prune(
        self, rows: Iterable[Row], *, what: Literal["weights", "state"], policy: str, dry_run: bool = False
    ) -> PruneReport:
        """Remove the weights (and state) or the state of versions.

        Args:
            rows: The versions, as they are now: read after the lock was taken.
            what: ``weights`` or ``state``.
            policy: Why, in words.
            dry_run: Tell only; takes no lock and writes nothing.

        Returns:
            What was removed.

        Raises:
            MVCError: If a history, record or manifest cannot be read: then nobody knows what is still needed.
            StoreLocked: If the store's lock does not work.
        """
        with nullcontext(True) if dry_run else self._layout.lock("pruning") as works:
            self._refuse_without_lock(works)
            chosen = {row["id"]: row for row in rows if has(row, what)}
            found, manifests = self._files(chosen.values())
            with self.needs.asked() as needs:
                doomed = found - needs.by_others(found, chosen.keys(), what)
                manifests -= needs.manifests_by_others(manifests, chosen.keys(), what)
            report = self._report(sorted(chosen), doomed, dry_run)
            if dry_run or not chosen:
                return report
            fields = {
                "event": "prune",
                "versions": sorted(chosen),
                "what": what,
                "policy": policy,
                "time": now(),
            }
            identity = self._layout.events.write(fields)
            self._layout.new_epoch()
            for run in {row["run"] for row in chosen.values()}:
                numbers = [row["number"] for row in chosen.values() if row["run"] == run]
                self._layout.history.update(run, numbers, lambda each: apply_event(each, identity, fields))
            self._remove(doomed, manifests)
            return report

    def sweep(self, *, dry_run: bool = False) -> PruneReport:
        """Remove what crashes left: objects and manifests that no version needs, and old staged files.

        Raises:
            MVCError: As `prune`.
        """
        with nullcontext(True) if dry_run else self._layout.lock("sweeping") as works:
            self._refuse_without_lock(works)
            there = {(digest, suffix) for digest, suffix, _ in self._layout.objects.all()}
            manifests = set(self._layout.manifests.all())
            with self.needs.asked() as needs:
                left = there - needs.by_others(there, (), "weights")
                manifests -= needs.manifests_by_others(manifests, (), "weights")
            doomed = {each for each in left if self._is_old(each)}
            doomed -= self._told_of(doomed, set())
            report = self._report([], doomed, dry_run)
            if dry_run:
                return report
            if doomed or manifests:
                self._layout.new_epoch()
                self._remove(doomed, manifests)
            staged = self._layout.sweep_staging()
            return PruneReport((), report.objects, report.freed_bytes + staged)

    def delete_run(self, run: str, rows: list[Row]) -> PruneReport:
        """Remove a run with its versions' records.

        Raises:
            MVCError: As `prune`.
        """
        with self._layout.lock(f"deleting the run {run}") as works:
            self._refuse_without_lock(works)
            ids = {row["id"] for row in rows}
            runs = {record for row in rows if (record := self._run_record(row)) is not None}
            found, manifests = self._files(rows)
            found |= {each for row in rows for each in _listings(row)}
            found |= {each for record in runs for each in self._patches(record)}
            with self.needs.asked() as needs:
                left = found - needs.by_others(found, ids, "weights")
                manifests -= needs.manifests_by_others(manifests, ids, "weights")
            doomed = {each for each in left if self._is_old(each)}
            doomed -= self._told_of(doomed, ids)
            report = self._report(sorted(ids), doomed, dry_run=False)
            self._layout.events.write({"event": "delete", "run": run, "versions": sorted(ids), "time": now()})
            self._layout.new_epoch()
            self._layout.history.remove(run)
            self._remove(doomed, manifests)
            for identity in sorted(ids):
                self._layout.versions.remove(identity)
            for each in runs:
                self._layout.runs.remove(each)
            return report

    def _refuse_without_lock(self, works: bool) -> None:
        if not works:
            raise StoreLocked(
                f"{self._layout.lock.path}: this file system has no locks, so a save that goes on elsewhere "
                "might "
                "lose its objects. Nothing was removed; prune on a machine where the store's disk is local"
            )

    def _every_row(self) -> Iterator[Row]:
        """Go through all rows, reading again only the databases that changed."""
        seen = {}
        for run in self._layout.history.runs():
            for path in self._layout.history.chunks(run):
                stamp = files.stamp_of(path)
                cached = self._rows.get(path)
                if cached is None or cached[0] != stamp:
                    cached = (stamp, self._layout.history.rows_of(path))
                seen[path] = cached
                yield from cached[1]
        self._rows = seen

    def _files(self, rows: Iterable[Row]) -> tuple[set[File], set[str]]:
        """Return the objects of versions' weights and states, and the manifests that can be read."""
        found: set[File] = set()
        manifests: set[str] = set()
        for row in rows:
            gone = {each["what"] for each in row["pruned"]}
            if "weights" in gone:
                continue
            digests = [row["weights"]["digest"]]
            if row["weights"]["additions"] is not None:
                found.add((row["weights"]["additions"], ".json"))
            if "state" not in gone and row["state"] is not None:
                found.add((row["state"]["tree"], ".json"))
                digests.append(row["state"]["digest"])
            for digest in digests:
                manifests.add(digest)
                with suppress(MissingObject, CorruptRecord):  # a sweep finds what is then left
                    manifest = self._layout.manifests.read(digest)
                    found |= {(each, ".safetensors") for each in manifest.objects}
                    manifests |= {manifest.base} if manifest.base is not None else set()
        return found, manifests

    def _told_of(self, candidates: set[File], deleted: Collection[str]) -> set[File]:
        """Return those listings and patches that a version keeps, also when it is pruned."""
        wanted = {each for each in candidates if each[1] in (".jsonl", ".patch")}
        if not wanted:
            return set()
        kept: set[File] = set()
        patches: dict[str, set[File]] = {}
        for row in self._every_row():
            if row["id"] in deleted:
                continue
            kept |= wanted & _listings(row)
            record = self._layout.versions.read(row["id"])["run"]["id"]
            if record not in patches:
                patches[record] = self._patches(record)
                kept |= wanted & patches[record]
        return kept

    def _run_record(self, row: Row) -> str | None:
        with suppress(MissingObject, CorruptRecord, KeyError, TypeError):
            return str(self._layout.versions.read(row["id"])["run"]["id"])
        return None

    def _patches(self, run_record: str) -> set[File]:
        if not self._layout.runs.has(run_record):
            return set()
        code = self._layout.runs.read(run_record).get("code")
        patch = code.get("patch") if isinstance(code, dict) else None
        return {(patch, ".patch")} if isinstance(patch, str) else set()

    def _is_old(self, file: File) -> bool:
        """Tell whether no save that still goes on can have written it for a version to come.

        A save writes tensors and trees again when a prune took them. Listings and patches wait a day; who
        stored those that go all the same has an open file of them: see `holding`.
        """
        path = self._layout.objects.path_of(*file)
        if file[1] not in (".jsonl", ".patch") or not files.exists(path):
            return True
        return time.time() - files.stamp_of(path)[2] / 1e9 > _A_DAY

    def _report(self, ids: list[str], doomed: set[File], dry_run: bool) -> PruneReport:
        sizes = [size for each in doomed if (size := self._layout.objects.size_of(*each)) is not None]
        return PruneReport(tuple(ids), len(sizes), sum(sizes), dry_run)

    def _remove(self, doomed: set[File], manifests: set[str]) -> None:
        for digest in sorted(manifests):
            self._layout.manifests.remove(digest)
        for digest, suffix in sorted(doomed):
            self._layout.objects.remove(digest, suffix)


def has(row: Row, what: str) -> bool:
    """Tell whether a version still has its weights, or its training state."""
    gone = {each["what"] for each in row["pruned"]}
    return "weights" not in gone and (what == "weights" or ("state" not in gone and row["state"] is not None))


def _listings(row: Row) -> set[File]:
    told = [*row["data"].values(), *(each for one in row["evaluations"] for each in one["data"].values())]
    return {(each["listing"], ".jsonl") for each in told if each.get("listing")}
