r"""Plans: data that was found and is to be hashed, and the scheme by which one digest is made of it.

The scheme ``mvc-1``: SHA-256 of ``mvc-1\n``, then the number of files as ``u64le``, the SHA-256 of all files,
the number of parts as ``u64le``, and the parts. A file is ``frame(name)``, ``u64le(size)`` and its SHA-256
(32 bytes), sorted by name; a part is ``frame(place)``, ``frame(kind)`` and a digest of 32 bytes, in the order
of the source. ``frame`` puts the length before the bytes, as ``u64le``.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from mvc_callbacks.digests_cache import DigestsCache
from mvc_callbacks.file_digests import Cancelled, Hashed, hash_files
from mvc_callbacks.host_cache import cache_folder
from mvc_callbacks.listings import Entry, Listing, Sorter, show_name
from mvc_callbacks.sources import Finder, Part
from mvc_callbacks.sources_files import Names
from mvc_callbacks.sources_values import Untellable, frame, u64
from mvc_callbacks.stamps import stamp
from mvc_callbacks.versions import Coverage, Fingerprint

__all__ = ["SCHEME", "Computed", "Plan", "Progress"]

SCHEME = "mvc-1"

_REMEMBERED = 1_000_000
_PROBLEMS = 100
_LONGEST = 400
_LARGEST_KEPT = 64 * 1024 * 1024
_OFTEN = 0.1

Progress = Callable[[int, int], None]
"""Called with the number of files and bytes done, at most ten times a second and at the end."""


@dataclass(frozen=True, slots=True)
class Computed:
    """What became of a plan.

    Attributes:
        fingerprint: The fingerprint.
        listing: Its files, whose bytes `Fingerprint.listing` is the digest of; None without files.
    """

    fingerprint: Fingerprint
    listing: Listing | None


@dataclass(slots=True)
class Plan:
    """What will be hashed.

    Attributes:
        finder: What was found.
        declared: Whether the user named it.
    """

    finder: Finder
    declared: bool = False

    def compute(
        self,
        *,
        progress: Progress | None = None,
        cancelled: Callable[[], bool] | None = None,
        cache: str | None = "files",
        largest: int | None = None,
        threads: int | None = None,
    ) -> Computed:
        """Hash everything.

        Args:
            progress: Called now and then with the number of files and bytes done.
            cancelled: Asked now and then; once it says True the answer comes soon, with the coverage
                ``pending``.
            cache: Name of the cache of file digests; None for none.
            largest: Files of more bytes than this are told as not hashed.
            threads: How many files are read at a time; as many as there are processors, when None.

        Returns:
            The fingerprint and the listing of its files. Close the listing when it is no longer needed.
        """
        digests = DigestsCache(None if cache is None else cache_folder(cache) / "digests.sqlite")
        work = _Work(self.finder, cancelled or _never, _often(progress))
        try:
            work.hash_files(digests, largest, threads)
            work.hash_parts()
            return work.result(self.declared)
        except Cancelled:
            work.listing.close()
            return Computed(Fingerprint(None, "pending", how="not finished", scheme=SCHEME), None)
        except BaseException:
            work.listing.close()
            raise
        finally:
            digests.close()


def _never() -> bool:
    return False


def _often(progress: Progress | None) -> Callable[[int, int, bool], None]:
    last = time.monotonic()

    def tell(files: int, size: int, now: bool) -> None:
        nonlocal last
        if progress is not None and (now or time.monotonic() - last > _OFTEN):
            last = time.monotonic()
            progress(files, size)

    return tell


@dataclass(slots=True)
class _Work:
    """One computation: files first, then what goes by their names."""

    finder: Finder
    cancelled: Callable[[], bool]
    progress: Callable[[int, int, bool], None]
    names: Names = field(default_factory=Names)
    listing: Listing = field(default_factory=Listing)
    files_digest: bytes = b""
    size: int = 0
    content: int = 0
    unknown: int = 0
    parts: list[tuple[Part, bytes]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    more_problems: int = 0
    seen: int = 0

    def check(self) -> None:
        if self.cancelled():
            raise Cancelled

    def problem(self, path: str, what: str) -> None:
        self.note(f"{show_name(path)}: {what}")

    def note(self, text: str) -> None:
        if len(self.problems) < _PROBLEMS:
            self.problems.append(show_name(text)[:_LONGEST])
        else:
            self.more_problems += 1

    def hash_files(self, cache: DigestsCache, largest: int | None, threads: int | None) -> None:
        for text in self.finder.problems:
            self.note(text)
        groups = self.finder.groups
        self.names = Names.of(groups)
        also = repr((SCHEME, largest, self.names.prefixes)).encode("utf-8", "surrogateescape")
        before = stamp(groups, also=also, check=self.check) if cache.is_open and groups else None
        known = cache.recall(before.digest) if before is not None else None
        if known is not None:
            files, self.size, self.files_digest, lines = known
            self.listing.fill(lines, files)
            self.seen = files
        else:
            troubles = len(self.problems)
            self._hash_files(cache, largest, threads)
            fine = before is not None and before.settled and len(self.problems) == troubles
            if before is not None and fine and self.listing.size <= _LARGEST_KEPT:
                # No file changed between the two stamps: what was read is what the stamp stands for.
                after = stamp(groups, also=also, check=self.check)
                if after is not None and after.digest == before.digest:
                    told = (self.listing.files, self.size, self.files_digest, b"".join(self.listing))
                    cache.keep(before.digest, *told)
        self.progress(self.seen, self.size, True)

    def _hash_files(self, cache: DigestsCache, largest: int | None, threads: int | None) -> None:
        sorter = Sorter()
        try:
            hashed: Hashed
            for hashed in hash_files(
                self._paths(), cache=cache, cancelled=self.cancelled, largest=largest, threads=threads
            ):
                self.seen += 1
                if hashed.sha256 is not None:
                    sorter.add(Entry(hashed.name, hashed.size, hashed.sha256))
                    self.size += hashed.size
                if hashed.problem is not None:
                    self.problem(hashed.path, hashed.problem)
                self.progress(self.seen, self.size, False)
            self._write(sorter)
        finally:
            sorter.close()

    def _paths(self) -> Iterator[tuple[str, bytes]]:
        # Lists that draw the same file again and again are common; a million names are as many as are worth
        # the memory.
        known: set[str] = set()
        alone = len(self.finder.groups) == 1 and self.finder.groups[0].folder is not None
        for group in self.finder.groups:
            for path in group.paths(self.problem):
                if path not in known:
                    if not alone and len(known) < _REMEMBERED:
                        known.add(path)
                    yield path, self.names(path)

    def _write(self, sorter: Sorter) -> None:
        digest = hashlib.sha256()
        self.size = 0
        last: Entry | None = None
        for entry in sorter:
            if last is not None and entry.path == last.path:
                self.note(f"{show_name(entry.path)}: two contents under one name; it changed meanwhile")
                continue
            digest.update(frame(entry.path) + u64(entry.size) + bytes.fromhex(entry.sha256))
            self.listing.add(entry)
            self.size += entry.size
            last = entry
        self.files_digest = digest.digest()

    def hash_parts(self) -> None:
        for part in self.finder.parts:
            self.check()
            try:
                digest = part.early or part.make(self.names, self.check)
            except Cancelled:
                raise
            except Exception as error:
                what = str(error) if isinstance(error, Untellable) else f"{type(error).__name__}: {error}"
                self.note(f"{part.place or 'source'}: {part.kind} without a digest: {what}")
                self.unknown += 1
            else:
                self.parts.append((part, digest))
                self.content += part.content
                self.size += part.size if part.content else 0

    def result(self, declared: bool) -> Computed:
        files = self.listing.files
        found = bool(files or self.content)
        if self.more_problems:
            self.problems.append(f"and {self.more_problems} more")
        fingerprint = Fingerprint(
            digest=self._digest() if found else None,
            coverage=self._coverage(declared, found),
            files=files,
            bytes=self.size if found else 0,
            how="; ".join(self.finder.how)[:500],
            scheme=SCHEME,
            listing=self.listing.sha256 if files else None,
            problems=tuple(self.problems),
        )
        if files:
            return Computed(fingerprint, self.listing)
        self.listing.close()
        return Computed(fingerprint, None)

    def _coverage(self, declared: bool, found: bool) -> Coverage:
        if not found:
            return "opaque" if self.finder.opaque or self.finder.urls or self.unknown else "none"
        if self.problems:
            return "partial"
        only_told = all(part.kind == "told" for part, _ in self.parts if part.content)
        if declared or (only_told and not self.listing.files):
            return "declared"
        return "files" if self.listing.files else "arrays"

    def _digest(self) -> str:
        digest = hashlib.sha256(f"{SCHEME}\n".encode())
        digest.update(u64(self.listing.files) + self.files_digest + u64(len(self.parts)))
        for part, made in self.parts:
            place = part.place.encode("utf-8", "surrogatepass")
            digest.update(frame(place) + frame(part.kind.encode()) + made)
        return digest.hexdigest()
