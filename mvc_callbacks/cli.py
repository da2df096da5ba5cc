"""The command ``mvc``: what is in a store, in the terminal."""

from __future__ import annotations

import gc
from collections.abc import Iterable
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import click

from mvc_callbacks import __version__
from mvc_callbacks.cli_frame import Frame, Session, json_option, store_option
from mvc_callbacks.render import clean, count

if TYPE_CHECKING:
    from mvc_callbacks.selecting import Selection

__all__ = ["main", "mvc"]

DAMAGED = 1
_SHOWN = 20


@click.group(cls=Frame, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="mvc %(version)s")
@store_option
@click.pass_context
def mvc(context: click.Context) -> None:
    """See, check and manage the versions of a model.

    REF names a version: an id or the beginning of one, latest, best, best:METRIC:max, RUN, RUN/3, RUN/best,
    or an alias; each may end in ~N for N parents up.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@mvc.command(epilog='Example: mvc log --where "lr<1e-3 and val_loss<0.5" --since 3d')
@click.argument("ref", required=False)
@click.option("--run", metavar="LABEL", help="Only this run.")
@click.option(
    "-n",
    "--number",
    metavar="N",
    type=click.IntRange(min=0),
    help="Most versions; 0 for all. Else 20, with --json all.",
)
@click.option(
    "--metric", "metrics", multiple=True, metavar="NAME", help="Show this metric; may be given again."
)
@click.option(
    "--since", metavar="TIME", help="Made since 2025-11-24, 2025-11-24T08:30 (UTC), or 6h, 3d, 2w ago."
)
@click.option("--where", metavar="CONDITION", help="Of metrics, hyperparameters, run, epoch, step, ...")
@click.option("--data-file", metavar="PATH", help="Whose data had this file: as recorded, or on disk.")
@click.option("--grep", metavar="TEXT", help="With this text in a note.")
@click.option("--graph/--no-graph", default=None, help="Draw the lineage; else where it branches.")
@click.option("--no-pager", is_flag=True, help="Write it all, however long.")
@json_option
@store_option
@click.pass_obj
def log(
    session: Session,
    ref: str | None,
    run: str | None,
    number: int | None,
    metrics: tuple[str, ...],
    since: str | None,
    where: str | None,
    data_file: str | None,
    grep: str | None,
    graph: bool | None,
    no_pager: bool,
) -> None:
    """List versions, newest first.

    With REF: this version and what it came from. A star marks the best by the monitored metric, "<- RUN/3" a
    version that began from another run's. WEIGHTS is their size, STORED what the version added to the store.
    """
    from mvc_callbacks.cli_history import log_of, told_log
    from mvc_callbacks.render_tables import log_lines

    if ref is not None and run is not None:
        raise click.UsageError("give REF or --run, not both")
    selection = _selection(where, since, data_file, grep)
    limit = (None if session.as_json else _SHOWN) if number is None else number or None
    store = session.reader
    found, older = log_of(store, ref, run, limit, metrics, selection, graph)
    if session.as_json:
        session.tell(told_log(found))
    elif not found.versions and selection:
        session.note(f"none of {count(len(store.versions()), 'version')} is so")
    elif not found.versions:
        session.note(f"the store {clean(store.path)} has no version yet")
    else:
        lines = log_lines(found, now=_now(), paint=session.paint, width=session.width)
        session.page(lines, pager=not no_pager)
        if older:
            session.note(f"{count(older, 'older version')}: -n 0 shows all")


@mvc.command(epilog="Example: mvc show best")
@click.argument("ref", default="latest")
@json_option
@store_option
@click.pass_obj
def show(session: Session, ref: str) -> None:
    """Show everything of one version; the latest if REF is not given."""
    from mvc_callbacks.cli_history import told_page
    from mvc_callbacks.render_version import version_lines
    from mvc_callbacks.viewing import page_of

    page = page_of(session.reader, ref)
    if session.as_json:
        session.tell(told_page(page))
    else:
        session.page(version_lines(page, now=_now(), paint=session.paint, width=session.width or 100))


@mvc.command(
    short_help="Tell what changed between two versions.", epilog="Example: mvc diff baseline/best latest"
)
@click.argument("a")
@click.argument("b")
@click.option(
    "--all", "everything", is_flag=True, help="Every file, tensor and package, not only the first few."
)
@click.option("--weights", is_flag=True, help="Read the weights: how much each layer changed. Needs numpy.")
@click.option("--patch", is_flag=True, help="Print what was not committed, where that differs.")
@json_option
@store_option
@click.pass_obj
def diff(session: Session, a: str, b: str, everything: bool, weights: bool, patch: bool) -> None:
    """Compare two versions: metrics, hyperparameters, data, code, environment, weights."""
    from mvc_callbacks.render_diff import MOST, difference_lines

    with session.progress("comparing") as progress:
        difference = session.reader.diff(a, b, weights=weights, progress=progress)
    if session.as_json:
        session.tell(difference.to_dict())
    else:
        lines = difference_lines(difference, paint=session.paint, most=None if everything else MOST)
        for side, text in zip("ab", difference.patches, strict=True) if patch else ():
            lines += ["", f"not committed in {side}", *(clean(line) for line in text.splitlines())]
        session.page(lines)


@mvc.command(epilog="Example: mvc runs")
@json_option
@store_option
@click.pass_obj
def runs(session: Session) -> None:
    """List the runs, oldest first, each with its best version.

    Runs that went on one from the other are one line, "baseline > baseline-2".
    """
    from mvc_callbacks.cli_history import told_runs
    from mvc_callbacks.render_lists import run_lines
    from mvc_callbacks.viewing import run_lines_of

    store = session.reader
    if session.as_json:
        session.tell(told_runs(store))
        return
    lines = run_lines_of(store)
    if not lines:
        session.note(f"the store {clean(store.path)} has no run with a version yet")
    else:
        session.page(run_lines(lines, now=_now(), paint=session.paint, width=session.width))


@mvc.command(epilog="Example: mvc aliases")
@json_option
@store_option
@click.pass_obj
def aliases(session: Session) -> None:
    """List the aliases, where they point, and why."""
    from mvc_callbacks.cli_history import told_aliases
    from mvc_callbacks.render_lists import alias_lines
    from mvc_callbacks.viewing import versions_of

    store = session.reader
    current = store.aliases()
    moves = {move.name: move for move in store.alias_log()}
    known = versions_of(store, current.values())
    if session.as_json:
        session.tell(told_aliases(current, moves, known))
    elif not current:
        session.note(f"the store {clean(store.path)} has no alias yet: mvc promote REF NAME makes one")
    else:
        paint, width = session.paint, session.width
        session.say(alias_lines(current, versions=known, moves=moves, now=_now(), paint=paint, width=width))


@mvc.command("alias-log", epilog="Example: mvc alias-log production")
@click.argument("name", required=False)
@json_option
@store_option
@click.pass_obj
def alias_log(session: Session, name: str | None) -> None:
    """Tell every move of the alias NAME, or of all: who, when, from, to, why."""
    from mvc_callbacks.errors import UnknownRef
    from mvc_callbacks.render_lists import move_lines
    from mvc_callbacks.viewing import versions_of

    store = session.reader
    moves = store.alias_log(name)[::-1]
    if name is not None and not moves:
        names = ", ".join(sorted({move.name for move in store.alias_log()})[:8]) or "none yet"
        raise UnknownRef(f"there is no alias {name!r:.80} in {store.path}; there are: {names}")
    if session.as_json:
        session.tell([move.to_dict() for move in moves])
    elif not moves:
        session.note(f"the store {clean(store.path)} has no alias yet: mvc promote REF NAME makes one")
    else:
        known = versions_of(store, {each for move in moves for each in (move.id, move.previous) if each})
        session.page(move_lines(moves, versions=known, paint=session.paint, width=session.width))


@mvc.command(epilog="Example: mvc verify --full")
@click.option("--full", is_flag=True, help="Read and hash every byte; what is damaged is moved aside.")
@json_option
@store_option
@click.pass_context
def verify(context: click.Context, full: bool) -> None:
    """Check that everything is there; exit with 1 if not."""
    from mvc_callbacks.cli_reports import verified
    from mvc_callbacks.viewing import versions_of

    session: Session = context.obj
    store = session.store
    with session.progress("verifying") as progress:
        report = store.verify(full=full, progress=progress)
    if session.as_json:
        session.tell(report.to_dict())
    else:
        hurt = dict.fromkeys(each for problem in report.problems for each in problem.versions)
        session.say(verified(report, versions_of(store, hurt)))
    context.exit(0 if report.ok else DAMAGED)


def _selection(
    where: str | None, since: str | None, data_file: str | None, grep: str | None
) -> Selection | None:
    if all(each is None for each in (where, since, data_file, grep)):
        return None
    from mvc_callbacks.selecting import Selection
    from mvc_callbacks.times import point_in_time

    return Selection(
        where=where, since=point_in_time(since, _now()) if since else None, data_file=data_file, grep=grep
    )


def _further() -> Iterable[click.Command]:
    from mvc_callbacks import cli_changes, cli_files

    yield from (cli_files.report, cli_files.export, cli_files.import_, cli_files.identify)
    yield from (cli_changes.promote, cli_changes.rollback, cli_changes.remove_alias, cli_changes.note)
    yield from (cli_changes.prune, cli_changes.delete, cli_changes.rebuild)


mvc.further = _further


def _now() -> datetime:
    return datetime.now(timezone.utc)


def main() -> None:
    """Run ``mvc`` with the arguments of the process."""
    # Most commands are over before there is anything to collect; looking for it is a tenth of their time.
    gc.set_threshold(100_000, 50, 50)
    try:
        mvc.main()
    finally:
        gc.freeze()  # else the interpreter goes through everything twice before it ends
