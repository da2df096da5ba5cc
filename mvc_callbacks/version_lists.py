"""Lists of versions that show themselves."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, SupportsIndex, overload

from mvc_callbacks.versions import Version

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

    from mvc_callbacks.display import Drawing
    from mvc_callbacks.plots import Over
    from mvc_callbacks.store_reader import StoreReader

__all__ = ["VersionList"]


class VersionList(list[Version]):
    """Versions of a store: a list, that shows itself as a table at a prompt and in a notebook.

    What is cut out of it by a slice is one again.

    Args:
        versions: The versions.
        store: Where they are from: it is asked for aliases and parents when they are shown.
    """

    def __init__(self, versions: Iterable[Version] = (), store: StoreReader | None = None) -> None:
        super().__init__(versions)
        self._store = store

    @overload
    def __getitem__(self, place: SupportsIndex, /) -> Version: ...

    @overload
    def __getitem__(self, place: slice, /) -> VersionList: ...

    def __getitem__(self, place: SupportsIndex | slice, /) -> Version | VersionList:
        found = super().__getitem__(place)
        return VersionList(found, self._store) if isinstance(found, list) else found

    def __repr__(self) -> str:
        from mvc_callbacks.display import list_text

        return list_text(self, self._store)

    def _repr_html_(self) -> str:
        from mvc_callbacks.display import list_html

        return list_html(self, self._store)

    def to_pandas(self, *, hyperparameters: bool = False) -> DataFrame:
        """Return a table with one row for each version.

        Args:
            hyperparameters: Also the recorded hyperparameters, for which every version's record is read.

        Returns:
            A DataFrame whose index is ``run/number``; its columns are id, run, number, created, epoch, step,
            framework, parent, bytes, stored_bytes, has_weights, flags, ``metrics.<name>`` and
            ``hyperparameters.<dotted path>``.

        Raises:
            MissingFramework: If pandas is not installed.
        """
        from mvc_callbacks.display import frame

        return frame(self, hyperparameters=hyperparameters)

    def plot(self, *metrics: str, over: Over | None = None, axes: Axes | None = None) -> Figure:
        """Plot metrics, a line for each run; see ``VersionStore.plot``.

        Raises:
            MissingFramework: If matplotlib is not installed.
            Misconfigured: If there is nothing to plot.
        """
        from mvc_callbacks.display import figure

        return figure(self, self._store, metrics, over=over, axes=axes)

    def lineage(self) -> Drawing:
        """Draw which version came from which: runs as lanes, versions as dots."""
        from mvc_callbacks.display import lineage

        return lineage(self, self._store)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (list(self), self._store)
