"""Whether the data that a run goes on with are still those of the version that it goes on from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mvc_callbacks import listings
from mvc_callbacks.errors import MVCError
from mvc_callbacks.versions import Fingerprint, Version

if TYPE_CHECKING:
    from mvc_callbacks.store import VersionStore

__all__ = ["DataChange", "compare"]


@dataclass(frozen=True, slots=True)
class DataChange:
    """How data differ from those of a version.

    Attributes:
        changed: One sentence for each source that differs.
        unknown: One for each source of which nobody can say.
    """

    changed: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


def compare(
    store: VersionStore, version: Version, now: Mapping[str, tuple[Fingerprint, Iterable[bytes] | None]]
) -> DataChange:
    """Compare the data of a version with those of now, file by file where both are files.

    Args:
        store: The version's store, which has its listings.
        version: The version that training goes on from.
        now: Name (``train``, ``val``, ...) to fingerprint and listing; a listing is not consumed.

    Returns:
        What differs, and what cannot be compared. Validation data that only one side has are left out.
    """
    changed, unknown = [], []
    for name in dict.fromkeys([*version.data, *now]):
        before = version.data.get(name)
        after, listing = now.get(name, (None, None))
        if before is None or after is None:
            if name.partition(".")[0] == "train":
                unknown.append(f"the data {name!r} were there only {'before' if after is None else 'now'}")
        elif after.coverage == "pending" or before.coverage == "pending":
            unknown.append(f"the fingerprint of the data {name!r} is not known yet")
        elif before.digest is None or after.digest is None:
            unknown.append(f"the data {name!r} have no fingerprint")
        elif before.scheme != after.scheme:
            unknown.append(f"the fingerprints of the data {name!r} are made in other ways")
        elif before.digest != after.digest:
            changed.append(f"the data {name!r} have changed{_files(store, before, listing)}")
        elif before.coverage == "partial" or after.coverage == "partial":
            unknown.append(f"the fingerprint of the data {name!r} covers only a part of them")
    return DataChange(tuple(changed), tuple(unknown))


def _files(store: VersionStore, before: Fingerprint, listing: Iterable[bytes] | None) -> str:
    if before.listing is None or listing is None:
        return ""
    try:
        difference = listings.compare([store.listing(before.listing)], listing)
    except MVCError:  # missing or damaged: the digests still say that they differ
        return ""
    return f": {difference}" if difference else ", in their order or selection"
