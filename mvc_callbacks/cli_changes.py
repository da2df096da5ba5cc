"""The commands of ``mvc`` that change a store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import click

from mvc_callbacks.cli_frame import Session, json_option, store_option
from mvc_callbacks.render import clean

if TYPE_CHECKING:
    from mvc_callbacks.store import VersionStore
    from mvc_callbacks.versions import Version

__all__ = ["delete", "note", "promote", "prune", "rebuild", "remove_alias", "rollback"]

_expect = click.option(
    "--expect", metavar="REF", help="Only if it points there now; - if it must be new. Else exit with 3."
)


@click.command(epilog='Example: mvc promote best production -m "wins on the holdout"')
@click.argument("ref")
@click.argument("name")
@click.option("-m", "--why", default="", metavar="TEXT", help="Why; kept in the alias's log.")
@_expect
@json_option
@store_option
@click.pass_obj
def promote(session: Session, ref: str, name: str, why: str, expect: str | None) -> None:
    """Point the alias NAME to a version."""
    store = session.store
    before = store.aliases().get(name)
    _say_moved(session, store, name, before, store.promote(ref, name, why=why, expect=expect))


@click.command(epilog='Example: mvc rollback production -m "it was slower"')
@click.argument("name")
@click.option("-m", "--why", default="", metavar="TEXT", help="Why; kept in the alias's log.")
@_expect
@json_option
@store_option
@click.pass_obj
def rollback(session: Session, name: str, why: str, expect: str | None) -> None:
    """Point the alias NAME back to where it was before."""
    store = session.store
    before = store.aliases().get(name)
    _say_moved(session, store, name, before, store.rollback(name, why=why, expect=expect))


@click.command("remove-alias", epilog='Example: mvc remove-alias staging -m "nobody serves it"')
@click.argument("name")
@click.option("-m", "--why", default="", metavar="TEXT", help="Why; kept in the alias's log.")
@click.option("--expect", metavar="REF", help="Only if it points there now. Else exit with 3.")
@json_option
@store_option
@click.pass_obj
def remove_alias(session: Session, name: str, why: str, expect: str | None) -> None:
    """Remove the alias NAME; the version that it points to stays."""
    from mvc_callbacks.cli_reports import unnamed
    from mvc_callbacks.viewing import versions_of

    store = session.store
    move = store.remove_alias(name, why=why, expect=expect)
    known = versions_of(store, [move.previous] if move.previous else [])
    if session.as_json:
        version = known.get(str(move.previous))
        place = {"run": version.run if version else None, "number": version.number if version else None}
        session.tell({"name": name, "id": None, **place, "previous": move.previous})
    else:
        session.say(unnamed(move, known))


@click.command(epilog='Example: mvc note best "trained before the labels were repaired"')
@click.argument("ref")
@click.argument("text")
@json_option
@store_option
@click.pass_obj
def note(session: Session, ref: str, text: str) -> None:
    """Write a note about a version; mvc log --grep finds it."""
    from mvc_callbacks.cli_reports import named

    version = session.store.note(ref, text)
    if session.as_json:
        session.tell(version.to_dict())
    else:
        session.say([f"{named(version)}: {clean(version.notes[-1].text, 400)}"])


@click.command(epilog="Example: mvc prune --keep-last 2 --keep-best 1 --older-than 30d --dry-run")
@click.argument("refs", nargs=-1, metavar="[REF]...")
@click.option("--keep-last", type=click.IntRange(min=0), metavar="N", help="Keep the newest N of each run.")
@click.option("--keep-best", type=click.IntRange(min=0), metavar="N", help="Keep the best N of each run.")
@click.option("--keep-every", type=click.IntRange(min=1), metavar="N", help="Keep RUN/N, RUN/2N, ...")
@click.option("--keep-alias", multiple=True, metavar="NAME", help="Keep what the alias NAME ever pointed to.")
@click.option("--older-than", metavar="TIME", help="Only what was made before: 2025-11-24, or 30d, 8w ago.")
@click.option("--run", metavar="LABEL", help="Only versions of this run.")
@click.option(
    "--what",
    type=click.Choice(["weights", "state"]),
    default="weights",
    show_default=True,
    help="weights, and the state with them; or only the rest of the training state.",
)
@click.option("-m", "--why", metavar="TEXT", help="Why; kept with the versions.")
@click.option("--dry-run", is_flag=True, help="Tell only what would go.")
@json_option
@store_option
@click.pass_obj
def prune(
    session: Session,
    refs: tuple[str, ...],
    keep_last: int | None,
    keep_best: int | None,
    keep_every: int | None,
    keep_alias: tuple[str, ...],
    older_than: str | None,
    run: str | None,
    what: Literal["weights", "state"],
    why: str | None,
    dry_run: bool,
) -> None:
    """Free the disk of weights or training states, without asking.

    Prunes the REFs, or what no --keep rule keeps. The records stay: a pruned version still tells what it was.
    A version that an alias points to is never pruned.
    """
    numbers = (keep_last, keep_best, keep_every)
    rules = bool(keep_alias or older_than) or any(each is not None for each in numbers)
    if refs and (rules or run is not None):
        raise click.UsageError("give REFs, or rules (--keep-..., --older-than, --run), not both")
    if not refs and not rules:
        raise click.UsageError(
            "say what to prune: REFs, --keep-last N, --keep-best N, --keep-every N, --keep-alias NAME or "
            "--older-than 30d; --dry-run shows what would go"
        )
    from mvc_callbacks.cli_reports import removed
    from mvc_callbacks.viewing import versions_of

    store = session.store
    with session.progress("reading what versions need") as progress:
        report = store.prune(
            *refs,
            keep_last=keep_last,
            keep_best=keep_best,
            keep_every=keep_every,
            keep_alias=keep_alias or None,
            older_than=older_than,
            run=run,
            what=what,
            dry_run=dry_run,
            policy=why,
            progress=progress,
        )
    if session.as_json:
        session.tell(report.to_dict())
    else:
        known = versions_of(store, [*report.versions, *(identity for identity, _ in report.kept)])
        session.say(removed(report, "would prune" if dry_run else "pruned", f"the {what} of ", known))


@click.command(epilog="Example: mvc delete --run experiment-7")
@click.option("--run", required=True, metavar="LABEL", help="The run.")
@json_option
@store_option
@click.pass_obj
def delete(session: Session, run: str) -> None:
    """Delete a run with the records of its versions, without asking."""
    from mvc_callbacks.cli_reports import removed

    with session.progress("reading what versions need") as progress:
        report = session.store.delete_run(run, progress=progress)
    if session.as_json:
        session.tell(report.to_dict())
    else:
        session.say(removed(report, f"deleted the run {clean(run)} with", "", {}))


@click.command(epilog="Example: mvc rebuild")
@json_option
@store_option
@click.pass_obj
def rebuild(session: Session) -> None:
    """Make the history and the aliases again, from the records."""
    from mvc_callbacks.cli_reports import rebuilt

    store = session.store
    _ = store.identity  # raises where there is no store; rebuilding would make an empty one
    with session.progress("rebuilding") as progress:
        report = store.rebuild(progress=progress)
    if session.as_json:
        session.tell(report.to_dict())
    else:
        session.say(rebuilt(report))


def _say_moved(
    session: Session, store: VersionStore, name: str, before: str | None, version: Version
) -> None:
    from mvc_callbacks.cli_reports import moved
    from mvc_callbacks.viewing import versions_of

    if session.as_json:
        place = {"run": version.run, "number": version.number}
        session.tell({"name": name, "id": version.id, **place, "previous": before})
        return
    session.say(moved(name, before, version.id, versions_of(store, filter(None, [before, version.id]))))
