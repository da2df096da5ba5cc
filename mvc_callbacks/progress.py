"""Progress of what takes longer than a second: a bar in a notebook, by itself."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

__all__ = ["PATIENCE", "Progress", "progress_bar"]

Progress = Callable[[int, int], None]
"""Is called with what is done and the whole; or, of what is counted, with files and bytes."""
PATIENCE = 1.0  # seconds, after which somebody who waits is shown why


@contextmanager
def progress_bar(
    what: str,
    given: Progress | None,
    *,
    terminal: bool = False,
    counted: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Progress | None]:
    """Give what is to be called with the progress.

    Args:
        what: What goes on, in words.
        given: Who asked to be told; None for a bar in a notebook, and nothing elsewhere: a library does not
            write to a terminal that it does not own.
        terminal: Also show it where stderr is a terminal: for a training that somebody watches.
        counted: It is not known how much it is: what is called gets the files and bytes done.
        clock: Tells seconds that never go back.

    Yields:
        A function, or None where nobody is to be told.
    """
    if given is not None:
        yield given
        return
    bar: _Bar | _Line
    if _in_notebook():
        bar = _Bar(what, counted, clock)
    elif terminal and sys.stderr is not None and sys.stderr.isatty():
        bar = _Line(what, counted, clock)
    else:
        yield None
        return
    try:
        yield bar.show
    finally:
        bar.remove()


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")  # who runs in a notebook has imported it
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and getattr(shell, "kernel", None) is not None


class _Bar:
    """A bar that appears after a second, and goes when all is done."""

    def __init__(self, what: str, counted: bool, clock: Callable[[], float]) -> None:
        self._what, self._counted, self._clock = what, counted, clock
        self._began = clock()
        self._handle: Any = None
        self._shown = ""

    def show(self, done: int, whole: int) -> None:
        percent = 100 * done // max(whole, 1)
        text = _count(done, whole) if self._counted else f"{percent} %"
        if text == self._shown or self._clock() - self._began < PATIENCE:
            return
        self._shown = text
        from mvc_callbacks.render_html import element, markup, shown

        # Without a value a browser shows that something goes on.
        bar = element("progress") if self._counted else element("progress", value=percent, max=100)
        notebook: Any = import_module("IPython.display")
        view = notebook.HTML(markup(shown(f"{self._what} ", bar, f" {text}")))
        if self._handle is None:
            self._handle = notebook.display(view, display_id=True)
        else:
            self._handle.update(view)

    def remove(self) -> None:
        if self._handle is not None:
            notebook: Any = import_module("IPython.display")
            self._handle.update(notebook.HTML(""))


class _Line:
    """A line of the terminal that appears after a second, and goes when all is done."""

    def __init__(self, what: str, counted: bool, clock: Callable[[], float]) -> None:
        self._what, self._counted, self._clock = what, counted, clock
        self._began = clock()
        self._shown = ""

    def show(self, done: int, whole: int) -> None:
        if self._clock() - self._began < PATIENCE:
            return
        full = 20 * done // max(whole, 1)
        size = f"[{'#' * full:20}] {done / 1e6:.0f} of {whole / 1e6:.0f} MB"
        told = _count(done, whole) if self._counted else size
        self._write(f"{self._what} {told}, {self._clock() - self._began:.0f} s")

    def remove(self) -> None:
        if self._shown:
            self._write("")
            sys.stderr.write("\r")

    def _write(self, text: str) -> None:
        sys.stderr.write(f"\r{text.ljust(len(self._shown))}")
        sys.stderr.flush()
        self._shown = text


def _count(files: int, size: int) -> str:
    return f"{files} files, {size / 1e6:.0f} MB"
