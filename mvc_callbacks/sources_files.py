"""Files that a source names: folders walked, globs and braces expanded, links and other places told apart."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

__all__ = ["FileGroup", "Names", "absolute", "expand", "expand_braces", "is_url", "scan", "text_of", "walk"]

Tell = Callable[[str, str], None]  # path, problem

_URL = re.compile(r"(?!file:)[A-Za-z][A-Za-z0-9+.-]+://|pipe:|hf://")
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_MOST = 1_000_000  # shards that braces may stand for
_DEEPEST = 100
_CLUTTER = {".DS_Store", "Thumbs.db", "desktop.ini"}
_NOT_DATA = {"__pycache__", ".git", ".ipynb_checkpoints", "node_modules", "lightning_logs", "mlruns", "wandb"}
_ENVIRONMENT = "pyvenv.cfg"
_STORE = {"format.json", "objects", "versions"}
_TELLING = {_ENVIRONMENT, *_STORE}


@dataclass(frozen=True, slots=True)
class FileGroup:
    """Files that were found together.

    Attributes:
        paths: Gives their absolute paths, anew each time that it is called; a folder is walked then.
        root: The folder that names are told from; None for the deepest one that holds them all.
        likely: Folders to tell names from, where one holds them all.
        folder: The folder, where the group is everything in one.
    """

    paths: Callable[[Tell], Iterable[str]]
    root: str | None = None
    likely: tuple[str, ...] = ()
    folder: str | None = None


def text_of(path: Any) -> str:
    """Return a path as text, whatever kind of path it is; bytes that are not UTF-8 become surrogates."""
    return os.fsdecode(path)


def absolute(path: str, base: str) -> str:
    """Return an absolute path without dots in it; links are left as they are.

    Args:
        path: Absolute, or relative to ``base``.
        base: Absolute.
    """
    if path.startswith("file:"):
        path = path[7:] if path.startswith("file://") else path[5:]
    if path.startswith("~"):
        path = os.path.expanduser(path)  # noqa: PTH111 - text in, text out; Path would lose nothing but time
    if path.startswith("/") and "/." not in path and "//" not in path and path[-1] != "/":
        return path  # a million paths that need nothing
    return os.path.normpath(os.path.join(base, path))  # noqa: PTH118


def is_url(path: str) -> bool:
    """Tell whether a path is a place that is not in the file system."""
    return _URL.match(path) is not None


def expand_braces(text: str) -> list[str]:
    """Expand ``{000..003}`` and ``{a,b}`` as shells and webdataset do.

    Raises:
        ValueError: If there would be more than a million.
    """
    done: list[str] = []
    left = [text]
    while left:
        each = left.pop()
        match = _BRACES.search(each)
        if match is None:
            done.append(each)
            continue
        options = _options(match[1])
        if len(done) + len(left) + len(options) > _MOST:
            raise ValueError(f"{text!r} stands for more than {_MOST} files")
        left.extend(each[: match.start()] + option + each[match.end() :] for option in reversed(options))
    return done


def _options(text: str) -> list[str]:
    span = _RANGE.fullmatch(text)
    if span is None:
        return text.split(",")
    first, last = int(span[1]), int(span[2])
    if abs(last - first) >= _MOST:
        raise ValueError(f"{{{text}}} stands for more than {_MOST} files")
    width = max(len(span[1]), len(span[2])) if span[1].startswith("0") else 0
    numbers = range(first, last + 1) if first <= last else range(first, last - 1, -1)
    return [str(number).zfill(width) for number in numbers]


def expand(text: str, base: str, tell: Tell) -> FileGroup:
    """Find the files that one path, glob or brace pattern of this machine stands for.

    Args:
        text: As the user gave it.
        base: The folder that relative paths are relative to.
        tell: Is told what is not there.

    Raises:
        ValueError: If a pattern stands for more than a million files.
    """
    path = absolute(text, base)
    if os.path.isdir(path):  # noqa: PTH112
        return FileGroup(lambda tell: walk(path, tell), path, folder=path)
    if os.path.lexists(path):
        return FileGroup(lambda _: (path,), os.path.dirname(path))  # noqa: PTH120
    if "{" in text and len(names := expand_braces(text)) > 1:
        shards = [absolute(name, base) for name in names]
        return FileGroup(lambda _: shards)
    if glob.has_magic(text):
        return FileGroup(lambda tell: _glob(path, tell), _fixed_part(path))
    tell(path, "missing")
    return FileGroup(lambda _: (), os.path.dirname(path))  # noqa: PTH120


def _fixed_part(pattern: str) -> str:
    while glob.has_magic(pattern):
        pattern = os.path.dirname(pattern)  # noqa: PTH120
    return pattern


def _glob(pattern: str, tell: Tell) -> Iterator[str]:
    any_found = False
    for path in glob.iglob(pattern, recursive=True):  # noqa: PTH207 - hidden files are not taken, as in a shell
        any_found = True
        if not os.path.isdir(path):  # noqa: PTH112
            yield path
        elif "**" not in pattern:  # there, what is in the folder matches by itself
            yield from walk(path.rstrip(os.sep), tell)
    if not any_found:
        tell(pattern, "no file matches")


def walk(folder: str, tell: Tell) -> Iterator[str]:
    """Yield the paths of the files that `scan` finds."""
    for here, entries in scan(folder, tell):
        start = _with_end(here)
        for entry in entries:
            yield start + entry.name


def scan(
    folder: str, tell: Tell, _above: tuple[tuple[int, int], ...] = ()
) -> Iterator[tuple[str, list[os.DirEntry[str]]]]:
    """Yield a folder and those below it, each with its files by name.

    Links are followed, except into a folder that they are in. Left out is what changes while one trains and
    is no data: clutter of operating systems, ``.git``, ``__pycache__``, virtual environments, logs of
    Lightning, MLflow and W&B, and stores of versions.

    Args:
        folder: Absolute path.
        tell: Is told of what cannot be walked.
    """
    files: list[os.DirEntry[str]] = []
    folders: list[str] = []
    names: set[str] = set()
    try:
        here = os.stat(folder)  # noqa: PTH116
        with os.scandir(folder) as found:
            for entry in found:
                name = entry.name
                if name in _TELLING:
                    names.add(name)
                if _is_folder(entry):
                    folders.append(name)
                elif name not in _CLUTTER and not name.startswith("._"):
                    files.append(entry)
    except OSError as error:
        tell(folder, f"unreadable ({error.strerror})")
        return
    key = (here.st_dev, here.st_ino)
    if key in _above:
        tell(folder, "a link to a folder that it is in; not followed again")
        return
    if len(_above) > _DEEPEST:
        tell(folder, f"more than {_DEEPEST} folders deep; not followed")
        return
    if names >= _STORE or _ENVIRONMENT in names:
        return
    files.sort(key=attrgetter("name"))
    yield folder, files
    del files, names  # a generator that waits below should not hold them
    for name in sorted(folders):
        if name not in _NOT_DATA:
            yield from scan(_with_end(folder) + name, tell, (*_above, key))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself; looking at the file will tell
        return False


@dataclass(slots=True)
class Names:
    """The names under which files are told, the same wherever their folders lie.

    Each file is named from the outermost root that holds it. When there are several roots, their own names
    come first.

    Attributes:
        prefixes: Root, with its separator, and what the names of its files begin with; no root holds another.
    """

    prefixes: list[tuple[str, bytes]] = field(default_factory=list)

    @classmethod
    def of(cls, groups: Sequence[FileGroup]) -> Names:
        """Choose the roots of some groups."""
        roots = []
        for group in groups:
            root = group.root if group.root is not None else _root_of(group)
            if root is not None and root not in roots:
                roots.append(root)
        outermost = [
            root for root in roots if not any(other != root and _holds(other, root) for other in roots)
        ]
        if len(outermost) == 1:
            return cls([(_with_end(outermost[0]), b"")])
        used: dict[str, int] = {}
        prefixes = []
        for root in outermost:
            name = os.path.basename(root)  # noqa: PTH119
            used[name] = used.get(name, 0) + 1
            label = name if used[name] == 1 else f"{name}~{used[name]}"
            prefixes.append((_with_end(root), _encoded(label) + b"/"))
        return cls(prefixes)

    def __call__(self, path: str) -> bytes:
        """Return the name of a file."""
        for root, prefix in self.prefixes:
            if path.startswith(root):
                return prefix + _encoded(path[len(root) :])
            if path == root[: -len(os.sep)]:
                return prefix or b"."
        return _encoded(path)  # only a list that was changed meanwhile has a file in no root


def _root_of(group: FileGroup) -> str | None:
    common = common_folder(group.paths(_ignore))
    if common is None:
        return None
    return next((each for each in group.likely if each == common or _holds(each, common)), common)


def common_folder(paths: Iterable[str]) -> str | None:
    """Return the deepest folder that holds all paths; None when there are none."""
    first: str | None = None
    last = ""
    for path in paths:  # the first and the last in order have in common what all have
        if first is None or path < first:
            first = path
        last = max(last, path)
    if first is None:
        return None
    folder = os.path.dirname(first)  # noqa: PTH120
    while not _holds(folder, last):
        above = os.path.dirname(folder)  # noqa: PTH120
        if above == folder:
            break  # another drive
        folder = above
    return folder


def _holds(folder: str, path: str) -> bool:
    return path.startswith(_with_end(folder))


def _with_end(folder: str) -> str:
    return folder if folder.endswith(os.sep) else folder + os.sep


def _encoded(path: str) -> bytes:
    data = os.fsencode(path)
    return data if os.sep == "/" else data.replace(os.fsencode(os.sep), b"/")


def _ignore(path: str, problem: str) -> None:
    """Leave it to the pass that hashes."""
