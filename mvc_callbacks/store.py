"""The store: the one place where objects, records and history are joined into versions."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mvc_callbacks.aliases import AliasTable
from mvc_callbacks.commit import Run, now, user
from mvc_callbacks.errors import (
    BadName,
    CorruptObject,
    CorruptRecord,
    MissingObject,
    MVCError,
    MVCWarning,
    PrunedVersion,
    UnknownRef,
)
from mvc_callbacks.finding import Finder, order_of
from mvc_callbacks.history import Row
from mvc_callbacks.layout import Layout, default_path
from mvc_callbacks.manifests import Manifest
from mvc_callbacks.pruning import Pruner, PruneReport
from mvc_callbacks.reading import damaged_in, read_state, read_tree
from mvc_callbacks.rebuilding import Rebuilder, RebuildReport
from mvc_callbacks.refs import check_name
from mvc_callbacks.retention import choose
from mvc_callbacks.rows import apply_event, version_of
from mvc_callbacks.tensors import State, Tensor
from mvc_callbacks.tree import decode as decode_tree
from mvc_callbacks.verifying import Report, Verifier
from mvc_callbacks.versions import AliasMove, Details, Fingerprint, Version

if TYPE_CHECKING:
    from mvc_callbacks.diff import Difference

__all__ = ["RunInfo", "VersionStore"]

_SHOWN = 8


@dataclass(frozen=True, slots=True)
class RunInfo:
    """One line about a run.

    Attributes:
        label: Its label.
        base: The label that was asked for; several runs may share it.
        created: When, UTC ISO-8601.
        versions: Number of versions.
        framework: Of its newest version.
        resumes: Id of the version that it was resumed from, or None.
        stored_bytes: Bytes that its versions added to the store when they were saved.
        first: Id of its first version.
        last: Id of its newest version.
    """

    label: str
    base: str
    created: str
    versions: int
    framework: str
    resumes: str | None
    stored_bytes: int
    first: str
    last: str

    def to_dict(self) -> dict[str, Any]:
        """Tell the run as plain JSON values."""
        return asdict(self)


class VersionStore:
    """A folder of versions.

    Nothing is read, made or locked before it is asked for.

    Args:
        path: The folder; else ``$MVC_STORE``, else ``./model_versions``.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self.path = default_path() if path is None else Path(path).expanduser().absolute()
        self._layout = Layout(self.path)
        self._pruner = Pruner(self._layout)
        self._open: dict[str | None, Run] = {}

    def __reduce__(self) -> tuple[type[VersionStore], tuple[str]]:
        return type(self), (str(self.path),)

    def __repr__(self) -> str:
        return f"VersionStore({str(self.path)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, VersionStore) and other.path == self.path

    def __hash__(self) -> int:
        return hash(self.path)

    # --- asking ---

    def exists(self) -> bool:
        """Tell whether there is a store."""
        return self._layout.exists()

    @property
    def identity(self) -> str:
        """The store's uuid, the same in every copy.

        Raises:
            StoreNotFound: If there is no store.
        """
        self._layout.check()
        return self._layout.identity

    def versions(self, run: str | None = None) -> list[Version]:
        """Return the versions of a run, or of all, oldest first.

        Raises:
            StoreNotFound: If there is no store.
            UnknownRef: If there is no such run.
            CorruptHistory: If a history cannot be read.
        """
        return [self.version_from(row) for row in self._rows(run)]

    def _rows(self, run: str | None = None) -> list[Row]:
        self._layout.check()
        if run is not None and run not in self._layout.history.runs():
            known = ", ".join(self._layout.history.runs()[-8:]) or "none yet"
            raise UnknownRef(f"there is no run {run!r} in {self.path}; runs: {known}")
        rows = self._finder().all_rows(run)
        return sorted(rows, key=order_of if run is None else lambda row: row["number"])

    def _finder(self) -> Finder:
        self._layout.check()
        self._layout.check_history()
        return Finder(self._layout, self._aliases())

    def _aliases(self) -> AliasTable:
        return AliasTable(self._layout.aliases_path, self._layout.staging)

    def runs(self) -> list[RunInfo]:
        """Return the runs that have a version, oldest first.

        Raises:
            StoreNotFound: If there is no store.
        """
        self._layout.check()
        found = []
        for run in self._layout.history.runs():
            rows = list(self._layout.history.rows(run))
            if not rows:
                continue
            told = self._run_of(rows[0])
            info = RunInfo(
                label=run,
                base=str(told.get("base", run)),
                created=str(told.get("created", rows[0]["created"])),
                versions=len(rows),
                framework=rows[-1]["framework"],
                resumes=told.get("resumes"),
                stored_bytes=sum(row["weights"]["stored_bytes"] for row in rows),
                first=rows[0]["id"],
                last=rows[-1]["id"],
            )
            found.append((order_of(rows[0]), info))
        return [info for _, info in sorted(found, key=lambda each: each[0])]

    def get(self, ref: str) -> Version:
        """Return the version that a ref names.

        Args:
            ref: An id or a unique prefix of 4 digits and more, ``latest``, ``best``,
                ``best:<metric>:<mode>``, ``<run>``, ``<run>/<number>``, ``<run>/best``, an alias; each may
                end in ``~N``.

        Raises:
            StoreNotFound: If there is no store.
            BadName: If it is no ref.
            UnknownRef: If it names nothing; the message lists what there is.
            AmbiguousRef: If it names several.
            CorruptHistory: If the history was changed, or is gone: ``mvc rebuild`` makes it again.
            CorruptRecord: If the version's record was changed.
            MissingObject: If the version's record is gone.
        """
        return self.version_from(self._finder().find(ref))

    def version_from(self, row: Row) -> Version:
        """Make a version from a row of the history."""
        return version_of(row, self.details)

    def details(self, identity: str) -> Details:
        """Read what only the records of a version and of its run tell.

        Raises:
            MissingObject: If the version's record is gone.
            CorruptRecord: If it is not what its name says.
        """
        record = self._layout.versions.read(identity)
        run = self._run_record(record)
        from mvc_callbacks.hyperparameters import flat, recall  # a listing of versions never needs it

        told = flat(recall(record["hyperparameters"]))
        return Details(told, run.get("code") or {}, run.get("environment") or {}, record, run)

    def _run_record(self, record: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            return self._layout.runs.read(record["run"]["id"])
        except MissingObject:
            return {}  # `verify` tells; the weights are not hurt by it

    def _run_of(self, row: Row) -> Mapping[str, Any]:
        """Return the record of a row's run, empty where it is damaged; `verify` tells of that."""
        try:
            return self._run_record(self._layout.versions.read(row["id"]))
        except (MissingObject, CorruptRecord):
            return {}

    def find_by_weights(self, digest: str) -> Version | None:
        """Return the newest version with a weights digest, or None."""
        if not self.exists() or not self._layout.manifests.has(digest):
            return None
        rows = [row for row in self._rows() if row["weights"]["digest"] == digest]
        return self.version_from(rows[-1]) if rows else None

    def newest_of(self, label: str) -> Version | None:
        """Return the newest version of the runs that were to be called so: ``label``, ``label-2``, ..."""
        if not self.exists():
            return None
        rows = []
        for run in self._layout.history.runs():
            mine = run.lower() == label.lower() or run.lower().startswith(f"{label.lower()}-")
            row = self._layout.history.last(run) if mine else None
            if row is not None:
                told = self._run_of(row)
                rows += [row] if str(told.get("base", run)).lower() == label.lower() else []
        return self.version_from(max(rows, key=order_of)) if rows else None

    # --- reading states ---

    def state_dict(self, ref: str | Version, *, verify: bool = True) -> dict[str, Any]:
        """Read a version's weights, with its non-tensor entries, ready for ``load_state_dict``.

        Args:
            ref: A ref, or a version.
            verify: Hash everything before anything is returned.

        Returns:
            Name to torch tensor in memory of its own, on the CPU; tied tensors share theirs. For a version of
            Keras: the variable's position to numpy array.

        Raises:
            PrunedVersion: If the weights were pruned.
            MissingObject: If an object is missing.
            CorruptObject: If an object is damaged.
        """
        version = self._version(ref)
        tensors = self.tensors(version, verify=verify)
        if version.framework == "keras":
            from mvc_callbacks.numpy_tensors import from_neutral as to_array

            return {name: to_array(tensor) for name, tensor in tensors.items()}
        from mvc_callbacks.torch_state import rebuild

        told = self._layout.versions.read(version.id)["weights"]
        tied = tuple(tuple(group) for group in told.get("tied", ()))
        state_dict: dict[str, Any] = rebuild(State(tensors, tied=tied), self.extra(version))["state_dict"]
        return state_dict

    def tensors(self, ref: str | Version, *, verify: bool = True) -> dict[str, Tensor]:
        """Read a version's weights as neutral tensors, which need no framework.

        Raises:
            PrunedVersion: If the weights were pruned.
            MissingObject: If an object is missing.
            CorruptObject: If an object is damaged.
        """
        version = self._version(ref)
        self._refuse_pruned(version, "weights")
        return self._read(version, "weights", version.weights.digest, verify)

    def _read(
        self, version: Version, what: Literal["weights", "state"], digest: str, verify: bool
    ) -> dict[str, Tensor]:
        manifest = None
        try:
            manifest = self._layout.manifests.read(digest)
            return read_state(self._layout, manifest, verify=verify)
        except (MissingObject, CorruptObject) as error:
            # It may have been pruned since this version was asked for.
            self._refuse_pruned(self.version_from(self._finder().by_id(version.id)), what)
            raise type(error)(f"{error}; {self._hurt(version, manifest)}") from error

    def _hurt(self, version: Version, manifest: Manifest | None) -> str:
        """Tell which versions a damage hurts; slow, and worth it."""
        bad = damaged_in(self._layout, manifest) if manifest is not None else frozenset()
        names = [f"{version.run}/{version.number}"]
        for row in self._rows():
            for state in (row["weights"], row["state"]):
                with suppress(MVCError, OSError):
                    if state is not None and bad & self._layout.manifests.read(state["digest"]).objects:
                        names.append(f"{row['run']}/{row['number']}")
        hurt = list(dict.fromkeys(names))
        more = f" and {len(hurt) - _SHOWN} more" if len(hurt) > _SHOWN else ""
        return f"it hurts {', '.join(hurt[:_SHOWN])}{more}; other versions are not affected"

    def training_state(self, ref: str | Version, *, verify: bool = True) -> tuple[Any, dict[str, Tensor]]:
        """Read the rest of a version's training state.

        Returns:
            The tagged tree, and the tensors that it refers to.

        Raises:
            PrunedVersion: If the state was pruned, or the version was saved without.
            MissingObject: If an object is missing.
            CorruptObject: If an object is damaged.
        """
        version = self._version(ref)
        self._refuse_pruned(version, "state")
        state = version.training_state
        if state is None:
            raise PrunedVersion(
                f"version {version.run}/{version.number} ({version.short_id}) was saved with its weights "
                "only: "
                "training cannot go on from it as it was. Load the weights with restore_version(), or resume "
                "from "
                "another version"
            )
        tensors = self._read(version, "state", state.digest, verify)
        return read_tree(self._layout, state.tree), tensors

    def extra(self, ref: str | Version) -> dict[str, Any]:
        """Return the non-tensor entries of a version's state dict."""
        told = self._layout.versions.read(self._version(ref).id)["weights"].get("extra", {})
        return {name: decode_tree(each, None) for name, each in told.items()}

    def entries(self, ref: str | Version) -> dict[str, tuple[str, tuple[int, ...], str]]:
        """Return name to (dtype, shape, tensor digest) of a version's weights, without reading them.

        Raises:
            PrunedVersion: If the weights were pruned and their manifest is gone.
        """
        version = self._version(ref)
        try:
            manifest = self._layout.manifests.read(version.weights.digest)
        except MissingObject:
            self._refuse_pruned(version, "weights")
            raise
        return {entry.name: (entry.dtype, entry.shape, entry.digest) for entry in manifest.entries}

    def labels(self, ref: str | Version) -> dict[str, str]:
        """Return name to label of those weights that have one (Keras: the variable's own name)."""
        manifest = self._layout.manifests.read(self._version(ref).weights.digest)
        return {entry.name: entry.label for entry in manifest.entries if entry.label is not None}

    def listing(self, digest: str) -> bytes:
        """Read the listing of a fingerprint: JSON lines."""
        return bytes(self._layout.objects.read(digest, ".jsonl"))

    def patch(self, digest: str) -> bytes:
        """Read the patch of a run's code."""
        return bytes(self._layout.objects.read(digest, ".patch"))

    def _version(self, ref: str | Version) -> Version:
        self._layout.check()
        return ref if isinstance(ref, Version) else self.get(ref)

    def _refuse_pruned(self, version: Version, what: Literal["weights", "state"]) -> None:
        for gone in version.pruned:
            if gone.what == what or gone.what == "weights":
                raise PrunedVersion(
                    f"the {'training state' if gone.what == 'state' else 'weights'} of version {version.run}/"
                    f"{version.number} ({version.short_id}) went on {gone.time[:19]}Z by {gone.policy}; "
                    f"{self._nearest(version, what)}"
                )

    def _nearest(self, version: Version, what: Literal["weights", "state"]) -> str:
        kept = [
            each
            for each in self.versions(version.run)
            if (each.has_weights if what == "weights" else each.has_training_state)
        ]
        if not kept:
            return f"no version of the run {version.run} has it any more"
        nearest = min(kept, key=lambda each: (abs(each.number - version.number), each.number))
        return f"the nearest one that has it is {nearest.run}/{nearest.number} ({nearest.short_id})"

    # --- writing ---

    def open_run(
        self,
        label: str | None = None,
        *,
        framework: str,
        record: Mapping[str, Any] | Callable[[], Mapping[str, Any]] | None = None,
    ) -> Run:
        """Begin a run; makes the store where there is none.

        Args:
            label: Its label; ``label-2`` and so on where it is taken. Else one made of the time.
            framework: ``lightning``, ``pytorch_lightning``, ``keras`` or ``torch``.
            record: What the run's record tells (code, environment, ``resumes``), or a function that tells it
                when the first version is saved.

        Returns:
            The run, with no version yet.

        Raises:
            BadName: If the label cannot be one.
            UnsupportedFormat: If a newer release wrote the store.
        """
        base = check_name(label, "run") if label is not None else now()[:19].replace("-", "").replace(":", "")
        layout = self._layout
        layout.open_for_writing()
        layout.make_staging()
        with layout.lock("opening a run"):
            layout.sweep_staging()
            if not layout.history.runs() and next(layout.versions.ids(), None) is not None:
                warnings.warn(
                    f"the history of {self.path} was gone and was made again from the records", MVCWarning, 3
                )
                Rebuilder(layout).rebuild()
            taken = {name.lower() for name in self._aliases().current()}
            number, name = 1, base
            while name.lower() in taken or not layout.history.reserve(name):
                number += 1
                name = f"{base[: 63 - len(str(number))]}-{number}"
        told: Callable[[], Mapping[str, Any]]
        told = record if callable(record) else (lambda: record or {})
        return Run(self, layout, name, base, framework, told)

    def commit(
        self,
        state_dict: Mapping[str, Any],
        *,
        metrics: Mapping[str, float] | None = None,
        hyperparameters: Mapping[str, Any] | None = None,
        data: Any = None,
        run: str | None = None,
        parent: str | None = None,
        epoch: int | None = None,
        step: int | None = None,
        training_state: Mapping[str, Any] | None = None,
        monitor: tuple[str, Literal["min", "max"]] | None = None,
    ) -> Version:
        """Make a version in a training loop of one's own.

        Args:
            state_dict: What ``module.state_dict()`` gives.
            metrics: Name to number.
            hyperparameters: Whatever made it.
            data: A path, glob, list of them, or a dict of those; hashed here and now.
            run: The run's label. Versions that this store object commits under one label are one run.
            parent: A ref of what the first version was trained from.
            epoch: Epoch counted from 0.
            step: Optimizer steps.
            training_state: Whatever else is needed to go on: ``{"optimizer": optimizer.state_dict()}``.
            monitor: Metric and ``min`` or ``max``, for ``best``.

        Returns:
            The version, durable.

        Raises:
            UnsupportedTensor: If a tensor's bits cannot be kept.
            OSError: If the disk refuses.
        """
        from mvc_callbacks import code, environment
        from mvc_callbacks.hyperparameters import tell
        from mvc_callbacks.torch_state import snapshot
        from mvc_callbacks.versions import Monitor, Parent

        parents = (Parent(self.get(parent).id, "declared"),) if parent is not None else None
        if run not in self._open:
            self._layout.open_for_writing()
            captured = code.capture(exclude=[self.path])
            facts = {**captured.facts, "patch": self.put_patch(captured.patch) if captured.patch else None}
            told = {"code": facts, "environment": environment.capture()}
            self._open[run] = self.open_run(run, framework="torch", record=told)
        return self._open[run].commit(
            snapshot(
                {"state_dict": dict(state_dict), **(training_state or {})},
                module=None,
                copy=False,
                buffers=None,
            ),
            epoch=epoch,
            step=step,
            metrics={name: float(value) for name, value in (metrics or {}).items()},
            monitor=Monitor(*monitor) if monitor else None,
            parents=parents,
            hyperparameters=tell({"given": hyperparameters or {}}),
            data=self._fingerprints(data),
        )

    def _fingerprints(self, data: Any) -> dict[str, Fingerprint]:
        if data is None:
            return {}
        from mvc_callbacks.fingerprint import plan

        found = {}
        for name, source in data.items() if isinstance(data, Mapping) else [("train", data)]:
            computed = plan(source, declared=True).compute()
            found[name] = computed.fingerprint
            if computed.listing is not None:
                self.put_listing(computed.listing)
        return found

    def put_listing(self, chunks: Iterable[bytes]) -> str:
        """Store the listing of a fingerprint; return its digest."""
        self._layout.open_for_writing()
        return self._layout.objects.put_stream(chunks, ".jsonl")[0]

    def put_patch(self, data: bytes) -> str:
        """Store the patch of a run's code; return its digest."""
        self._layout.open_for_writing()
        return self._layout.objects.put_stream([data], ".patch")[0]

    def complete_fingerprint(self, identity: str, name: str, fingerprint: Fingerprint) -> None:
        """Write the fingerprint of data that was ``pending`` when a version was saved."""
        told = {
            "event": "fingerprint",
            "versions": [identity],
            "name": name,
            "fingerprint": fingerprint.to_dict(),
        }
        self._tell(identity, {**told, "time": now()})

    def evaluate(
        self,
        ref: str | Version,
        kind: Literal["test", "validate"],
        metrics: Mapping[str, float],
        data: Mapping[str, Fingerprint] | None = None,
    ) -> Version:
        """Add an evaluation to a version; its id stays.

        Returns:
            The version as it is now.
        """
        identity = self._version(ref).id
        fields = {
            "event": "evaluation",
            "versions": [identity],
            "kind_of": kind,
            "metrics": dict(metrics),
            "data": {name: each.to_dict() for name, each in (data or {}).items()},
            "time": now(),
        }
        self._tell(identity, fields)
        return self.get(identity)

    def _tell(self, identity: str, fields: Mapping[str, Any]) -> None:
        """Write an event about one version, and its row."""
        self._layout.check()
        self._layout.open_for_writing()
        self._layout.make_staging()
        with self._layout.lock("writing an event"):
            row = self._finder().by_id(identity)
            event = self._layout.events.write(fields)
            told = self._layout.events.read(event)
            self._layout.history.update(
                row["run"], [row["number"]], lambda each: apply_event(each, event, told)
            )

    # --- aliases ---

    def promote(self, ref: str | Version, name: str, *, why: str = "") -> Version:
        """Point an alias to a version.

        Args:
            ref: A ref, or a version.
            name: The alias, such as ``production``; made where it is new.
            why: Kept in the log.

        Returns:
            The version.

        Raises:
            BadName: If the name cannot be one, or is a run's label.
            PrunedVersion: If the version's weights were pruned.
        """
        check_name(name, "alias")
        version = self._version(ref)
        self._refuse_pruned(version, "weights")
        return self._move(name, lambda _: version.id, "promote", why)

    def rollback(self, name: str, *, why: str = "") -> Version:
        """Point an alias back to where it was before its last promotion.

        Returns:
            The version that it points to now.

        Raises:
            UnknownRef: If there is no such alias, or nothing before.
            PrunedVersion: If that version's weights were pruned.
        """
        self._layout.check()
        return self._move(name, lambda table: table.undo_target(name), "rollback", why)

    def _move(self, name: str, target: Callable[[AliasTable], str], how: str, why: str) -> Version:
        layout = self._layout
        layout.open_for_writing()
        layout.make_staging()
        with layout.lock(f"moving the alias {name}"):
            table = self._whole_aliases()
            current = table.current()
            known = [*layout.history.runs(), *(each for each in current if each != name)]
            if name.lower() in {each.lower() for each in known}:
                raise BadName(f"{name!r} is taken by a run or another alias; choose another name")
            version = self.version_from(self._finder().by_id(target(table)))
            self._refuse_pruned(version, "weights")
            fields = {
                "event": "alias",
                "name": name,
                "id": version.id,
                "previous": current.get(name),
                "turn": table.next_turn(name),
                "time": now(),
                "how": how,
                "why": why,
                "who": user(),
            }
            table.append(layout.events.write(fields), fields)
        return version

    def _whole_aliases(self) -> AliasTable:
        """Return the aliases, made again where they were lost: or nothing is protected. Hold the lock."""
        table = self._aliases()
        if not table.exists():
            warnings.warn(f"the aliases of {self.path} were gone and were made again", MVCWarning, 4)
            Rebuilder(self._layout).rebuild_aliases()
        return table

    def aliases(self) -> dict[str, str]:
        """Return alias to full id, sorted by name."""
        self._layout.check()
        return self._aliases().current()

    def alias_log(self, name: str | None = None) -> list[AliasMove]:
        """Return the moves of one alias, or of all, oldest first."""
        self._layout.check()
        return self._aliases().log(name)

    # --- keeping house ---

    def verify(self, *, full: bool = False, progress: Callable[[int, int], None] | None = None) -> Report:
        """Tell what is damaged or missing, and which versions and tensors that hurts.

        Args:
            full: Hash every byte; damaged objects are moved aside.
            progress: Called with the objects done and their number.
        """
        self._layout.check()
        return Verifier(self._layout).verify(full=full, progress=progress)

    def prune(
        self,
        *refs: str,
        keep_last: int | None = None,
        keep_best: int | None = None,
        keep_every: int | None = None,
        older_than: str | None = None,
        run: str | None = None,
        what: Literal["weights", "state"] = "weights",
        dry_run: bool = False,
        policy: str | None = None,
    ) -> PruneReport:
        """Remove weights or training state of versions; their records stay.

        Versions that an alias points to are never pruned.

        Args:
            refs: Versions to prune, and no others; without them the rules choose.
            keep_last: Keep the newest so many of each run.
            keep_best: Keep the best so many of each run.
            keep_every: Keep versions whose number in the run is a multiple.
            older_than: Choose only what was made before this time (UTC ISO-8601).
            run: Choose in this run only.
            what: ``weights`` (and the state with them), or only the training ``state``.
            dry_run: Tell only.
            policy: Why, in words; kept with the version.

        Returns:
            What was removed.

        Raises:
            Misconfigured: If there is neither a ref nor a rule.
            MVCError: If a history, record or manifest cannot be read.
        """
        self._layout.check()
        if not dry_run:
            self._layout.open_for_writing()
            self._layout.make_staging()
        rules: dict[str, Any] = {
            "keep_last": keep_last,
            "keep_best": keep_best,
            "keep_every": keep_every,
            "older_than": older_than,
        }
        if refs:
            policy = policy or "prune by name"
        else:
            policy = policy or " ".join(f"{name}={rule}" for name, rule in rules.items() if rule is not None)
        report = self._prune_rows(
            lambda: [self._finder().find(ref) for ref in refs] if refs else choose(self._rows(run), **rules),
            what=what,
            policy=policy,
            dry_run=dry_run,
        )
        if dry_run or refs:
            return report
        swept = self._pruner.sweep()
        return PruneReport(
            report.versions,
            report.objects + swept.objects,
            report.freed_bytes + swept.freed_bytes,
            False,
            report.kept,
        )

    def prune_ids(self, ids: Iterable[str], *, what: Literal["weights", "state"], policy: str) -> PruneReport:
        """Remove weights or state of versions given by full id; the way of policies in callbacks."""
        wanted = list(ids)
        self._layout.open_for_writing()
        self._layout.make_staging()
        return self._prune_rows(
            lambda: [self._finder().by_id(each) for each in wanted], what=what, policy=policy, dry_run=False
        )

    def _prune_rows(
        self,
        choose_rows: Callable[[], list[Row]],
        *,
        what: Literal["weights", "state"],
        policy: str,
        dry_run: bool,
    ) -> PruneReport:
        # Chosen under the lock: nobody may promote one of them, or prune it too, in between.
        with nullcontext() if dry_run else self._layout.lock("pruning"):
            rows = list({row["id"]: row for row in choose_rows()}.values())
            table = self._aliases() if dry_run else self._whole_aliases()
            named = {identity: name for name, identity in table.current().items()}
            free = [row for row in rows if row["id"] not in named]
            report = self._pruner.prune(free, what=what, policy=policy, dry_run=dry_run)
        kept = tuple(
            (row["id"], f"the alias {named[row['id']]} points to it") for row in rows if row["id"] in named
        )
        return PruneReport(report.versions, report.objects, report.freed_bytes, dry_run, kept)

    def delete_run(self, label: str) -> PruneReport:
        """Remove a run with the records of its versions; a rebuild does not bring it back.

        Raises:
            UnknownRef: If there is no such run.
            BadName: If an alias points into it.
        """
        self._layout.check()
        self._layout.open_for_writing()
        self._layout.make_staging()
        with self._layout.lock(f"deleting the run {label}"):
            rows = self._rows(label)
            ids = {row["id"] for row in rows}
            for name, identity in self._whole_aliases().current().items():
                if identity in ids:
                    raise BadName(
                        f"the alias {name!r} points into the run {label!r}: promote another version first"
                    )
            return self._pruner.delete_run(label, rows)

    def rebuild(self) -> RebuildReport:
        """Make history and aliases again from records and events alone."""
        self._layout.check()
        self._layout.open_for_writing()
        self._layout.make_staging()
        return Rebuilder(self._layout).rebuild()

    def heal_history(self, run: str) -> None:
        """Make one run's history again while it is being written; tells that it was damaged."""
        warnings.warn(
            f"the history of the run {run} in {self.path} was damaged and was made again from the records",
            MVCWarning,
            2,
        )
        Rebuilder(self._layout).rebuild(only=run)

    def diff(self, a: str | Version, b: str | Version) -> Difference:
        """Compare two versions."""
        from mvc_callbacks.comparing import difference

        return difference(self, self._version(a), self._version(b))
