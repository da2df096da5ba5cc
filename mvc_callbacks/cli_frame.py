"""The frame of the command line: options that all commands share, output, and how errors end a command."""

from __future__ import annotations

import errno
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from mvc_callbacks.errors import AliasMoved, MVCError, MVCWarning
from mvc_callbacks.progress import PATIENCE
from mvc_callbacks.render import Paint, clean, finite

if TYPE_CHECKING:
    from mvc_callbacks.store import VersionStore
    from mvc_callbacks.store_reader import StoreReader

__all__ = ["Frame", "Session", "json_option", "store_option"]

FAILED = 2
MOVED = 3  # the alias is not where --expect says: pipelines tell it from what failed
INTERRUPTED = 130
BROKEN_PIPE = 141  # what a shell sees of a program that SIGPIPE ended
_F = TypeVar("_F", bound=Callable[..., Any])
_S = TypeVar("_S", bound="StoreReader")


class Session:
    """What one call of ``mvc`` works with.

    Attributes:
        path: The store as given by ``--store``; None for the default one.
        as_json: Whether JSON was asked for.
    """

    def __init__(self) -> None:
        self.path: str | None = None
        self.as_json = False

    @property
    def store(self) -> VersionStore:
        """The store; nothing is read yet."""
        from mvc_callbacks.store import VersionStore  # `mvc --help` needs no store

        return self._shown(VersionStore(self.path))

    @property
    def reader(self) -> StoreReader:
        """The store for a command that only asks: what writes is not loaded for it."""
        from mvc_callbacks.store_reader import StoreReader

        return self._shown(StoreReader(self.path))

    @staticmethod
    def _shown(store: _S) -> _S:
        store.show_on_terminal()
        return store

    @property
    def paint(self) -> Paint:
        """Colours for a terminal that wants them (https://no-color.org)."""
        return Paint(_is_terminal() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb")

    @property
    def width(self) -> int | None:
        """Columns of the terminal; None where there is none."""
        if not _is_terminal():
            return None
        import shutil

        return shutil.get_terminal_size().columns

    def say(self, lines: Iterable[str]) -> None:
        """Write lines of clean text."""
        for line in lines:
            click.echo(_writable(line))

    def page(self, lines: Sequence[str], *, pager: bool = True) -> None:
        """Write lines, through ``$PAGER`` where the terminal has fewer; never where it is piped."""
        if not pager or not _is_terminal() or not sys.stdin.isatty():
            return self.say(lines)
        import shutil

        if len(lines) < shutil.get_terminal_size().lines:
            return self.say(lines)
        os.environ.setdefault("LESS", "FRX")  # as git does: colours pass, and it ends where all fits
        return click.echo_via_pager("\n".join(map(_writable, lines)) + "\n")

    def tell(self, value: Any) -> None:
        """Write JSON; NaN and Inf, for which it has no numbers, as the texts nan, inf and -inf."""
        click.echo(json.dumps(finite(value), indent=2, allow_nan=False))

    @contextmanager
    def progress(self, what: str) -> Iterator[Callable[[int, int], None] | None]:
        """Give a function that shows progress on a terminal after a second; None where there is none."""
        if sys.stderr is None or not sys.stderr.isatty():
            yield None
            return
        began, shown = time.monotonic(), -1

        def show(done: int, of: int) -> None:
            nonlocal shown
            percent = 100 * done // max(of, 1)
            if percent != shown and time.monotonic() - began > PATIENCE:
                shown = percent
                click.echo(f"\r{what} [{'#' * (percent // 4):25}] {percent:3d} %", nl=False, err=True)

        try:
            yield show
        finally:
            if shown >= 0:
                click.echo("\r" + " " * (len(what) + 34) + "\r", nl=False, err=True)

    def note(self, text: str) -> None:
        """Write a line beside the output."""
        click.echo(f"mvc: {text}", err=True)


_PLAIN_LINES = str.maketrans("●│├─╯╮┼█▌…", "*||-/\\+##~")


def _writable(line: str) -> str:
    """Draw with plain letters where the output has no lines and dots."""
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    return line if line.isascii() or encoding.lower().startswith("utf") else line.translate(_PLAIN_LINES)


def _is_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()


def _session(context: click.Context) -> Session:
    root = context.find_root()
    if not isinstance(root.obj, Session):
        root.obj = Session()
    context.obj = root.obj
    session: Session = root.obj
    return session


def _take_store(context: click.Context, _: click.Parameter, value: str | None) -> None:
    session = _session(context)  # made here, whether the option is given or not
    if value is not None:
        session.path = value


def _take_json(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        _session(context).as_json = True


def store_option(function: _F) -> _F:
    """Add ``--store``, which may stand before the command or after it."""
    return click.option(
        "--store",
        metavar="PATH",
        expose_value=False,
        callback=_take_store,
        help="The store's folder; else $MVC_STORE, else ./model_versions.",
    )(function)


def json_option(function: _F) -> _F:
    """Add ``--json``."""
    return click.option(
        "--json", is_flag=True, expose_value=False, callback=_take_json, help="Tell it as JSON (docs/cli.md)."
    )(function)


class _ReaderGone(Exception):
    """Nobody reads standard output any more."""


class Frame(click.Group):
    """A group of commands, whose errors are one or two lines and an exit status."""

    further: Callable[[], Iterable[click.Command]] | None = None
    """Loads the commands that are not needed to run one of the others."""

    def _load(self) -> None:
        further, self.further = self.further, None
        for command in further() if further is not None else ():
            self.add_command(command)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command; other rooms are loaded only if it is not in this one."""
        if cmd_name not in self.commands:
            self._load()
        return super().get_command(ctx, cmd_name)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List the commands in the order in which they are of use, not of the alphabet."""
        self._load()
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; click would end with 1 where the reader of the output went away."""
        try:
            return super().invoke(ctx)
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise _ReaderGone from error
            raise

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> NoReturn:
        """Run a command and exit.

        Raises:
            SystemExit: 0; 1 where ``verify`` found damage; 2 for errors; 3 where an alias was not where
                it was expected; 130 after Ctrl-C.
        """
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(
                    errors="backslashreplace"
                )  # a terminal may not have a letter of a file's name
        status = FAILED
        with warnings.catch_warnings():
            warnings.simplefilter("always", MVCWarning)
            warnings.showwarning = _warning_shower(warnings.showwarning)
            try:
                told = super().main(args, prog_name or "mvc", complete_var, standalone_mode=False, **extra)
                status = told if isinstance(told, int) else 0
                sys.stdout.flush()
            except (click.Abort, KeyboardInterrupt):
                status = INTERRUPTED
            except click.ClickException as error:
                _complain(_usage(error))
            except (_ReaderGone, BrokenPipeError):
                status = BROKEN_PIPE
            except Exception as error:
                if os.environ.get("MVC_DEBUG"):
                    raise
                _complain(_explain(error))
                status = MOVED if isinstance(error, AliasMoved) else FAILED
            _abandon_broken_output()
        sys.exit(status)


def _usage(error: click.ClickException) -> list[str]:
    context = getattr(error, "ctx", None)
    where = context.command_path if context is not None else "mvc"
    return [error.format_message(), f"try `{where} --help`"]


def _explain(error: Exception) -> list[str]:
    if isinstance(error, MVCError):
        return str(error).splitlines()[:2] or [type(error).__name__]
    if isinstance(error, OSError):
        what = error.strerror or str(error) or type(error).__name__
        return [f"{what}: {os.fsdecode(error.filename)}" if error.filename else what]
    return [
        f"unexpected {type(error).__name__}: {error}"[:400],
        "this is a fault of mvc: please report it, with what MVC_DEBUG=1 prints when you run it again",
    ]


def _complain(lines: Sequence[str]) -> None:
    try:
        first, *others = [clean(line) for line in lines]
        click.echo(f"mvc: error: {first}", err=True)
        for line in others:
            click.echo(f"mvc: {line}", err=True)
    except OSError:
        pass  # nobody reads standard error; the exit status says it


def _warning_shower(others: Callable[..., None]) -> Callable[..., None]:
    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if issubclass(category, MVCWarning):
            click.echo(f"mvc: warning: {clean(message)}", err=True)
        else:
            others(message, category, *where, **more)

    return show


def _abandon_broken_output() -> None:
    """Let the interpreter's last flush write into nothing where standard output is broken."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        try:
            target = sys.stdout.fileno()
        except (OSError, ValueError):
            return
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, target)
        os.close(nothing)
