"""A git repository, asked through the `git` command without changing anything in it."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

__all__ = ["GitFailed", "Repository", "Status"]

_PATHS_LIMIT = 4_000_000
_COMMAND = (
    "git",
    "--no-pager",
    # A file system monitor and hooks are programs that the repository's configuration names.
    "-c",
    "core.fsmonitor=false",
    "-c",
    f"core.hooksPath={os.devnull}",
    "-c",
    "core.pager=cat",
    "-c",
    "diff.external=",
    "-c",
    "color.ui=false",
)
# Every option undoes a setting that would make a patch for eyes, or one that `git apply` refuses.
_DIFF = (
    "--binary --full-index --no-color --no-ext-diff --no-textconv --no-renames --no-relative --unified=3 "
    "--submodule=short --ignore-submodules=dirty --src-prefix=a/ --dst-prefix=b/"
)
_NOT_INHERITED = ("GIT_EXTERNAL_DIFF", "GIT_DIFF_OPTS", "GIT_PAGER")

# Nobody forks while git is being started. A DataLoader's worker that was forked just then would hold the ends
# of the pipes to git, and whoever reads from them would wait for that worker to end, while training waits for
# the first save.
_starting = threading.RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_starting.acquire, after_in_parent=_starting.release, after_in_child=_starting.release
    )


class GitFailed(Exception):
    """Git is not there, refused, or took too long; the message says which."""


@dataclass(frozen=True, slots=True)
class Status:
    """What git says of a working tree.

    Attributes:
        commit: Full id of the commit; None before the first one.
        branch: Its name; None when no branch is checked out.
        changed: Tracked files that differ from the commit, relative to the root.
    """

    commit: str | None
    branch: str | None
    changed: tuple[str, ...]


class Repository:
    """The repository around a folder.

    Args:
        folder: Any folder in it.
        seconds: All questions together may take so long.

    Raises:
        GitFailed: If there is none, or no git.
    """

    def __init__(self, folder: Path, *, seconds: float = 10.0) -> None:
        self._end = time.monotonic() + seconds
        self.root = folder
        root = self._ask("rev-parse", "--show-toplevel").decode("utf-8", "surrogateescape")
        self.root = Path(root.rstrip("\n"))

    def status(self) -> Status:
        """Tell the commit, the branch and the tracked files that changed."""
        options = (
            "--porcelain=v2",
            "--branch",
            "-z",
            "--untracked-files=no",
            "--no-renames",
            "--no-ahead-behind",
        )
        commit: str | None = None
        branch: str | None = None
        changed = []
        for item in _split(self._ask("status", *options, "--ignore-submodules=dirty")):
            kind, _, rest = item.partition(" ")
            if kind == "#":
                name, _, value = rest.partition(" ")
                if name == "branch.oid" and value != "(initial)":
                    commit = value
                if name == "branch.head" and value != "(detached)":
                    branch = value
            else:  # a changed file has 7 fields before its path, one in a conflict ("u") has 9
                changed.append(rest.split(" ", 7 if kind == "1" else 9)[-1])
        return Status(commit, branch, tuple(changed))

    def untracked(self) -> tuple[str, ...]:
        """Return the files that are neither tracked nor ignored, relative to the root."""
        return tuple(_split(self._ask("ls-files", "--others", "--exclude-standard", "-z")))

    def tracks(self, path: str) -> bool:
        """Tell whether a file is tracked."""
        return bool(self._ask("ls-files", "-z", "--", f":(top,literal){path}"))

    def remote(self) -> str | None:
        """Return the URL of ``origin``, or of the first remote; it may hold credentials."""
        try:
            remotes = self._ask("config", "-z", "--get-regexp", r"^remote\..*\.url$")
        except GitFailed:  # exit status 1: there is none
            return None
        urls = dict(each.split("\n", 1) for each in _split(remotes) if "\n" in each)
        return urls.get("remote.origin.url") or next(iter(urls.values()), None)

    def diff(self, *, against: str | None, leave_out: Sequence[str], limit: int) -> tuple[bytes, bool]:
        """Return the patch from a commit to the working tree, and whether it was cut.

        Args:
            against: The commit; None compares with the empty tree.
            leave_out: Files to leave out, relative to the root.
            limit: Most bytes to read of it.
        """
        base = against or self._ask("hash-object", "-t", "tree", os.devnull).decode("ascii").strip()
        left_out = [f":(top,exclude,literal){path}" for path in leave_out]
        return self._run("diff", *_DIFF.split(), base, "--", ":/", *left_out, limit=limit)

    def _ask(self, *arguments: str) -> bytes:
        answer, cut = self._run(*arguments, limit=_PATHS_LIMIT)
        return answer[: answer.rfind(b"\0") + 1] if cut else answer

    def _run(self, *arguments: str, limit: int) -> tuple[bytes, bool]:
        left = self._end - time.monotonic()
        if left <= 0:
            raise GitFailed(f"git {arguments[0]}: no time was left for it")
        with tempfile.TemporaryFile() as errors:
            process = self._start(arguments, errors)
            late = threading.Event()
            timer = threading.Timer(left, _kill_late, (process, late))
            timer.daemon = True
            timer.start()
            answer = b""
            try:
                assert process.stdout is not None
                with process.stdout:
                    answer = process.stdout.read(limit + 1)
                    if len(answer) > limit:
                        _kill(process)
            finally:
                status = process.wait()
                timer.cancel()
            if len(answer) > limit:
                return answer[:limit], True
            if late.is_set():
                raise GitFailed(f"git {arguments[0]} took longer than {left:.1f} seconds")
            if status != 0:
                errors.seek(0)
                text = errors.read(300).decode("utf-8", "replace").strip()
                raise GitFailed(f"git {arguments[0]}: {text or f'exit status {status}'}")
            return answer, False

    def _start(self, arguments: Sequence[str], errors: IO[bytes]) -> subprocess.Popen[bytes]:
        try:
            with _starting:
                return subprocess.Popen(
                    [*_COMMAND, *arguments],
                    cwd=self.root,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    env=_environment(),
                    start_new_session=True,  # Ctrl-C is for training; what git starts can be ended with it
                )
        except (OSError, ValueError) as error:
            raise GitFailed(f"git could not be run: {error}") from error


def _environment() -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in _NOT_INHERITED and not name.startswith("GIT_TRACE")
    }
    return {**kept, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}


def _kill_late(process: subprocess.Popen[bytes], late: threading.Event) -> None:
    late.set()
    _kill(process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.returncode is not None:
        return
    try:
        if hasattr(os, "killpg"):
            os.killpg(
                process.pid, signal.SIGKILL
            )  # its session: a filter that git started would hold the pipe open
        else:
            process.kill()
    except (ProcessLookupError, PermissionError):
        pass  # it had just ended


def _split(answer: bytes) -> list[str]:
    return [each.decode("utf-8", "surrogateescape") for each in answer.split(b"\0") if each]
