"""The values that a store answers with: versions and what they are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

__all__ = [
    "AliasMove",
    "Coverage",
    "Details",
    "Evaluation",
    "Fingerprint",
    "Monitor",
    "Note",
    "Parent",
    "Pruned",
    "RunInfo",
    "TrainingState",
    "Version",
    "Weights",
]

Coverage = Literal["files", "arrays", "declared", "partial", "opaque", "none", "pending"]
SHORT = 12


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What is known of one source of data.

    Attributes:
        digest: SHA-256 in hex over the scheme's bytes; None where nothing could be hashed.
        coverage: ``files``, ``arrays``, ``declared``, ``partial``, ``opaque``, ``none``, or ``pending``
            while it is still being computed.
        files: Number of files hashed.
        bytes: Bytes hashed, of files and arrays together.
        how: Which way found it, in words.
        scheme: Name of the definition of ``digest``.
        listing: SHA-256 of the object that lists the entries, one JSON line each; None without files.
        problems: What was skipped, missing, unreadable or unstable; one line each, capped.
    """

    digest: str | None
    coverage: Coverage
    files: int = 0
    bytes: int = 0
    how: str = ""
    scheme: str = "mvc-1"
    listing: str | None = None
    problems: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Tell the fingerprint as plain JSON values."""
        return {**asdict(self), "problems": list(self.problems)}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Fingerprint:
        """Make a fingerprint from what `to_dict` told."""
        return cls(
            digest=value.get("digest"),
            coverage=value["coverage"],
            files=value.get("files", 0),
            bytes=value.get("bytes", 0),
            how=value.get("how", ""),
            scheme=value.get("scheme", "mvc-1"),
            listing=value.get("listing"),
            problems=tuple(value.get("problems", ())),
        )


@dataclass(frozen=True, slots=True)
class Monitor:
    """What the policy of a version watched.

    Attributes:
        name: The metric's name.
        mode: ``min`` or ``max``.
    """

    name: str
    mode: Literal["min", "max"]


@dataclass(frozen=True, slots=True)
class Parent:
    """A version that another was trained from.

    Attributes:
        id: The parent's full id.
        how: ``run`` (the run's version before), ``resume``, ``restore``, ``content`` or ``declared``.
        shared: ``n/m`` tensors in common, where it was found by content or loaded in part.
        elsewhere: Whether it was not in this store when the version was saved: it is one of another store.
    """

    id: str
    how: str
    shared: str | None = None
    elsewhere: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Tell the parent as plain JSON values; ``elsewhere`` only where it is true."""
        told: dict[str, Any] = {"id": self.id, "how": self.how, "shared": self.shared}
        return {**told, "elsewhere": True} if self.elsewhere else told


@dataclass(frozen=True, slots=True)
class Weights:
    """The weights of a version.

    Attributes:
        digest: The weights digest.
        tensors: Number of named tensors.
        bytes: Their logical bytes.
        stored_bytes: Bytes of objects that did not exist before this version was saved.
        of: What the weights are: ``training``, or ``average`` where an averaging callback put its own there.
        nonfinite: Whether any tensor holds NaN or Inf.
        additions: SHA-256 of the object with what the module's own hook added to the checkpoint, or None.
    """

    digest: str
    tensors: int
    bytes: int
    stored_bytes: int
    of: str = "training"
    nonfinite: bool = False
    additions: str | None = None


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


@dataclass(frozen=True, slots=True)
class TrainingState:
    """The rest of a version's training state (optimizers, loops, random state).

    Attributes:
        tree: SHA-256 of the tree object.
        digest: Weights digest of the tensors that the tree refers to.
        tensors: Number of them.
        bytes: Their logical bytes.
        untold: Paths of what could not be told, with its type.
    """

    tree: str
    digest: str
    tensors: int
    bytes: int
    untold: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Tell the state as plain JSON values."""
        return {**asdict(self), "untold": list(self.untold)}


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Metrics measured later on a version.

    Attributes:
        id: The event's id.
        time: When, UTC ISO-8601.
        kind: ``test`` or ``validate``.
        metrics: Name to number.
        data: Name to fingerprint of the data evaluated on.
    """

    id: str
    time: str
    kind: str
    metrics: Mapping[str, float]
    data: Mapping[str, Fingerprint]

    def to_dict(self) -> dict[str, Any]:
        """Tell the evaluation as JSON values."""
        return {
            "id": self.id,
            "time": self.time,
            "kind": self.kind,
            "metrics": dict(self.metrics),
            "data": {name: each.to_dict() for name, each in self.data.items()},
        }


@dataclass(frozen=True, slots=True)
class Note:
    """What somebody wrote about a version.

    Attributes:
        id: The event's id.
        time: When, UTC ISO-8601.
        text: The note.
        who: ``user@host``.
    """

    id: str
    time: str
    text: str
    who: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Tell the note as plain JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Pruned:
    """What went of a version, when and by which policy.

    Attributes:
        what: ``weights`` (the weights and the state with them) or ``state``.
        time: When, UTC ISO-8601.
        policy: In words, for example ``save_top_k=3``.
    """

    what: Literal["weights", "state"]
    time: str
    policy: str


@dataclass(frozen=True, slots=True)
class AliasMove:
    """One move of an alias.

    Attributes:
        name: The alias.
        id: The version that it points to since; None when it was removed.
        previous: The version before; None for a new alias.
        time: When, UTC ISO-8601.
        how: ``promote``, ``rollback`` or ``remove``.
        why: The reason given, or an empty string.
        who: ``user@host``.
    """

    name: str
    id: str | None
    previous: str | None
    time: str
    how: str
    why: str = ""
    who: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Tell the move as plain JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Details:
    """What only a version's and its run's record tell.

    Attributes:
        hyperparameters: As a tagged tree decoded; what could not be told or is masked is a marker object.
        code: Commit, branch, dirty flag, patch, or the source of the module's class.
        environment: Python, packages, platform, devices.
        record: The whole record, as read.
        run_record: The whole record of the run, as read; empty where it is missing.
    """

    hyperparameters: Mapping[str, Any]
    code: Mapping[str, Any]
    environment: Mapping[str, Any]
    record: Mapping[str, Any]
    run_record: Mapping[str, Any]


@dataclass(frozen=True, slots=True, repr=False)
class Version:
    """One recorded checkpoint.

    It shows itself: in a line by ``repr``, whole by `text` and in a notebook.

    Attributes:
        id: SHA-256 of the record's stored bytes, 64 hex digits.
        run: The run's label.
        number: Its place in the run, from 1; gaps are saves that failed.
        sequence: Order in the store; of two versions the later one has the larger.
        created: UTC ISO-8601.
        framework: ``lightning``, ``pytorch_lightning``, ``keras`` or ``torch``.
        epoch: Epoch counted from 0, or None.
        step: Optimizer steps, or None.
        metrics: Name to number, as known when it was saved.
        monitor: What the policy watched, or None.
        parents: What it was trained from.
        weights: Digest, sizes.
        training_state: The rest of the state, or None when saved without.
        data: Name (``train``, ``val``, ...) to fingerprint.
        evaluations: Later evaluations, oldest first.
        pruned: What went of it, latest first, or empty.
        flags: Marks such as ``nonfinite`` or ``stale``.
        notes: What was written about it, oldest first.
    """

    id: str
    run: str
    number: int
    sequence: int
    created: str
    framework: str
    epoch: int | None
    step: int | None
    metrics: Mapping[str, float]
    monitor: Monitor | None
    parents: tuple[Parent, ...]
    weights: Weights
    training_state: TrainingState | None
    data: Mapping[str, Fingerprint]
    evaluations: tuple[Evaluation, ...] = ()
    pruned: tuple[Pruned, ...] = ()
    flags: tuple[str, ...] = ()
    notes: tuple[Note, ...] = ()
    _load: Callable[[str], Details] | None = field(default=None, repr=False, compare=False)
    _show: Callable[[Version, Literal["text", "html"]], str] | None = field(
        default=None, repr=False, compare=False
    )

    def __repr__(self) -> str:
        place = [f"epoch {self.epoch}"] if self.epoch is not None else []
        place += [f"step {self.step}"] if self.step is not None else []
        metrics = [f"{name}={value:.6g}" for name, value in list(self.metrics.items())[:4]]
        return f"<Version {self.run}/{self.number} ({self.short_id}) {', '.join([*place, *metrics])}>"

    def text(self) -> str:
        """Tell everything of the version, as ``mvc show`` does."""
        return repr(self) if self._show is None else self._show(self, "text")

    def _repr_html_(self) -> str | None:
        return None if self._show is None else self._show(self, "html")

    @property
    def short_id(self) -> str:
        """The first 12 hex digits of the id."""
        return self.id[:SHORT]

    @property
    def parent(self) -> Parent | None:
        """The first parent, or None."""
        return self.parents[0] if self.parents else None

    @property
    def details(self) -> Details:
        """Everything that the records tell; read when asked for."""
        if self._load is None:
            return Details({}, {}, {}, {}, {})
        return self._load(self.id)

    @property
    def hyperparameters(self) -> Mapping[str, Any]:
        """The recorded hyperparameters."""
        return self.details.hyperparameters

    @property
    def code(self) -> Mapping[str, Any]:
        """The code that ran."""
        return self.details.code

    @property
    def environment(self) -> Mapping[str, Any]:
        """Python, packages, platform and devices."""
        return self.details.environment

    @property
    def has_weights(self) -> bool:
        """Whether the weights are still in the store."""
        return not any(each.what == "weights" for each in self.pruned)

    @property
    def has_training_state(self) -> bool:
        """Whether the training state was saved and is still in the store."""
        return self.training_state is not None and not self.pruned

    def to_dict(self) -> dict[str, Any]:
        """Tell what the history tells of the version as JSON values; `details` are left out."""
        return {
            "id": self.id,
            "short_id": self.short_id,
            "run": self.run,
            "number": self.number,
            "sequence": self.sequence,
            "created": self.created,
            "framework": self.framework,
            "epoch": self.epoch,
            "step": self.step,
            "metrics": dict(self.metrics),
            "monitor": asdict(self.monitor) if self.monitor else None,
            "parents": [parent.to_dict() for parent in self.parents],
            "weights": asdict(self.weights),
            "training_state": self.training_state.to_dict() if self.training_state else None,
            "data": {name: each.to_dict() for name, each in self.data.items()},
            "evaluations": [each.to_dict() for each in self.evaluations],
            "pruned": [asdict(each) for each in self.pruned],
            "flags": list(self.flags),
            "notes": [each.to_dict() for each in self.notes],
        }

    def without_loader(self) -> Version:
        """Return the version as a plain value that reads nothing."""
        return replace(self, _load=None, _show=None)
