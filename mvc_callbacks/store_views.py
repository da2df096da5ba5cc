"""A store as somebody looks at it: shown at a prompt and in a notebook, plotted, drawn, told on a page."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvc_callbacks.store_reader import StoreReader

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from mvc_callbacks.display import Drawing
    from mvc_callbacks.plots import Over

__all__ = ["StoreViewer"]


class StoreViewer(StoreReader):
    """A store that shows itself; nothing of what draws is imported before somebody looks."""

    def _repr_html_(self) -> str:
        from mvc_callbacks.display import store_html  # only where somebody looks

        return store_html(self)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        from mvc_callbacks.display import store_text

        printer.text(repr(self) if cycle else store_text(self))

    def plot(
        self, *metrics: str, run: str | None = None, over: Over | None = None, axes: Axes | None = None
    ) -> Figure:
        """Plot metrics over versions: axes for each metric, a line for each run.

        A star is the best by a monitored metric, a ring has an alias.

        Args:
            metrics: Names; else the monitored ones, and what most versions have.
            run: Only this run; else all.
            over: ``step``, ``epoch``, ``time`` or ``version``.
            axes: Axes of one's own, for one metric.

        Returns:
            The figure, which a notebook shows and ``savefig`` writes; pyplot knows nothing of it.

        Raises:
            MissingFramework: If matplotlib is not installed.
            Misconfigured: If there is nothing to plot.
        """
        return self.versions(run).plot(*metrics, over=over, axes=axes)

    def lineage(self, run: str | None = None) -> Drawing:
        """Draw which version came from which: runs as lanes, versions as dots, oldest left."""
        return self.versions(run).lineage()

    def report(
        self,
        file: str | os.PathLike[str] = "report.html",
        *,
        runs: Collection[str] = (),
        overwrite: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> Path:
        """Write everything that is known of the versions on one page, which needs no network.

        Args:
            file: The page. A report that is there already is replaced.
            runs: Labels of the runs to show; all if it is empty.
            overwrite: Replace a file that is no report, too.
            progress: Called with the number of versions read and of all.

        Returns:
            The file.
        """
        from mvc_callbacks.reporting import write  # only where somebody wants one

        return write(self, self._layout, file, runs=runs, overwrite=overwrite, progress=progress)
