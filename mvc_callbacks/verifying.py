"""Verifying a store: what is damaged or missing, and which versions and tensors that hurts."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from mvc_callbacks.aliases import AliasTable
from mvc_callbacks.canonical import encode
from mvc_callbacks.errors import CorruptHistory, CorruptObject, MissingObject, MVCError
from mvc_callbacks.finding import order_of
from mvc_callbacks.history import Row
from mvc_callbacks.layout import Layout
from mvc_callbacks.manifests import Manifest
from mvc_callbacks.objects import Suffix
from mvc_callbacks.packs import SINGLE, parse_header, tensor_at
from mvc_callbacks.rows import row_of

__all__ = ["Problem", "Report", "Verifier"]

_SHOWN = 50


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        kind: ``damaged``, ``missing``, ``history``, ``record`` or ``lineage``.
        what: The object, record or file.
        text: What is wrong, and what to do.
        versions: Full ids of the versions that it hurts.
        tensors: Names of the tensors that it hurts, at most 50.
    """

    kind: str
    what: str
    text: str
    versions: tuple[str, ...] = ()
    tensors: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Tell the problem as plain JSON values."""
        return {**asdict(self), "versions": list(self.versions), "tensors": list(self.tensors)}


@dataclass(frozen=True, slots=True)
class Report:
    """What a verification found.

    Attributes:
        problems: What is wrong; empty where all is well.
        versions: Number of versions looked at.
        objects: Number of objects looked at.
        bytes: Bytes read and hashed; 0 for a quick verification.
        full: Whether every byte was read.
    """

    problems: tuple[Problem, ...]
    versions: int
    objects: int
    bytes: int
    full: bool

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """Tell the report as plain JSON values."""
        told = [problem.to_dict() for problem in self.problems]
        return {
            "ok": self.ok,
            "full": self.full,
            "versions": self.versions,
            "objects": self.objects,
            "bytes": self.bytes,
            "problems": told,
        }


class Verifier:
    """Looks at everything that a store's history names.

    Args:
        layout: The store.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._problems: list[Problem] = []
        self._users: dict[tuple[str, Suffix], list[tuple[str, str]]] = {}
        self._manifests: dict[str, Manifest] = {}

    def verify(self, *, full: bool, progress: Callable[[int, int], None] | None = None) -> Report:
        """Verify structure and presence, or every byte.

        Args:
            full: Hash every object, and move damaged ones aside so that the next save of them heals the store.
            progress: Called with the objects done and their number.

        Returns:
            What is wrong.
        """
        rows = self._rows()
        ids = {row["id"] for row in rows}
        for row in rows:
            self._check_row(row, ids)
        self._check_aliases(ids)
        read = 0
        if full:
            with ThreadPoolExecutor(max(2, os.cpu_count() or 2)) as pool:
                for done, size in enumerate(pool.map(self._check_object, list(self._users)), 1):
                    read += size
                    if progress is not None:
                        progress(done, len(self._users))
        else:
            for digest, suffix in self._users:
                if self._layout.objects.size_of(digest, suffix) is None:
                    self._blame_object("missing", digest, suffix, "is missing")
        return Report(tuple(self._problems), len(rows), len(self._users), read, full)

    def _rows(self) -> list[Row]:
        rows = []
        for run in self._layout.history.runs():
            try:
                rows += list(self._layout.history.rows(run))
            except (MVCError, OSError) as error:
                self._problems.append(Problem("history", f"history/{run}", str(error)))
        seen: set[str] = set()
        for row in rows:
            if row["id"] in seen:
                text = f"version {row['id'][:12]} stands twice in the history; run `mvc rebuild`"
                self._problems.append(Problem("history", f"history/{row['run']}", text, (row["id"],)))
            seen.add(row["id"])
        return sorted(rows, key=order_of)

    def _check_row(self, row: Row, ids: set[str]) -> None:
        identity = row["id"]
        try:
            record = self._layout.versions.read(identity)
            told = row_of(identity, record)
        except (MVCError, OSError) as error:
            self._problems.append(Problem("record", f"versions/{identity}", str(error), (identity,)))
            return
        later = {"pruned": [], "evaluations": [], "data": {}}  # events tell these
        if encode({**row, **later}) != encode({**told, **later}):  # as bytes: NaN is not equal to itself
            text = f"the history's row of {row['run']}/{row['number']} is not what its record says; run `mvc rebuild`"
            self._problems.append(Problem("history", f"history/{row['run']}", text, (identity,)))
        if not self._layout.runs.has(record["run"]["id"]):
            text = f"the record of the run {row['run']} is missing: its code and environment are not known"
            self._problems.append(Problem("missing", f"runs/{record['run']['id']}", text, (identity,)))
        for parent in row["parents"]:
            if parent["id"] == identity or (
                parent["id"] not in ids and not self._layout.versions.has(parent["id"])
            ):
                text = f"the parent {parent['id'][:12]} of {row['run']}/{row['number']} is not in the store"
                self._problems.append(Problem("lineage", f"versions/{identity}", text, (identity,)))
        self._collect(row)

    def _collect(self, row: Row) -> None:
        gone = {each["what"] for each in row["pruned"]}
        for told in row["data"].values():
            if told.get("listing"):
                self._use(told["listing"], ".jsonl", row["id"], "data listing")
        if "weights" in gone:
            return
        self._collect_state(row["weights"]["digest"], row["id"], "")
        if row["state"] is not None and "state" not in gone:
            self._use(row["state"]["tree"], ".json", row["id"], "training state")
            self._collect_state(row["state"]["digest"], row["id"], "training state: ")

    def _collect_state(self, digest: str, identity: str, prefix: str) -> None:
        try:
            if digest not in self._manifests:
                self._manifests[digest] = self._layout.manifests.read(digest)
        except (MVCError, OSError) as error:
            kind = "missing" if isinstance(error, MissingObject) else "damaged"
            self._problems.append(Problem(kind, f"manifests/{digest}", str(error), (identity,)))
            return
        for entry in self._manifests[digest].entries:
            self._use(entry.object, ".safetensors", identity, prefix + entry.name)

    def _use(self, digest: str, suffix: Suffix, identity: str, tensor: str) -> None:
        self._users.setdefault((digest, suffix), []).append((identity, tensor))

    def _check_object(self, file: tuple[str, Suffix]) -> int:
        digest, suffix = file
        try:
            data = self._layout.objects.read(digest, suffix)
            if suffix == ".safetensors":
                self._check_tensors(digest, data)
            return len(data)
        except MissingObject:
            self._blame_object("missing", digest, suffix, "is missing")
        except CorruptObject:
            self._layout.objects.set_aside(digest, suffix, f"{digest}{suffix}.damaged")
            self._blame_object("damaged", digest, suffix, "is damaged; it was moved aside as .damaged")
        except (MVCError, OSError) as error:
            self._blame_object("damaged", digest, suffix, f"cannot be read ({error})")
        return 0

    def _check_tensors(self, digest: str, data: memoryview) -> None:
        """Hash the tensors of a pack: its name says that it is what was written, not that the digests are true."""
        what = f"objects/{digest}"
        for key, place in parse_header(data, len(data), what=what).items():
            if key == SINGLE:
                continue
            form = next(
                (
                    (entry.dtype, entry.shape)
                    for manifest in self._manifests.values()
                    for entry in manifest.entries
                    if entry.object == digest and entry.digest == key
                ),
                None,
            )
            if form is not None and tensor_at(data, place, *form, what=what).digest() != key:
                raise CorruptObject(f"{what} has a tensor that is not what its key says")

    def _blame_object(self, kind: str, digest: str, suffix: str, text: str) -> None:
        users = self._users[digest, suffix]  # type: ignore[index]
        versions = tuple(dict.fromkeys(identity for identity, _ in users))
        tensors = tuple(dict.fromkeys(name for _, name in users))[:_SHOWN]
        hint = "saving the same tensors again heals it"
        what = f"objects/{digest[:2]}/{digest}{suffix}"
        self._problems.append(Problem(kind, what, f"{what} {text}; {hint}", versions, tensors))

    def _check_aliases(self, ids: set[str]) -> None:
        table = AliasTable(self._layout.aliases_path, self._layout.staging)
        try:
            for name, identity in table.current().items():
                if identity not in ids:
                    text = f"the alias {name} points to {identity[:12]}, which the history does not have"
                    self._problems.append(Problem("lineage", "aliases.json", text, (identity,)))
        except CorruptHistory as error:
            self._problems.append(Problem("history", "aliases.json", str(error)))
