"""Pruning: which objects nobody needs, and their removal beside saves that go on."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mvc_callbacks import files
from mvc_callbacks.commit import now
from mvc_callbacks.errors import StoreLocked
from mvc_callbacks.history import Row
from mvc_callbacks.layout import Layout
from mvc_callbacks.manifests import Manifest
from mvc_callbacks.objects import Suffix
from mvc_callbacks.rows import apply_event

__all__ = ["PruneReport", "Pruner"]

File = tuple[str, Suffix]
_A_DAY = 24 * 3600


@dataclass(frozen=True, slots=True)
class PruneReport:
    """What a removal did, or would do.

    Attributes:
        versions: Full ids of the versions pruned.
        objects: Number of objects removed.
        freed_bytes: Their bytes, and those of manifests.
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
        self._manifests: dict[str, tuple[tuple[int, int, int], Manifest]] = {}
        self._kept_files: dict[str, frozenset[File]] = {}

    def prune(self, rows: Iterable[Row], *, what: str, policy: str, dry_run: bool = False) -> PruneReport:
        """Remove the weights (and state) or the state of versions.

        Args:
            rows: The versions.
            what: ``weights`` or ``state``.
            policy: Why, in words.
            dry_run: Tell only.

        Returns:
            What was removed.

        Raises:
            MVCError: If a history, record or manifest cannot be read: then nobody knows what is still needed.
            StoreLocked: If the store's lock does not work.
        """
        with self._layout.lock("pruning") as works:
            self._refuse_without_lock(works)
            chosen = [row for row in rows if self._has(row, what)]
            before = self._files(chosen)
            ids = {row["id"] for row in chosen}
            doomed = before - self._needed(ids, what)
            report = self._report(sorted(ids), doomed, dry_run)
            if dry_run or not chosen:
                return report
            fields = {
                "event": "prune",
                "versions": sorted(ids),
                "what": what,
                "policy": policy,
                "time": now(),
            }
            identity = self._layout.events.write(fields)
            self._layout.new_epoch()
            for row in chosen:
                self._layout.history.update(
                    row["run"], row["number"], lambda each: apply_event(each, identity, fields)
                )
            self._remove(doomed)
            self._remove_manifests()
            return report

    def sweep(self, *, dry_run: bool = False) -> PruneReport:
        """Remove every object that no version needs: what crashes have left.

        Raises:
            MVCError: As `prune`.
        """
        with self._layout.lock("sweeping") as works:
            self._refuse_without_lock(works)
            needed = self._needed(set(), "weights")
            there = {(digest, suffix) for digest, suffix, _ in self._layout.objects.all()}
            doomed = {each for each in there - needed if self._is_old(each)}
            report = self._report([], doomed, dry_run)
            if not dry_run and doomed:
                self._layout.new_epoch()
                self._remove(doomed)
            if not dry_run:
                self._remove_manifests()
            return report

    def delete_run(self, run: str, rows: list[Row]) -> PruneReport:
        """Remove a run with its versions' records.

        Raises:
            MVCError: As `prune`.
        """
        with self._layout.lock(f"deleting the run {run}") as works:
            self._refuse_without_lock(works)
            ids = {row["id"] for row in rows}
            runs = {self._layout.versions.read(row["id"])["run"]["id"] for row in rows}
            found = self._files(rows) | {each for row in rows for each in self._kept(row)}
            doomed = {
                each for each in found - self._needed(ids, "weights", deleted=True) if self._is_old(each)
            }
            report = self._report(sorted(ids), doomed, dry_run=False)
            self._layout.events.write({"event": "delete", "run": run, "versions": sorted(ids), "time": now()})
            self._layout.new_epoch()
            self._layout.history.remove(run)
            self._remove(doomed)
            self._remove_manifests()
            for identity in sorted(ids):
                self._layout.versions.remove(identity)
            for each in runs:
                self._layout.runs.remove(each)
            return report

    def _refuse_without_lock(self, works: bool) -> None:
        if not works:
            raise StoreLocked(
                f"{self._layout.lock.path}: this file system has no locks, so a save that goes on elsewhere might lose "
                "its objects. Nothing was removed; prune on a machine where the store's disk is local"
            )

    def _has(self, row: Row, what: str) -> bool:
        gone = {each["what"] for each in row["pruned"]}
        return "weights" not in gone and (
            what == "weights" or ("state" not in gone and row["state"] is not None)
        )

    def _every_row(self) -> Iterable[Row]:
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

    def _needed(self, without: set[str], what: str, *, deleted: bool = False) -> set[File]:
        """Return what versions need when some lose their weights or state."""
        needed: set[File] = set()
        for row in self._every_row():
            mine = row["id"] in without
            if not (mine and deleted):
                needed |= self._kept(row)
            gone = {each["what"] for each in row["pruned"]} | ({what} if mine else set())
            if "weights" in gone:
                continue
            needed |= {(each, ".safetensors") for each in self._manifest(row["weights"]["digest"]).objects}
            if "state" not in gone:
                needed |= self._state_files(row)
        return needed

    def _files(self, rows: Iterable[Row]) -> set[File]:
        """Return the objects of versions' weights and states, as far as they are still there."""
        found: set[File] = set()
        for row in rows:
            gone = {each["what"] for each in row["pruned"]}
            if "weights" not in gone:
                found |= {(each, ".safetensors") for each in self._manifest(row["weights"]["digest"]).objects}
                found |= self._state_files(row) if "state" not in gone else set()
        return found

    def _state_files(self, row: Row) -> set[File]:
        if row["state"] is None:
            return set()
        objects = self._manifest(row["state"]["digest"]).objects
        return {(row["state"]["tree"], ".json"), *((each, ".safetensors") for each in objects)}

    def _kept(self, row: Row) -> frozenset[File]:
        """Return the listings and patches of a version, which it keeps when it is pruned."""
        listings = {told.get("listing") for told in row["data"].values()}
        listings |= {told.get("listing") for each in row["evaluations"] for told in each["data"].values()}
        return frozenset({(each, ".jsonl") for each in listings if each}) | self._run_files(row)

    def _run_files(self, row: Row) -> frozenset[File]:
        if row["run"] not in self._kept_files:
            run = self._layout.versions.read(row["id"])["run"]["id"]
            told = self._layout.runs.read(run) if self._layout.runs.has(run) else {}
            patch = (told.get("code") or {}).get("patch")
            self._kept_files[row["run"]] = frozenset({(patch, ".patch")} if isinstance(patch, str) else ())
        return self._kept_files[row["run"]]

    def _is_old(self, file: File) -> bool:
        """Tell whether no save that still goes on can have written it for a version to come.

        A save writes tensors and trees again when a prune took them. Listings and patches it cannot: they wait a day.
        """
        path = self._layout.objects.path_of(*file)
        return file[1] not in (".jsonl", ".patch") or time.time() - files.stamp_of(path)[2] / 1e9 > _A_DAY

    def _manifest(self, digest: str) -> Manifest:
        # A manifest may have been replaced by one that names other objects: the stamp tells.
        stamp = files.stamp_of(self._layout.manifests.path_of(digest))
        cached = self._manifests.get(digest)
        if cached is None or cached[0] != stamp:
            cached = (stamp, self._layout.manifests.read(digest))
            self._manifests[digest] = cached
        return cached[1]

    def _report(self, ids: list[str], doomed: set[File], dry_run: bool) -> PruneReport:
        sizes = [size for each in doomed if (size := self._layout.objects.size_of(*each)) is not None]
        return PruneReport(tuple(ids), len(sizes), sum(sizes), dry_run)

    def _remove(self, doomed: set[File]) -> None:
        for digest, suffix in sorted(doomed):
            self._layout.objects.remove(digest, suffix)

    def _remove_manifests(self) -> None:
        """Remove manifests of states that no version has, and that no kept manifest refers to."""
        kept: set[str] = set()
        for row in self._every_row():
            gone = {each["what"] for each in row["pruned"]}
            kept |= {row["weights"]["digest"]} if "weights" not in gone else set()
            kept |= {row["state"]["digest"]} if row["state"] and not gone else set()
        referring = kept
        while (
            referring := {base for digest in referring if (base := self._manifest(digest).base) is not None}
            - kept
        ):
            kept |= referring
        for digest in set(self._layout.manifests.all()) - kept:
            self._layout.manifests.remove(digest)
            self._manifests.pop(digest, None)
