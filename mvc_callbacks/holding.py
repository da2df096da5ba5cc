"""Holding: listings and patches that were stored for a version to come, kept open until it names them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from mvc_callbacks.errors import MVCError
from mvc_callbacks.files import OpenFile
from mvc_callbacks.layout import Layout
from mvc_callbacks.objects import Suffix

__all__ = ["Held", "listings_in"]

_MOST = 64


class Held:
    """What this process has stored beside tensors, and would not have again if somebody swept it.

    A save that finds tensors gone writes them again: it has them. A listing was made when training began, and
    a sweep takes what nobody names after a day; the next save may be two days later. The files are held open,
    which keeps their bytes without memory, also where their names are gone.

    Args:
        layout: The store.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._files: OrderedDict[tuple[str, Suffix], OpenFile] = OrderedDict()
        self._guard = threading.Lock()

    def put(self, chunks: Iterable[bytes], suffix: Suffix) -> str:
        """Store a file durably, and hold it; return its digest."""
        digest, _ = self._layout.objects.put_stream(chunks, suffix)
        with self._guard, suppress(MVCError, OSError):  # no more files may be opened: then it is not held
            self._files[digest, suffix] = OpenFile(self._layout.objects.path_of(digest, suffix))
            self._files.move_to_end((digest, suffix))
            while len(self._files) > _MOST:
                self._files.popitem(last=False)
        return digest

    def heal(self, named: Iterable[tuple[object, Suffix]]) -> None:
        """Write again what is held and gone. Hold the store's lock: then nobody sweeps.

        Args:
            named: What a version or an event is about to name: digest and suffix; others than those held are
                passed over.
        """
        for digest, suffix in named:
            held = self._files.get((digest, suffix)) if isinstance(digest, str) else None
            if held is not None and self._layout.objects.size_of(str(digest), suffix) is None:
                with suppress(OSError):  # a disk that forgot it: `verify` tells that it is missing
                    self._layout.objects.put_stream(held, suffix)


def listings_in(data: Mapping[str, Any]) -> Iterator[tuple[object, Suffix]]:
    """Go through the listings of fingerprints that are told as JSON."""
    for each in data.values():
        yield each.get("listing"), ".jsonl"
