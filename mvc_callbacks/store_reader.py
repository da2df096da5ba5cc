"""Asking a store: versions, runs, aliases, and the states that they name."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mvc_callbacks.aliases import AliasTable
from mvc_callbacks.errors import (
    CorruptObject,
    CorruptRecord,
    MissingObject,
    MVCError,
    PrunedVersion,
    UnknownRef,
)
from mvc_callbacks.finding import Finder, order_of
from mvc_callbacks.history import Row
from mvc_callbacks.layout import Layout, default_path
from mvc_callbacks.overview import Overview, newest_runs, overview, run_infos
from mvc_callbacks.progress import Progress, progress_bar
from mvc_callbacks.rows import version_of
from mvc_callbacks.version_lists import VersionList
from mvc_callbacks.versions import AliasMove, Details, RunInfo, Version

if TYPE_CHECKING:
    from mvc_callbacks.diff import Difference
    from mvc_callbacks.manifests import Manifest
    from mvc_callbacks.tensors import Tensor

__all__ = ["StoreReader"]

_SHOWN = 8


class StoreReader:
    """A folder of versions, as it is read; it never writes into it.

    Nothing is read, made or locked before it is asked for.

    Args:
        path: The folder; else ``$MVC_STORE``, else ``./model_versions``.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self.path = default_path() if path is None else Path(path).expanduser().absolute()
        self._layout = Layout(self.path)

    def __reduce__(self) -> tuple[type[StoreReader], tuple[str]]:
        return type(self), (str(self.path),)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StoreReader) and other.path == self.path

    def __hash__(self) -> int:
        return hash(self.path)

    def show_on_terminal(self) -> None:
        """Show on stderr, where that is a terminal, what takes long: for a command, which owns it."""
        self._layout.summaries.terminal = True

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

    def versions(self, run: str | None = None) -> VersionList:
        """Return the versions of a run, or of all, oldest first.

        The list shows itself as a table, and has ``to_pandas()``, ``plot()`` and ``lineage()``.

        Raises:
            StoreNotFound: If there is no store.
            UnknownRef: If there is no such run.
            CorruptHistory: If a history cannot be read.
        """
        return VersionList((self.version_from(row) for row in self._rows(run)), self)

    def overview(self, run: str | None = None, *, newest: int = 0) -> Overview:
        """Tell the newest versions of a run or of all, and what all come to, without reading the others.

        Args:
            run: The run's label.
            newest: How many.

        Raises:
            StoreNotFound: If there is no store.
            UnknownRef: If there is no such run.
            CorruptHistory: If a history cannot be read.
        """
        self._refuse_unknown_run(run)
        return overview(self._layout, self._finder(), run, newest, self.version_from)

    def newest_runs(self, count: int) -> dict[str, str]:
        """Return the runs with the newest versions, newest first: label to the id of its newest one."""
        self._layout.check()
        return newest_runs(self._layout, count)

    def _refuse_unknown_run(self, run: str | None) -> None:
        self._layout.check()
        if run is not None and run not in self._layout.history.runs():
            known = ", ".join(self._layout.history.runs()[-8:]) or "none yet"
            raise UnknownRef(f"there is no run {run!r} in {self.path}; runs: {known}")

    def _rows(self, run: str | None = None) -> list[Row]:
        self._refuse_unknown_run(run)
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
        return run_infos(self._layout, self._run_of)

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
        return version_of(row, self.details, self._view)

    def _view(self, version: Version, form: Literal["text", "html"]) -> str:
        from mvc_callbacks import display

        return (display.version_html if form == "html" else display.version_text)(self, version)

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
        row = self._finder().by_weights(digest)
        return self.version_from(row) if row is not None else None

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
        from mvc_callbacks.tensors import State
        from mvc_callbacks.torch_state import rebuild

        told = self._layout.versions.read(version.id)["weights"]
        tied = tuple(tuple(group) for group in told.get("tied", ()))
        state_dict: dict[str, Any] = rebuild(State(tensors, tied=tied), self.extra(version))["state_dict"]
        return state_dict

    def tensors(
        self, ref: str | Version, *, verify: bool = True, progress: Progress | None = None
    ) -> dict[str, Tensor]:
        """Read a version's weights as neutral tensors, which need no framework.

        Args:
            ref: A ref, or a version.
            verify: Hash everything before anything is returned.
            progress: Called with the bytes read and their sum; a notebook shows a bar by itself.

        Raises:
            PrunedVersion: If the weights were pruned.
            MissingObject: If an object is missing.
            CorruptObject: If an object is damaged.
        """
        version = self._version(ref)
        self._refuse_pruned(version, "weights")
        return self._read(version, "weights", version.weights.digest, verify, progress)

    def _read(
        self,
        version: Version,
        what: Literal["weights", "state"],
        digest: str,
        verify: bool,
        progress: Progress | None = None,
    ) -> dict[str, Tensor]:
        from mvc_callbacks.reading import read_state  # a listing of versions never needs it

        manifest = None
        try:
            manifest = self._layout.manifests.read(digest)
            with progress_bar(f"reading {version.run}/{version.number}", progress) as told:
                return read_state(self._layout, manifest, verify=verify, progress=told)
        except (MissingObject, CorruptObject) as error:
            # It may have been pruned since this version was asked for.
            self._refuse_pruned(self.version_from(self._finder().by_id(version.id)), what)
            raise type(error)(f"{error}; {self._hurt(version, manifest)}") from error

    def _hurt(self, version: Version, manifest: Manifest | None) -> str:
        """Tell which versions a damage hurts; slow, and worth it."""
        from mvc_callbacks.reading import damaged_in

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
        from mvc_callbacks.reading import read_tree

        version = self._version(ref)
        self._refuse_pruned(version, "state")
        state = version.training_state
        if state is None:
            raise PrunedVersion(
                f"version {version.run}/{version.number} ({version.short_id}) was saved without its "
                "training state: training cannot go on from it as it was. Load the weights with "
                "restore_version(), or resume from another version"
            )
        tensors = self._read(version, "state", state.digest, verify)
        return read_tree(self._layout, state.tree), tensors

    def extra(self, ref: str | Version) -> dict[str, Any]:
        """Return the non-tensor entries of a version's state dict."""
        from mvc_callbacks.tree import decode

        told = self._layout.versions.read(self._version(ref).id)["weights"].get("extra", {})
        return {name: decode(each, None) for name, each in told.items()}

    def additions(self, ref: str | Version) -> dict[str, Any]:
        """Return what the module's own hook added to a version's checkpoint; it stays as long as the weights.

        Raises:
            PrunedVersion: If the weights were pruned.
            MissingObject: If the object is missing.
            CorruptObject: If the object is damaged.
        """
        from mvc_callbacks.reading import read_tree
        from mvc_callbacks.tree import decode

        version = self._version(ref)
        self._refuse_pruned(version, "weights")
        if version.weights.additions is None:
            return {}
        told = read_tree(self._layout, version.weights.additions)
        return {name: decode(each, None) for name, each in told.items()}

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

    # --- aliases ---

    def aliases(self) -> dict[str, str]:
        """Return alias to full id, sorted by name."""
        self._layout.check()
        return self._aliases().current()

    def alias_log(self, name: str | None = None) -> list[AliasMove]:
        """Return the moves of one alias, or of all, oldest first."""
        self._layout.check()
        return self._aliases().log(name)

    def watch(self, name: str, *, timeout: float | None = None, every: float = 1.0) -> Iterator[Version]:
        """Yield the version that an alias points to, and again each time that it points to another.

        Args:
            name: The alias; neither it nor the store need be there yet.
            timeout: Seconds without a move after which it ends; None to go on for ever, 0 to look once.
            every: Seconds between two looks.
        """
        from mvc_callbacks.watching import watch

        return watch(self, name, timeout=timeout, every=every)

    def diff(
        self,
        a: str | Version,
        b: str | Version,
        *,
        weights: bool = False,
        progress: Progress | None = None,
    ) -> Difference:
        """Compare two versions.

        Args:
            a: The older one, usually.
            b: The newer one.
            weights: Read all weights, and tell how much each tensor and layer changed; needs numpy.
            progress: Called with the bytes compared and their sum; a notebook shows a bar by itself.
        """
        from mvc_callbacks.comparing import difference

        with progress_bar("comparing", progress) as told:
            return difference(self, self._version(a), self._version(b), weights=weights, progress=told)
