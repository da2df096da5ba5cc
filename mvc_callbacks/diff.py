"""The difference of two versions: values in, values out; nothing is read."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from mvc_callbacks.render_values import flatten, hyperparameters
from mvc_callbacks.versions import Fingerprint, Version

if TYPE_CHECKING:
    from mvc_callbacks.listings import ListingDifference

__all__ = [
    "Change",
    "DataDifference",
    "Difference",
    "LayerChange",
    "TensorChange",
    "Tensors",
    "WeightsDifference",
    "comparable",
    "compare",
]

Kind = Literal["added", "removed", "changed", "same"]

Tensors = Mapping[str, tuple[str, Sequence[int], str]]
"""Name to logical dtype, logical shape and tensor digest."""


@dataclass(frozen=True, slots=True)
class Change:
    """One named value on both sides.

    Attributes:
        name: A metric, a dotted path of a hyperparameter or fact, or a tensor.
        kind: ``added`` (only b has it), ``removed`` (only a has it), ``changed`` or ``same``.
        a: The value in a; None where it has none.
        b: The value in b.
    """

    name: str
    kind: Kind
    a: Any
    b: Any

    def to_dict(self) -> dict[str, Any]:
        """Tell the change as plain JSON values."""
        return {"name": self.name, "kind": self.kind, "a": self.a, "b": self.b}


@dataclass(frozen=True, slots=True)
class DataDifference:
    """One source of data on both sides.

    Attributes:
        name: ``train``, ``val``, ...
        same: Whether the digests are equal; None where one of them is not known.
        a: Fingerprint in a, or None.
        b: Fingerprint in b, or None.
        files: How the files differ, one by one; None where they do not, or a listing is not known.
    """

    name: str
    same: bool | None
    a: Fingerprint | None
    b: Fingerprint | None
    files: ListingDifference | None = None

    def to_dict(self) -> dict[str, Any]:
        """Tell the difference as plain JSON values."""
        return {
            "name": self.name,
            "same": self.same,
            "a": self.a.to_dict() if self.a else None,
            "b": self.b.to_dict() if self.b else None,
            "files": _told_files(self.files) if self.files is not None else None,
        }


def _told_files(files: ListingDifference) -> dict[str, Any]:
    return {each.name: _plain(getattr(files, each.name)) for each in fields(files)}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


@dataclass(frozen=True, slots=True)
class TensorChange:
    """How much a tensor changed.

    Attributes:
        name: The tensor's name.
        items: Number of values that are finite on both sides.
        relative: L2 norm of the change over the L2 norm in a, of the values that are finite on both sides;
            0 where nothing changed, ``inf`` where a was all zeros.
        largest: Largest absolute change of one value.
        nonfinite: Number of NaN and Inf in a and in b.
        squares: Sum of the squares of the change, and of a.
        same: Whether dtype and bytes are equal.
    """

    name: str
    items: int
    relative: float
    largest: float
    nonfinite: tuple[int, int] = (0, 0)
    squares: tuple[float, float] = (0.0, 0.0)
    same: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Tell the change as plain JSON values."""
        return {
            "name": self.name,
            "items": self.items,
            "relative": self.relative,
            "largest": self.largest,
            "nonfinite": list(self.nonfinite),
        }


@dataclass(frozen=True, slots=True)
class LayerChange:
    """How much the tensors of a layer changed together.

    Attributes:
        name: What their names begin with.
        tensors: Number of them.
        relative: As of a tensor, over all of their values.
        largest: As of a tensor.
    """

    name: str
    tensors: int
    relative: float
    largest: float

    def to_dict(self) -> dict[str, Any]:
        """Tell the change as plain JSON values."""
        return {
            "name": self.name,
            "tensors": self.tensors,
            "relative": self.relative,
            "largest": self.largest,
        }


@dataclass(frozen=True, slots=True)
class WeightsDifference:
    """The weights of both sides.

    Attributes:
        same: Whether the weights digests are equal.
        unchanged: Number of tensors with the same name, form and bytes; None where a manifest is gone.
        changed: Tensors whose bytes, dtype or shape differ; ``a`` and ``b`` tell dtype and shape.
        added: Tensors only in b.
        removed: Tensors only in a.
        renamed: Pairs of names in a and b with the same bytes, which only one tensor of each side has.
        values: How much each tensor changed, of those with one shape on both sides; None unless asked for.
        layers: The same by layer.
        why_no_values: Why it was asked for and is not known, or an empty string.
    """

    same: bool
    unchanged: int | None = None
    changed: tuple[Change, ...] = ()
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    renamed: tuple[tuple[str, str], ...] = ()
    values: tuple[TensorChange, ...] | None = None
    layers: tuple[LayerChange, ...] = ()
    why_no_values: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Tell the difference as plain JSON values."""
        return {
            "same": self.same,
            "unchanged": self.unchanged,
            "changed": [change.to_dict() for change in self.changed],
            "added": list(self.added),
            "removed": list(self.removed),
            "renamed": [list(pair) for pair in self.renamed],
            "values": None if self.values is None else [each.to_dict() for each in self.values],
            "layers": [each.to_dict() for each in self.layers],
        }


@dataclass(frozen=True, slots=True, repr=False)
class Difference:
    """What differs between two versions.

    Attributes:
        a: The version compared with.
        b: The version compared.
        metrics: All metrics of both.
        hyperparameters: Those that differ, by dotted path.
        data: All sources of data of both.
        code: Facts about the code that differ.
        environment: Facts about the environment that differ.
        weights: The weights.
        patches: What was not committed in a and in b, where these differ and are known; else empty.
    """

    a: Version
    b: Version
    metrics: tuple[Change, ...]
    hyperparameters: tuple[Change, ...]
    data: tuple[DataDifference, ...]
    code: tuple[Change, ...]
    environment: tuple[Change, ...]
    weights: WeightsDifference
    patches: tuple[str, str] = ("", "")

    def to_dict(self) -> dict[str, Any]:
        """Tell the difference as plain JSON values."""
        return {
            **{
                side: {"id": each.id, "short_id": each.short_id, "run": each.run, "number": each.number}
                for side, each in (("a", self.a), ("b", self.b))
            },
            "metrics": [change.to_dict() for change in self.metrics],
            "hyperparameters": [change.to_dict() for change in self.hyperparameters],
            "data": [each.to_dict() for each in self.data],
            "code": [change.to_dict() for change in self.code],
            "environment": [change.to_dict() for change in self.environment],
            "weights": self.weights.to_dict(),
            "patches": list(self.patches),
        }

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        from mvc_callbacks.render_html import markup, shown
        from mvc_callbacks.render_html_diff import difference_html

        return markup(shown(difference_html(self)))

    def text(self) -> str:
        """Tell the difference as plain text."""
        from mvc_callbacks.render_diff import difference_lines  # it reads this module's values

        return "\n".join(difference_lines(self))


def compare(
    a: Version,
    b: Version,
    *,
    files: Mapping[str, ListingDifference] | None = None,
    weights: tuple[Tensors | None, Tensors | None] = (None, None),
) -> Difference:
    """Compare two versions.

    Args:
        a: The older one, usually.
        b: The newer one.
        files: Name of a source of data to how its files differ, for the sources whose listings are known.
        weights: For each side the tensors, or None where the manifest is gone.

    Returns:
        What differs.
    """
    return Difference(
        a=a,
        b=b,
        metrics=tuple(_changes(a.metrics, b.metrics, keep_same=True)),
        hyperparameters=tuple(_changes(_recorded(a), _recorded(b))),
        data=tuple(
            _data(name, a.data.get(name), b.data.get(name), (files or {}).get(name))
            for name in dict.fromkeys([*a.data, *b.data])
        ),
        code=tuple(_changes(flatten(a.code), flatten(b.code))),
        environment=tuple(_changes(flatten(a.environment), flatten(b.environment))),
        weights=_weights(a.weights.digest == b.weights.digest, *weights),
    )


def _recorded(version: Version) -> dict[str, Any]:
    # As recorded: markers and arrays decoded from it compare badly, or not at all.
    return hyperparameters(version.details.record.get("hyperparameters"))


def _changes(a: Mapping[str, Any], b: Mapping[str, Any], *, keep_same: bool = False) -> Iterable[Change]:
    for name in dict.fromkeys([*a, *b]):
        kind: Kind
        if name not in a or name not in b:
            kind = "added" if name in b else "removed"
        else:
            kind = "same" if comparable(a[name]) == comparable(b[name]) else "changed"
        if keep_same or kind != "same":
            yield Change(name, kind, a.get(name), b.get(name))


def comparable(value: Any) -> str:
    """Tell a value so that 1, 1.0 and True differ, and NaN is the same as NaN."""
    try:
        return json.dumps(value, sort_keys=True)
    except (TypeError, ValueError):
        return repr(value)


def _data(
    name: str, a: Fingerprint | None, b: Fingerprint | None, files: ListingDifference | None
) -> DataDifference:
    same: bool | None
    if a is None or b is None:
        same = False
    elif a.digest is None or b.digest is None or a.scheme != b.scheme:
        same = None
    else:
        same = a.digest == b.digest
    return DataDifference(name, same, a, b, None if same else files)


def _weights(same: bool, before: Tensors | None, after: Tensors | None) -> WeightsDifference:
    if before is None or after is None:
        return WeightsDifference(same)
    both = [name for name in before if name in after]
    changed = [name for name in both if _identity(before[name]) != _identity(after[name])]
    gone = {name: _identity(before[name]) for name in before if name not in after}
    new = {name: _identity(after[name]) for name in after if name not in before}
    renamed = _renamed(gone, new)
    old_names, new_names = {old for old, _ in renamed}, {name for _, name in renamed}
    return WeightsDifference(
        same,
        unchanged=len(both) - len(changed),
        changed=tuple(Change(name, "changed", _form(before[name]), _form(after[name])) for name in changed),
        added=tuple(name for name in new if name not in new_names),
        removed=tuple(name for name in gone if name not in old_names),
        renamed=renamed,
    )


_Identity = tuple[str, tuple[int, ...], str]


def _renamed(gone: Mapping[str, _Identity], new: Mapping[str, _Identity]) -> tuple[tuple[str, str], ...]:
    # Several tensors of zeros have one digest; nobody could say which became which.
    often = Counter(gone.values()) | Counter(new.values())
    places = {key: name for name, key in new.items() if often[key] == 1}
    return tuple((old, places[key]) for old, key in gone.items() if key in places)


def _identity(entry: tuple[str, Sequence[int], str]) -> _Identity:
    return entry[0], tuple(entry[1]), entry[2]


def _form(entry: tuple[str, Sequence[int], str]) -> str:
    return f"{entry[0]} {list(entry[1])}"
