"""The store: the one place where objects, records and history are joined into versions."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Literal

from mvc_callbacks.commit import Run, now, user
from mvc_callbacks.errors import BadName, Misconfigured, MVCWarning, UnknownRef
from mvc_callbacks.history import Row
from mvc_callbacks.holding import Held, listings_in
from mvc_callbacks.progress import Progress, progress_bar
from mvc_callbacks.pruning import Pruner, PruneReport, has
from mvc_callbacks.rebuilding import Rebuilder, RebuildReport
from mvc_callbacks.refs import check_name
from mvc_callbacks.retention import choose
from mvc_callbacks.rows import apply_event
from mvc_callbacks.store_aliases import AliasMover
from mvc_callbacks.times import point_in_time
from mvc_callbacks.verifying import Report, Verifier
from mvc_callbacks.versions import Fingerprint, Version

if TYPE_CHECKING:
    from mvc_callbacks.manifests import Manifest

__all__ = ["VersionStore"]

LONGEST_NOTE = 10_000
_READING = "reading what versions need"


class VersionStore(AliasMover):
    """A folder of versions.

    Nothing is read, made or locked before it is asked for.

    Args:
        path: The folder; else ``$MVC_STORE``, else ``./model_versions``.

    Attributes:
        held: Listings and patches that were stored through this object.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        super().__init__(path)
        self._pruner = Pruner(self._layout)
        self.held = Held(self._layout)
        self._open: dict[str | None, Run] = {}

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
        parent: str | Version | None = None,
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
            parent: What it was trained from, if not from the run's version before.
            epoch: Epoch counted from 0.
            step: Optimizer steps.
            training_state: Whatever else is needed to go on: ``{"optimizer": optimizer.state_dict()}``.
            monitor: Metric and ``min`` or ``max``, for ``best``.

        Returns:
            The version, durable.

        Raises:
            Misconfigured: If this is no state dict, or a metric is no number.
            UnsupportedTensor: If a tensor's bits cannot be kept.
            OSError: If the disk refuses.
        """
        from mvc_callbacks import loop

        loop.check(state_dict, metrics)
        if run not in self._open:
            self._open[run] = loop.begin(self, run)
        return loop.commit(
            self,
            self._open[run],
            state_dict,
            training_state,
            metrics=metrics,
            hyperparameters=hyperparameters,
            data=data,
            parent=parent,
            epoch=epoch,
            step=step,
            monitor=monitor,
        )

    def checkpoint(self, ref: str | Version) -> dict[str, Any]:
        """Read back what `commit` was given: the ``state_dict``, and the training state beside it.

        Raises:
            PrunedVersion: If the state was pruned, or the version was saved without.
            MissingObject, CorruptObject: If the store is damaged.
        """
        from mvc_callbacks import loop

        return loop.checkpoint(self, ref)

    def put_listing(self, chunks: Iterable[bytes]) -> str:
        """Store the listing of a fingerprint; return its digest."""
        self._layout.open_for_writing()
        return self.held.put(chunks, ".jsonl")

    def put_patch(self, data: bytes) -> str:
        """Store the patch of a run's code; return its digest."""
        self._layout.open_for_writing()
        return self.held.put([data], ".patch")

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

    def note(self, ref: str | Version, text: str) -> Version:
        """Write a note about a version; its id stays.

        Returns:
            The version as it is now.

        Raises:
            Misconfigured: If the text is empty, or longer than 10 000 letters.
        """
        if not text.strip() or len(text) > LONGEST_NOTE:
            raise Misconfigured(f"a note has 1 to {LONGEST_NOTE} letters, and this one {len(text.strip())}")
        identity = self._version(ref).id
        fields = {"event": "note", "versions": [identity], "text": text.strip(), "who": user(), "time": now()}
        self._tell(identity, fields)
        return self.get(identity)

    def _tell(self, identity: str, fields: Mapping[str, Any]) -> None:
        """Write an event about one version, and its row."""
        self._layout.check()
        self._layout.open_for_writing()
        self._layout.make_staging()
        with self._layout.lock("writing an event"):
            row = self._finder().by_id(identity)
            self.held.heal(listings_in(fields.get("data", {"": fields.get("fingerprint", {})})))
            event = self._layout.events.write(fields)
            told = self._layout.events.read(event)
            self._layout.history.update(
                row["run"], [row["number"]], lambda each: apply_event(each, event, told)
            )

    # --- keeping house ---

    def verify(self, *, full: bool = False, progress: Progress | None = None) -> Report:
        """Tell what is damaged or missing, and which versions and tensors that hurts.

        Args:
            full: Hash every byte; damaged objects are moved aside.
            progress: Called with the objects done and their number; a notebook shows a bar by itself.
        """
        self._layout.check()
        with progress_bar("verifying", progress) as told:
            return Verifier(self._layout).verify(full=full, progress=told)

    def prune(
        self,
        *refs: str,
        keep_last: int | None = None,
        keep_best: int | None = None,
        keep_every: int | None = None,
        keep_alias: str | Iterable[str] | None = None,
        older_than: str | datetime | timedelta | None = None,
        run: str | None = None,
        what: Literal["weights", "state"] = "weights",
        dry_run: bool = False,
        policy: str | None = None,
        progress: Progress | None = None,
    ) -> PruneReport:
        """Remove weights or training state of versions; their records stay.

        Versions that an alias points to are never pruned. What was pruned before counts for no rule: the best
        three are the best of what is there.

        Args:
            refs: Versions to prune, and no others; without them the rules choose.
            keep_last: Keep the newest so many of each run.
            keep_best: Keep the best so many of each run.
            keep_every: Keep versions whose number in the run is a multiple.
            keep_alias: Keep also what this alias, or these, pointed to before: what it can be rolled back to.
            older_than: Choose only what was made before: a time, an age, or a text as ``30d`` or
                ``2025-11-24`` (UTC).
            run: Choose in this run only.
            what: ``weights`` (and the state with them), or only the training ``state``.
            dry_run: Tell only.
            policy: Why, in words; kept with the version.
            progress: Called with the manifests that this host reads for the first time, and their number; a
                notebook shows a bar by itself.

        Returns:
            What was removed.

        Raises:
            Misconfigured: If there is neither a ref nor a rule, or a rule makes no sense.
            UnknownRef: If a ref, run or alias is not there.
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
            "older_than": None
            if older_than is None
            else point_in_time(older_than, datetime.now(timezone.utc)),
        }
        aliases = (
            None if keep_alias is None else [keep_alias] if isinstance(keep_alias, str) else [*keep_alias]
        )
        if refs:
            policy = policy or "prune by name"
        else:
            said = {**rules, "keep_alias": ",".join(aliases) if aliases else None}
            policy = policy or " ".join(f"{name}={rule}" for name, rule in said.items() if rule is not None)

        def chosen() -> list[Row]:
            if refs:
                return [self._finder().find(ref) for ref in refs]
            there = [row for row in self._rows(run) if has(row, what)]
            return choose(there, **rules, named=None if aliases is None else self._ever_named(aliases))

        with progress_bar(_READING, progress) as told:
            self._pruner.needs.prepare(told)
        report = self._prune_rows(
            chosen,
            what=what,
            policy=policy,
            dry_run=dry_run,
        )
        if refs:
            return report
        swept = self._pruner.sweep(dry_run=dry_run)
        freed = report.freed_bytes + swept.freed_bytes
        return replace(report, objects=report.objects + swept.objects, freed_bytes=freed)

    def _ever_named(self, aliases: list[str]) -> set[str]:
        """Return the ids of what aliases point to, or have pointed to."""
        found: set[str] = set()
        for name in aliases:
            moves = self._aliases().log(name)
            if not moves:
                raise UnknownRef(f"there is no alias {name!r}; `mvc aliases` lists them")
            found |= {move.id for move in moves if move.id is not None}
        return found

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
        self._pruner.needs.prepare()
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
        return replace(report, kept=kept)

    def delete_run(self, label: str, *, progress: Progress | None = None) -> PruneReport:
        """Remove a run with the records of its versions; a rebuild does not bring it back.

        Args:
            label: The run.
            progress: As for `prune`.

        Raises:
            UnknownRef: If there is no such run.
            BadName: If an alias points into it.
        """
        self._layout.check()
        self._layout.open_for_writing()
        self._layout.make_staging()
        with progress_bar(_READING, progress) as told:
            self._pruner.needs.prepare(told)
        with self._layout.lock(f"deleting the run {label}"):
            rows = self._rows(label)
            ids = {row["id"] for row in rows}
            for name, identity in self._whole_aliases().current().items():
                if identity in ids:
                    raise BadName(
                        f"the alias {name!r} points into the run {label!r}: promote another version, or "
                        f"remove the alias (`mvc remove-alias {name}`), first"
                    )
            return self._pruner.delete_run(label, rows)

    def rebuild(self, *, progress: Progress | None = None) -> RebuildReport:
        """Make history and aliases again from records and events alone.

        Args:
            progress: Called with the records read and their number; a notebook shows a bar by itself.
        """
        self._layout.check()
        self._layout.open_for_writing()
        self._layout.make_staging()
        with progress_bar("rebuilding", progress) as told:
            return Rebuilder(self._layout, told).rebuild()

    def note_manifests(self, written: Iterable[Manifest]) -> None:
        """Remember what was just written, so that the next removal need not read it."""
        self._pruner.needs.note(written)

    def heal_history(self, run: str) -> None:
        """Make one run's history again while it is being written; tells that it was damaged."""
        warnings.warn(
            f"the history of the run {run} in {self.path} was damaged and was made again from the records",
            MVCWarning,
            2,
        )
        Rebuilder(self._layout).rebuild(only=run)
