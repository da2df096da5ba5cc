"""Watching an alias: a process that serves a model learns when another version is to be served."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from mvc_callbacks.refs import check_name
from mvc_callbacks.versions import Version

if TYPE_CHECKING:
    from mvc_callbacks.store_reader import StoreReader

__all__ = ["watch"]


def watch(
    store: StoreReader,
    name: str,
    *,
    timeout: float | None = None,
    every: float = 1.0,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Version]:
    """Yield the version that an alias points to, and again each time that it points to another.

    Args:
        store: The store; it need not be there yet.
        name: The alias; it need not be there yet.
        timeout: Seconds without a move after which it ends; None to go on for ever, 0 to look once.
        every: Seconds between two looks.
        sleep: Waits.
        clock: Tells seconds that never go back.

    Yields:
        Versions. Of moves that follow each other faster than ``every`` only the last may be seen.

    Raises:
        BadName: If no alias can have such a name.
    """
    check_name(name, "alias")
    seen: str | None = None
    since = clock()
    while True:
        current = store.aliases().get(name) if store.exists() else None
        if current is not None and current != seen:
            seen = current
            yield store.get(current)
            since = clock()
        left = None if timeout is None else since + timeout - clock()
        if left is not None and left <= 0:
            return
        sleep(every if left is None else min(every, left))
