"""Verifying a store: what is damaged or missing, and which versions and tensors that hurts."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from mvc_callbacks import files
from mvc_callbacks.aliases import AliasTable
from mvc_callbacks.errors import CorruptHistory, CorruptObject, MissingObject, MVCError
from mvc_callbacks.finding import order_of
from mvc_callbacks.history import Row
from mvc_callbacks.layout import Layout
from mvc_callbacks.manifests import Entry, Manifest
from mvc_callbacks.objects import Suffix
from mvc_callbacks.packs import SINGLE, Place, parse_header, tensor_at
from mvc_callbacks.rows import by_version, differs, is_event, is_told, row_of
from mvc_callbacks.writing import header_if_whole, holds

__all__ = ["Problem", "Report", "Verifier"]

File = tuple[str, Suffix]
_SHOWN = 50
_TRIES = 3


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        kind: ``damaged``, ``missing``, ``unreadable``, ``history``, ``record`` or ``lineage``.
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
        self._begin()

    def _begin(self) -> None:
        self._problems: list[Problem] = []
        self._users: dict[File, list[tuple[str, str]]] = {}
        self._bad: dict[File, tuple[str, str]] = {}
        self._manifests: dict[str, Manifest] = {}
        self._entries: dict[str, list[tuple[str, Entry]]] = {}  # object to what manifests look for in it
        self._states: dict[str, list[str]] = {}  # manifest to the versions that need it
        self._untrue: list[tuple[str, Entry]] = []
        self._runs: dict[str, Any] = {}

    def verify(self, *, full: bool, progress: Callable[[int, int], None] | None = None) -> Report:
        """Verify structure and presence, or every byte.

        Args:
            full: Hash every object, and move damaged ones aside so that the next save of them heals it.
            progress: Called with the objects done and their number.

        Returns:
            What is wrong.
        """
        for _ in range(_TRIES):
            epoch = self._layout.shared().epoch
            self._begin()
            rows, read = self._look(full, progress)
            if not (self._problems or self._bad) or self._look_again(full):
                break
            if self._layout.shared().epoch == epoch:  # else what a prune took meanwhile is not missing
                break
        for file, (kind, text) in self._bad.items():
            done = self._set_aside(file) if full and kind == "damaged" else ""
            if done is not None:
                self._blame(kind, file, f"{text}{done}")
        problems = sorted(self._problems, key=lambda each: (each.kind, each.what, each.text))
        return Report(tuple(problems), rows, len(self._users), read, full)

    def _look_again(self, full: bool) -> bool:
        """Look again while nobody prunes: what went meanwhile with its version is not missing.

        Returns:
            Whether that can be done: who may only read has no lock.
        """
        damaged = {file: bad for file, bad in self._bad.items() if bad[0] != "missing"}
        try:
            self._layout.make_staging()
            with self._layout.lock("verifying again what is wrong"):
                self._begin()
                self._look(False, None)
        except (MVCError, OSError):
            return False
        if full:
            self._bad.update((file, bad) for file, bad in damaged.items() if file in self._users)
        return True

    def _look(self, full: bool, progress: Callable[[int, int], None] | None) -> tuple[int, int]:
        recorded = self._recorded()  # before the rows: a version that is added meanwhile is not lost
        rows = self._rows()
        ids = {row["id"] for row in rows}
        broken: list[str] = []
        events = [each for each in self._layout.events.all(broken) if is_event(each[1])]
        self._problems += [Problem("record", "events", text) for text in broken]
        later = by_version(events)
        known = ids | {
            each for _, event in events if event["event"] == "delete" for each in event["versions"]
        }
        for row in rows:
            self._check_row(row, known, later.get(row["id"], []))
        self._check_recorded(recorded - known, rows)
        self._check_aliases(ids, {identity: event for identity, event in events if event["event"] == "alias"})
        read = 0
        check = self._check_bytes if full else self._check_presence
        with ThreadPoolExecutor(max(2, os.cpu_count() or 2), thread_name_prefix="mvc-verify") as pool:
            for done, size in enumerate(pool.map(check, list(self._users)), 1):
                read += size
                if progress is not None:
                    progress(done, len(self._users))
        self._blame_manifests()
        return len(rows), read

    def _rows(self) -> list[Row]:
        rows: list[Row] = []
        try:
            self._layout.check_history()
        except CorruptHistory as error:
            self._problems.append(Problem("history", "history", str(error)))
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

    def _recorded(self) -> set[str]:
        try:
            return set(self._layout.versions.ids())
        except (MVCError, OSError) as error:
            self._problems.append(Problem("record", "versions", str(error)))
            return set()

    def _check_recorded(self, unlisted: set[str], rows: list[Row]) -> None:
        """Report versions that the history has lost.

        A crash leaves a record without a row, too; but nothing was trained from a version that was not
        acknowledged.
        """
        told: dict[str, Row] = {}
        for identity in unlisted:
            with suppress(MVCError, OSError):  # one that cannot be believed tells nothing
                told[identity] = row_of(identity, self._layout.versions.read(identity))
        parents = {each["id"] for row in (*rows, *told.values()) for each in row["parents"]}
        for identity in sorted(parents & told.keys()):
            lost = told[identity]
            text = f"{lost['run']}/{lost['number']} is not in the history although it was; run `mvc rebuild`"
            self._problems.append(Problem("history", f"history/{lost['run']}", text, (identity,)))

    def _check_row(self, row: Row, known: set[str], events: list[tuple[str, Mapping[str, Any]]]) -> None:
        identity = row["id"]
        try:
            record = self._layout.versions.read(identity)
            told = row_of(identity, record)
        except (MVCError, OSError) as error:
            self._problems.append(Problem("record", f"versions/{identity}", str(error), (identity,)))
            return
        if differs(row, told) or not is_told(row, told, events):
            text = (
                f"the history's row of {row['run']}/{row['number']} is not what its record and events say; "
                "run `mvc rebuild`"
            )
            self._problems.append(Problem("history", f"history/{row['run']}", text, (identity,)))
        for parent in told["parents"]:
            if parent.get("elsewhere"):
                continue  # it never was in this store
            if parent["id"] not in known and not self._layout.versions.has(parent["id"]):
                text = f"the parent {parent['id'][:12]} of {row['run']}/{row['number']} is not in the store"
                self._problems.append(Problem("lineage", f"versions/{identity}", text, (identity,)))
        self._collect_run(record, identity)
        self._collect(row)

    def _collect_run(self, record: Mapping[str, Any], identity: str) -> None:
        run = record["run"]["id"]
        if run not in self._runs:
            try:
                self._runs[run] = self._layout.runs.read(run)
            except (MVCError, OSError) as error:
                self._runs[run] = {}
                text = f"{error}; code and environment of the run {record['run']['label']} are not known"
                kind = "missing" if isinstance(error, MissingObject) else "record"
                self._problems.append(Problem(kind, f"runs/{run}", text, (identity,)))
        code = self._runs[run].get("code")
        if isinstance(code, dict) and isinstance(code.get("patch"), str):
            self._use(code["patch"], ".patch", identity, "code patch")

    def _collect(self, row: Row) -> None:
        gone = {each["what"] for each in row["pruned"]}
        measured = [told for each in row["evaluations"] for told in each["data"].values()]
        for told in [*row["data"].values(), *measured]:
            if told.get("listing"):
                self._use(told["listing"], ".jsonl", row["id"], "data listing")
        if "weights" in gone:
            return
        self._collect_state(row["weights"]["digest"], row["id"], "")
        if row["weights"]["additions"] is not None:
            self._use(row["weights"]["additions"], ".json", row["id"], "the module's additions")
        if row["state"] is not None and "state" not in gone:
            self._use(row["state"]["tree"], ".json", row["id"], "training state")
            self._collect_state(row["state"]["digest"], row["id"], "training state: ")

    def _collect_state(self, digest: str, identity: str, prefix: str) -> None:
        try:
            if digest not in self._manifests:
                self._manifests[digest] = self._layout.manifests.read(digest)
                for entry in self._manifests[digest].entries:
                    self._entries.setdefault(entry.object, []).append((digest, entry))
        except (MVCError, OSError) as error:
            kind = "missing" if isinstance(error, MissingObject) else "damaged"
            self._problems.append(Problem(kind, f"manifests/{digest}", str(error), (identity,)))
            return
        self._states.setdefault(digest, []).append(identity)
        for entry in self._manifests[digest].entries:
            self._use(entry.object, ".safetensors", identity, f"{prefix}{entry.name}")

    def _use(self, digest: str, suffix: Suffix, identity: str, tensor: str) -> None:
        self._users.setdefault((digest, suffix), []).append((identity, tensor))

    def _check_presence(self, file: File) -> int:
        try:
            if self._layout.objects.size_of(*file) is None:
                self._bad[file] = ("missing", "is missing")
            elif file[1] == ".safetensors":
                header = header_if_whole(self._layout, file[0])
                if header is None:
                    self._bad[file] = ("damaged", "is damaged")
                else:
                    self._compare(file[0], header)
        except (MVCError, OSError) as error:
            self._bad[file] = ("unreadable", f"cannot be read ({error})")
        return 0

    def _check_bytes(self, file: File) -> int:
        size, bad = self._read(file)
        if bad is not None:
            self._bad[file] = bad
        return size

    def _read(self, file: File) -> tuple[int, tuple[str, str] | None]:
        """Return the bytes of an object, and what is wrong with it."""
        digest, suffix = file
        try:
            data = self._layout.objects.read(digest, suffix)
            if suffix == ".safetensors":
                self._check_tensors(digest, data)
            return len(data), None
        except MissingObject:
            return 0, ("missing", "is missing")
        except CorruptObject:
            return 0, ("damaged", "is damaged")
        except (MVCError, OSError) as error:
            return 0, ("unreadable", f"cannot be read ({error})")

    def _check_tensors(self, digest: str, data: memoryview) -> None:
        """Hash the tensors of a pack: its name says what was written, not that the keys in it are true."""
        what = f"objects/{digest}"
        header = parse_header(data, len(data), what=what)
        wanted = {entry.digest for _, entry in self._entries[digest]}
        for key, place in header.items():
            if key == SINGLE or key not in wanted:
                continue
            if tensor_at(data, place, place.dtype, place.shape, what=what).digest() != key:
                raise CorruptObject(f"{what} has a tensor that is not what its key says")
        self._compare(digest, header)

    def _compare(self, digest: str, header: Mapping[str, Place]) -> None:
        """Note what manifests look for in an object that does not have it: then it is they that are wrong."""
        self._untrue += [each for each in self._entries[digest] if not holds(header, each[1])]

    def _blame_manifests(self) -> None:
        untrue: dict[str, list[Entry]] = {}
        for digest, entry in self._untrue:
            untrue.setdefault(digest, []).append(entry)
        for digest, entries in untrue.items():
            text = (
                f"manifests/{digest[:2]}/{digest}.json looks for {entries[0].name!r:.80} in "
                f"objects/{entries[0].object[:12]}, which does not hold it; saving the same tensors again "
                "heals it"
            )
            versions = tuple(dict.fromkeys(self._states[digest]))
            names = tuple(entry.name for entry in entries)[:_SHOWN]
            self._problems.append(Problem("damaged", f"manifests/{digest}", text, versions, names))

    def _set_aside(self, file: File) -> str | None:
        """Move a damaged object out of the way, where this may be done.

        Returns:
            What was done; None where a save has healed it since it was read.
        """
        name = f"{file[0]}{file[1]}.damaged"
        try:
            self._layout.make_staging()
            with self._layout.lock("moving a damaged object aside"):
                if self._read(file)[1] is None:
                    return None
                self._layout.new_epoch()  # a save that goes on may rely on it
                self._layout.objects.set_aside(*file, name)
        except (MVCError, OSError) as error:
            return f" and could not be moved aside ({error})"
        return f"; it was moved aside as {name}"

    def _blame(self, kind: str, file: File, text: str) -> None:
        digest, suffix = file
        users = self._users[file]
        versions = tuple(dict.fromkeys(identity for identity, _ in users))
        tensors = tuple(dict.fromkeys(name for _, name in users))[:_SHOWN]
        what = f"objects/{digest[:2]}/{digest}{suffix}"
        hint = "" if suffix in (".jsonl", ".patch") else "; saving the same tensors again heals it"
        self._problems.append(Problem(kind, what, f"{what} {text}{hint}", versions, tensors))

    def _check_aliases(self, ids: set[str], events: Mapping[str, Mapping[str, Any]]) -> None:
        if not files.exists(self._layout.aliases_path):
            text = "aliases.json is missing; run `mvc rebuild`"
            self._problems.append(Problem("history", "aliases.json", text))
            return
        table = AliasTable(self._layout.aliases_path, self._layout.staging)
        try:
            for name, identity in table.current().items():
                if identity not in ids:
                    text = f"the alias {name} points to {identity[:12]}, which the history does not have"
                    self._problems.append(Problem("lineage", "aliases.json", text, (identity,)))
            if set(table.current().values()) <= ids and not table.is_told(events):
                text = "aliases.json says what no event says; run `mvc rebuild`"
                self._problems.append(Problem("history", "aliases.json", text))
        except CorruptHistory as error:
            self._problems.append(Problem("history", "aliases.json", str(error)))
