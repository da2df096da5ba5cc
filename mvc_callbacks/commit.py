"""Committing versions: one run's way from a snapshot to an acknowledged version."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Literal

from mvc_callbacks.canonical import LIMIT, decode, digest_of, encode
from mvc_callbacks.errors import CorruptHistory, MVCError, SaveFailed
from mvc_callbacks.holding import listings_in
from mvc_callbacks.layout import Layout, Shared
from mvc_callbacks.rows import row_of
from mvc_callbacks.snapshot import Snapshot
from mvc_callbacks.versions import Fingerprint, Monitor, Parent, TrainingState, Version, Weights
from mvc_callbacks.writing import Written, is_whole, write_state

if TYPE_CHECKING:
    from mvc_callbacks.manifests import Manifest
    from mvc_callbacks.store import VersionStore

__all__ = ["Run", "now", "user"]

_PATIENCE = 2
_WAITS = 10  # times longer than a person would: somebody may prune a large store, and a version would be lost
_COUNTER = "seed_generator_state"


def now() -> str:
    """Return the time as UTC ISO-8601 with microseconds."""
    return datetime.now(timezone.utc).isoformat(timespec="microseconds").replace("+00:00", "Z")


def user() -> str:
    """Return ``user@host``, as far as it can be told."""
    name = "unknown"
    with suppress(Exception):  # no entry for the user id, as in containers: KeyError or OSError by version
        name = getpass.getuser()
    return f"{name}@{socket.gethostname()}"


@dataclass(frozen=True, slots=True)
class _Facts:
    epoch: int | None
    step: int | None
    metrics: Mapping[str, float]
    monitor: Monitor | None
    parents: tuple[Parent, ...] | None
    hyperparameters: Any
    data: Mapping[str, Fingerprint]
    flags: tuple[str, ...]
    more: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Parts:
    """What was written of a snapshot; a tree by its digest and the bytes that were not there before."""

    weights: Written
    additions: tuple[str, int] | None = None
    state: Written | None = None
    tree: tuple[str, int] | None = None

    @property
    def trees(self) -> list[tuple[str, int]]:
        return [each for each in (self.additions, self.tree) if each is not None]


class Run:
    """One run, open for writing; not for several threads at once.

    Made by `VersionStore.open_run`.

    Attributes:
        label: The run's label.
        chain: Ids of the run's versions, oldest first.
        framework: ``lightning``, ``pytorch_lightning``, ``keras`` or ``torch``.
        cached: Whether the system should keep what is written in memory. In a notebook it is read soon;
            beside training it would push out the training data.
    """

    def __init__(
        self,
        store: VersionStore,
        layout: Layout,
        label: str,
        base: str,
        framework: str,
        tell: Callable[[], Mapping[str, Any]],
    ) -> None:
        self.label = label
        self.chain: list[str] = []
        self.framework = framework
        self.cached = True
        self._store = store
        self._layout = layout
        self._base = base
        self._tell = tell
        self._created = now()
        self._record: str | None = None
        self._told: Mapping[str, Any] = {}
        self._number = 0  # of the last version
        self._tried = 0  # of the last try: the record of a save that failed may be there
        self._sequence = 0
        self._step: int | None = None
        self._size = 0
        self._safe: list[int] = []  # grows in several threads
        self._weights: Manifest | None = None
        self._state: Manifest | None = None

    @property
    def next_number(self) -> int:
        """The number of the run's next version, if none is skipped; a save that fails skips its own."""
        return self._tried + 1

    @property
    def progress(self) -> tuple[int, int]:
        """Bytes of the version in the making that are safe, and all of them; any thread may ask."""
        return min(sum(self._safe), self._size), self._size

    def commit(
        self,
        snapshot: Snapshot,
        *,
        number: int | None = None,
        epoch: int | None = None,
        step: int | None = None,
        metrics: Mapping[str, float] | None = None,
        monitor: Monitor | None = None,
        parents: tuple[Parent, ...] | None = None,
        hyperparameters: Any = None,
        data: Mapping[str, Fingerprint] | None = None,
        flags: tuple[str, ...] = (),
        facts: Mapping[str, Any] | None = None,
    ) -> Version:
        """Make a version, durably.

        Args:
            snapshot: One moment's state; it must not change until this returns.
            number: Its number, larger than any before; the next one when not given.
            epoch: Epoch counted from 0.
            step: Optimizer steps.
            metrics: Name to number.
            monitor: What the policy watches.
            parents: What it was trained from; None means the run's version before.
            hyperparameters: As a tagged tree.
            data: Name to fingerprint.
            flags: Marks; ``nonfinite`` and ``stale`` are added here.
            facts: Further fields of the record, as plain JSON.

        Returns:
            The version, acknowledged.

        Raises:
            OSError: If the disk refuses. The store is as it was, but for files that nothing refers to.
            MVCError: If the store cannot be written.
        """
        number = self.next_number if number is None else number
        if number < self.next_number:
            raise ValueError(
                f"the run {self.label} has come to {self._tried} already; the number {number} comes too late"
            )
        told = _Facts(
            epoch, step, metrics or {}, monitor, parents, hyperparameters, data or {}, flags, facts or {}
        )
        layout = self._layout
        layout.make_staging()
        with layout.lock(f"beginning a version of the run {self.label}", patience=_WAITS):
            # Between a prune's new epoch and its removals nothing may be found that is about to go.
            seen = began = layout.epoch()
        self._tried = number
        rest = snapshot.tree_tensors.nbytes if snapshot.tree_tensors is not None else 0
        self._size, self._safe = snapshot.weights.nbytes + rest, []
        with ThreadPoolExecutor(1, thread_name_prefix="mvc-nonfinite") as pool:
            nonfinite = pool.submit(snapshot.nonfinite)  # while others wait for the disk
            parts = self._write(snapshot)
        record_id, record = self._write_record(snapshot, told, number, parts, nonfinite.result())
        tries = 0
        while True:
            with layout.lock(f"adding a version to the run {self.label}", patience=_WAITS):
                shared = layout.shared()
                whole = shared.epoch == seen or self._is_whole(parts)
                if not whole and tries == _PATIENCE:
                    # In here nobody prunes; outside, two runs might take turns for ever.
                    parts = self._write(snapshot)
                    whole = True
                if whole:
                    self._heal(record)
                    if shared.epoch == began or not self._is_adopted(record_id, number):
                        record_id, record = self._in_order(record_id, record, shared)
                        self._append(record_id, record, shared)
                    break
                seen = shared.epoch
            # Somebody pruned meanwhile, and an object that was there before is gone: write it again.
            parts = self._write(snapshot)
            tries += 1
        self._number, self._sequence = number, record["sequence"]
        self._step = told.step
        self._weights = parts.weights.manifest
        self._state = parts.state.manifest if parts.state is not None else self._state
        self._store.note_manifests(
            [each.manifest for each in (parts.weights, parts.state) if each is not None]
        )
        self.chain.append(record_id)
        return self._store.version_from(row_of(record_id, record))

    def _write(self, snapshot: Snapshot) -> _Parts:
        additions = None if snapshot.additions is None else self._put_tree(snapshot.additions)
        weights = write_state(
            self._layout, snapshot.weights, self._weights, safe=self._safe, cached=self.cached
        )
        if snapshot.tree is None:
            return _Parts(weights, additions)
        if snapshot.tree_tensors is None:
            raise ValueError("a snapshot with a tree needs its tensors")
        tree = self._put_tree(snapshot.tree)
        state = write_state(
            self._layout, snapshot.tree_tensors, self._state, safe=self._safe, cached=self.cached
        )
        return _Parts(weights, additions, state, tree)

    def _put_tree(self, tree: Any) -> tuple[str, int]:
        """Store a tagged tree durably; return its digest and the bytes written."""
        data = encode(tree)
        if len(data) > LIMIT:
            raise SaveFailed(
                f"the training state without its tensors would have {len(data)} bytes, more than the {LIMIT} "
                "that are read again: keep large values in tensors, or out of the checkpoint"
            )
        digest = digest_of(data)
        size = self._layout.objects.put(digest, [data], len(data), ".json")
        self._layout.objects.sync([digest])
        return digest, size

    def _is_whole(self, parts: _Parts) -> bool:
        """Tell whether everything that the version relies on can still be opened."""
        layout = self._layout
        # Another run may have replaced a manifest: what the file says counts, not what was written.
        return (
            is_whole(layout, parts.weights.manifest.digest)
            and (parts.state is None or is_whole(layout, parts.state.manifest.digest))
            and all(layout.objects.size_of(digest, ".json") is not None for digest, _ in parts.trees)
        )

    def _heal(self, record: Mapping[str, Any]) -> None:
        """Write again what the record names beside tensors, where it went before anybody named it."""
        if self._record is not None and not self._layout.runs.has(self._record):
            self._layout.runs.write(self._told)
        code = self._told.get("code")
        patch = code.get("patch") if isinstance(code, Mapping) else None
        self._store.held.heal([*listings_in(record["data"]), (patch, ".patch")])

    def _is_adopted(self, identity: str, number: int) -> bool:
        """Tell whether a rebuild found this record, and its version counts: it may have a name by now."""
        with suppress(CorruptHistory):  # told, and mended, when the row is added
            row = self._layout.history.row(self.label, number)
            return row is not None and row["id"] == identity
        return False

    def _in_order(self, identity: str, record: dict[str, Any], shared: Shared) -> tuple[str, dict[str, Any]]:
        """Write the record again where another run added a version meanwhile: the later one has more."""
        newest = max(self._layout.newest_sequence(shared), self._sequence)
        if record["sequence"] > newest:
            return identity, record
        again = {**record, "sequence": newest + 1}
        later = self._layout.versions.write(again)
        self._layout.versions.remove(identity)
        return later, again

    def _write_record(
        self,
        snapshot: Snapshot,
        facts: _Facts,
        number: int,
        parts: _Parts,
        nonfinite: bool,
    ) -> tuple[str, dict[str, Any]]:
        layout = self._layout
        weights, state, tree = parts.weights, parts.state, parts.tree
        # It goes with a run that is deleted; one that goes on all the same has it again.
        if self._record is None or not layout.runs.has(self._record):
            self._told = {
                **self._tell(),
                "label": self.label,
                "base": self._base,
                "created": self._created,
                "who": user(),
            }
            self._record = layout.runs.write(self._told)
        stored = weights.bytes + (state.bytes if state else 0) + sum(size for _, size in parts.trees)
        parents = facts.parents
        if parents is None:
            parents = (Parent(self.chain[-1], "run"),) if self.chain else ()
        # Known by its full id, a version of another store may be a parent: a base that everybody shares.
        parents = tuple(replace(each, elsewhere=not layout.versions.has(each.id)) for each in parents)
        flags = list(
            dict.fromkeys(
                [*facts.flags, *self._marks(nonfinite, weights, facts.step, snapshot.weights_of, parents)]
            )
        )
        record = {
            **facts.more,
            "run": {"label": self.label, "id": self._record},
            "number": number,
            "sequence": max(layout.newest_sequence(layout.shared()), self._sequence) + 1,
            "created": now(),
            "framework": self.framework,
            "epoch": facts.epoch,
            "step": facts.step,
            "metrics": dict(facts.metrics),
            "monitor": [facts.monitor.name, facts.monitor.mode] if facts.monitor else None,
            "parents": [parent.to_dict() for parent in parents],
            "weights": {
                **asdict(
                    Weights(
                        digest=weights.manifest.digest,
                        tensors=len(weights.manifest.entries),
                        bytes=snapshot.weights.nbytes,
                        stored_bytes=stored,
                        of=snapshot.weights_of,
                        nonfinite=nonfinite,
                        additions=parts.additions[0] if parts.additions else None,
                    )
                ),
                "tied": [list(group) for group in snapshot.weights.tied],
                "extra": dict(snapshot.extra),
            },
            "training_state": None
            if state is None or tree is None or snapshot.tree_tensors is None
            else asdict(
                TrainingState(
                    tree=tree[0],
                    digest=state.manifest.digest,
                    tensors=len(state.manifest.entries),
                    bytes=snapshot.tree_tensors.nbytes,
                    untold=snapshot.untold,
                )
            ),
            "hyperparameters": facts.hyperparameters if facts.hyperparameters is not None else {},
            "data": {name: each.to_dict() for name, each in facts.data.items()},
            "flags": flags,
        }
        identity = layout.versions.write(record)
        # What was written is what counts: tuples and tagged floats are read back as they will always be read.
        return identity, decode(encode(record), what="record")

    def _marks(
        self, nonfinite: bool, weights: Written, step: int | None, of: str, parents: tuple[Parent, ...]
    ) -> list[str]:
        """Tell what a person should look at: broken weights, or the same ones although steps passed."""
        marks = ["nonfinite"] if nonfinite else []
        before, then = self._before(parents)
        same = before is not None and _are_same(before, weights.manifest)
        if same and of == "training" and step is not None and then is not None and step > then:
            marks.append("stale")
        return marks

    def _before(self, parents: tuple[Parent, ...]) -> tuple[Manifest | None, int | None]:
        """Return the weights that training went on from, and their step as this run counts."""
        if self._weights is not None or not parents:
            return self._weights, self._step
        parent = parents[0]
        try:
            record = self._layout.versions.read(parent.id)
            manifest = self._layout.manifests.read(record["weights"]["digest"])
        except MVCError:  # of another store, pruned, or damaged: then nothing is said of it
            return None, None
        return manifest, record["step"] if parent.how in ("resume", "run") else 0

    def _append(self, identity: str, record: Mapping[str, Any], shared: Shared) -> None:
        row = row_of(identity, record)
        # Before the row: after a crash between the two the newest version is looked for, and found.
        self._layout.share(Shared(shared.epoch, row["sequence"], self.label))
        try:
            self._refuse_taken(row)
            self._layout.history.append(self.label, row, after=self._number)
        except CorruptHistory:
            # Somebody emptied or cut the file. The records have everything; a run of three days goes on.
            self._store.heal_history(self.label)
            self._refuse_taken(row)
            self._layout.history.append(self.label, row)

    def _refuse_taken(self, row: Mapping[str, Any]) -> None:
        """Take no number from another version: a run that was deleted while it goes on shares its label.

        A row that a rebuild made of this version's record, which was then written again, is replaced.
        """
        there = self._layout.history.row(self.label, row["number"])
        if there is not None and there["id"] != row["id"] and self._layout.versions.has(there["id"]):
            raise SaveFailed(
                f"{self.label}/{row['number']} is the version {there['id'][:12]} of another run that has the "
                "same label; this one was not added. Begin a new run to have a label of its own"
            )

    def prune(self, ids: Iterable[str], *, what: Literal["weights", "state"], policy: str) -> None:
        """Remove weights or training state of versions of this run, and of no others.

        Args:
            ids: Full ids; those of other runs, and versions that an alias points to, are left alone.
            what: ``weights`` or ``state``.
            policy: Why, in words; kept with the version.
        """
        own = set(self.chain)
        self._store.prune_ids([each for each in ids if each in own], what=what, policy=policy)


def _are_same(before: Manifest, after: Manifest) -> bool:
    """Tell whether weights stayed the same, whatever layers of Keras have drawn: they count that in one."""
    if before.digest == after.digest:
        return True
    pairs = zip(before.entries, after.entries, strict=False)
    return len(before.entries) == len(after.entries) and all(
        (old.name, old.digest) == (new.name, new.digest) or (new.label or "").endswith(_COUNTER)
        for old, new in pairs
    )
