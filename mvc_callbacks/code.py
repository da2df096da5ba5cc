"""The code of a run: the git commit and a patch of what was not committed, or the source of a class."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from mvc_callbacks.class_source import file_of, tell_source
from mvc_callbacks.masking import looks_secret, without_credentials, words
from mvc_callbacks.patches import CODE, new_file, sections
from mvc_callbacks.repository import GitFailed, Repository

__all__ = ["Captured", "capture"]

PATCH_LIMIT = 1_000_000
"""Most bytes of a patch."""
_FILE_LIMIT = 100_000
_MOST_FILES = 200
_MOST_NAMES = 200
# Bytes of git's own patch that are looked at, and the largest changed file that git is asked about.
_DIFF_LIMIT = 16_000_000
_SKIPPED = words(
    ".ipynb_checkpoints .mypy_cache .pytest_cache .ruff_cache .tox .venv __pycache__ checkpoints "
    "lightning_logs mlruns multirun node_modules venv wandb"
)
_SECRET_FILES = words(".env .netrc .npmrc .pypirc id_dsa id_ecdsa id_ed25519 id_rsa")
_SECRET_ENDINGS = words(".asc .gpg .jks .kdbx .key .keystore .p12 .pem .pfx")
_PROGRAMS = words(".c .cc .cpp .cu .go .h .hpp .ipynb .jl .js .md .py .pyi .pyx .r .rs .scala .sh .sql .ts")


@dataclass(frozen=True, slots=True)
class Captured:
    """What is known of the code.

    Attributes:
        facts: Plain JSON values. ``how`` is ``git``, ``source`` or ``none``; the last comes with ``why``.
        patch: What `git apply` makes of the commit what ran; None where there is nothing to apply.
    """

    facts: dict[str, Any]
    patch: bytes | None = None


@dataclass(slots=True)
class _Patch:
    """A patch that grows up to its limit, with what had to be left out."""

    parts: list[bytes] = field(default_factory=list)
    size: int = 0
    notes: list[str] = field(default_factory=list)
    files: set[str] = field(default_factory=set)

    def add(self, part: bytes) -> bool:
        if self.size + len(part) > PATCH_LIMIT:
            return False
        self.parts.append(part)
        self.size += len(part)
        return True

    def leave_out(self, path: str, why: str) -> None:
        if len(self.notes) < _MOST_NAMES:
            self.notes.append(_text(f"{path}: left out, {why}"))
        elif len(self.notes) == _MOST_NAMES:
            self.notes.append("and more that was left out")


def capture(
    *,
    cwd: str | os.PathLike[str] | None = None,
    module_class: Any = None,
    exclude: Sequence[str | os.PathLike[str]] = (),
    seconds: float = 10.0,
) -> Captured:
    """Find out which code runs; nothing is raised.

    The repository is that of ``cwd``, or without it the first that is found around the class's file, the
    script that was started, and the working directory. Where git does not tell the class's source (a
    notebook, an ignored file, no repository), the source itself is in the facts.

    Args:
        cwd: A folder in the repository to ask.
        module_class: The class of the model that is trained.
        exclude: Folders that are no code, such as the store.
        seconds: How long all of git may take.

    Returns:
        With ``how: git``: ``commit``, ``branch``, ``dirty``, ``remote`` (credentials masked), ``root``,
        ``found_by``, ``changed`` and ``untracked`` (paths, capped), ``patch_bytes``, ``patch_notes`` (what
        the patch lacks, and why), and ``source`` where git does not have it. With ``how: source``:
        ``source``, and ``why`` not git. With ``how: none``: ``why``.
    """
    try:
        return _capture(cwd, module_class, exclude, seconds)
    except (
        Exception
    ) as error:  # whatever it is, training goes on, and the record says that the code is not known
        return Captured({"how": "none", "why": _text(f"{type(error).__name__}: {error}"[:500])})


def _capture(cwd: Any, module_class: Any, exclude: Sequence[Any], seconds: float) -> Captured:
    why = "no folder to look in"
    for found_by, folder in _folders(cwd, module_class):
        try:
            repository = Repository(folder, seconds=seconds)
            return _from_git(repository, found_by, module_class, exclude)
        except GitFailed as error:
            why = _text(without_credentials(str(error)))
    if module_class is None:
        return Captured({"how": "none", "why": why})
    source = tell_source(module_class)
    return Captured({"how": "source" if "text" in source else "none", "why": why, "source": source})


def _folders(cwd: Any, module_class: Any) -> Iterator[tuple[str, Path]]:
    if cwd is not None:
        yield "cwd", Path(cwd)
        return
    file = file_of(module_class) if module_class is not None else None
    if file is not None:
        yield "class", file.parent
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    if script and Path(script).is_file() and "site-packages" not in Path(script).parts:
        yield "script", Path(script).resolve().parent
    yield "working directory", Path.cwd()


def _from_git(repository: Repository, found_by: str, module_class: Any, exclude: Sequence[Any]) -> Captured:
    status = repository.status()
    outside = tuple(_inside(repository.root, exclude))
    changed = [path for path in status.changed if not _is_below(path, outside)]
    patch = _Patch()
    _add_changes(patch, repository, status.commit, status.changed, changed)
    untracked = _add_untracked(patch, repository, outside)
    remote = repository.remote()
    facts: dict[str, Any] = {
        "how": "git",
        "found_by": found_by,
        "root": _text(str(repository.root)),
        "commit": status.commit,
        "branch": _text(status.branch) if status.branch else None,
        "dirty": bool(changed or untracked),
        "remote": _text(without_credentials(remote)) if remote else None,
        "changed": [_text(path) for path in changed[:_MOST_NAMES]],
        "untracked": [_text(path) for path in untracked[:_MOST_NAMES]],
        "patch_bytes": patch.size,
    }
    if patch.notes:
        facts["patch_notes"] = patch.notes
    if module_class is not None and not _is_kept(repository, patch, module_class):
        facts["source"] = tell_source(module_class)
    return Captured(facts, b"".join(patch.parts) or None)


def _add_changes(
    patch: _Patch,
    repository: Repository,
    commit: str | None,
    all_changed: Sequence[str],
    changed: Sequence[str],
) -> None:
    """Add what git's own patch says of tracked files, as far as there is room."""
    if not changed:
        return
    wanted = set(changed)
    for path in changed:
        why = "its name tells of secrets" if _is_secret(path) else _too_large(repository.root / path)
        if why:
            patch.leave_out(path, why)
            wanted.discard(path)
    if not wanted:
        return
    try:
        leave_out = [path for path in all_changed if path not in wanted]
        text, cut = repository.diff(against=commit, leave_out=leave_out, limit=_DIFF_LIMIT)
    except GitFailed as error:
        patch.leave_out("changes of tracked files", str(error))
        return
    parts = list(sections(text))
    if cut:
        patch.leave_out("further changes of tracked files", f"git's patch has more than {_DIFF_LIMIT} bytes")
        parts = parts[:-1]
    for part in parts:
        if not patch.add(part):
            name = part.split(b"\n", 1)[0].removeprefix(b"diff --git ").decode("utf-8", "replace")
            patch.leave_out(name, f"its patch has {len(part)} bytes, and {PATCH_LIMIT} are kept in all")
    patch.files |= wanted


def _too_large(path: Path) -> str:
    try:
        size = path.lstat().st_size
    except OSError:  # a removed file; git will say so
        return ""
    return f"it has {size} bytes" if size > _DIFF_LIMIT else ""


def _add_untracked(patch: _Patch, repository: Repository, outside: Sequence[str]) -> list[str]:
    """Add small text files that git does not track, code first; return the names of all of them."""
    try:
        names = repository.untracked()
    except GitFailed as error:
        patch.leave_out("untracked files", str(error))
        return []
    stores = [str(PurePosixPath(name).parent) for name in names if PurePosixPath(name).name == "format.json"]
    outputs = [*outside, *(each for each in stores if (repository.root / each / "objects").is_dir())]
    found = [
        name for name in names if not _is_below(name, outputs) and _SKIPPED.isdisjoint(name.split("/")[:-1])
    ]
    found.sort(key=lambda name: (PurePosixPath(name).suffix.lower() not in CODE, name))
    left = _MOST_FILES
    for name in found:
        if name.endswith("/"):
            patch.leave_out(name, "it is a repository of its own")
        elif _is_secret(name):
            patch.leave_out(name, "its name tells of secrets")
        elif not left:
            patch.leave_out(name, f"{_MOST_FILES} untracked files are kept at most")
        else:
            part = new_file(repository.root, name, largest=_FILE_LIMIT)
            if isinstance(part, str):
                patch.leave_out(name, part)
            elif patch.add(part):
                left -= 1
                patch.files.add(name)
            else:
                patch.leave_out(name, f"{PATCH_LIMIT} bytes are kept in all")
    return found


def _is_secret(path: str) -> bool:
    name = PurePosixPath(path)
    if name.suffix.lower() in _PROGRAMS:  # "secrets.py" is a module about secrets, "secrets.yaml" holds them
        return False
    known = name.name.lower() in _SECRET_FILES or name.name.lower().startswith(".env.")
    return known or name.suffix.lower() in _SECRET_ENDINGS or looks_secret(name.stem)


def _inside(root: Path, folders: Sequence[Any]) -> Iterator[str]:
    real = Path(os.path.realpath(root))
    for folder in folders:
        try:
            relative = Path(os.path.realpath(folder)).relative_to(real)
        except ValueError:
            continue
        if relative.parts:
            yield relative.as_posix()


def _is_below(path: str, folders: Sequence[str]) -> bool:
    return any(path == folder or path.startswith(f"{folder}/") for folder in folders)


def _is_kept(repository: Repository, patch: _Patch, module_class: Any) -> bool:
    """Tell whether the class's file is in the commit or in the patch."""
    file = file_of(module_class)
    if file is None:
        return False
    try:
        path = file.relative_to(Path(os.path.realpath(repository.root))).as_posix()
        return path in patch.files or repository.tracks(path)
    except (ValueError, GitFailed):
        return False


def _text(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
