"""The commands of ``mvc`` that write files out of a store, and take them into it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mvc_callbacks.cli_frame import Session, json_option, store_option
from mvc_callbacks.render import clean, count, size

if TYPE_CHECKING:
    from mvc_callbacks.store import VersionStore
    from mvc_callbacks.tensors import Tensor
    from mvc_callbacks.versions import Version

__all__ = ["export", "identify", "import_", "report"]


@click.command(epilog="Example: mvc export production model.safetensors")
@click.argument("ref")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "form",
    type=click.Choice(["safetensors", "huggingface", "lightning"]),
    help="Else lightning for FILE.ckpt, and safetensors.",
)
@click.option("-f", "--force", is_flag=True, help="Overwrite FILE.")
@json_option
@store_option
@click.pass_obj
def export(session: Session, ref: str, file: Path, form: str | None, force: bool) -> None:
    """Write a version's weights into a stock safetensors FILE, or for others.

    huggingface: FILE is a folder with model.safetensors and a card that tells where they come from.
    lightning: a .ckpt that stock Lightning opens; needs torch.
    """
    from mvc_callbacks.errors import Misconfigured
    from mvc_callbacks.export import check_target, write_huggingface, write_safetensors

    store = session.store
    version = store.get(ref)
    form = form or ("lightning" if file.suffix == ".ckpt" else "safetensors")
    inside = file if form == "huggingface" else check_target(file, overwrite=force)
    if store.path.resolve() in [inside.resolve(), *inside.resolve().parents]:
        raise Misconfigured(f"{file} is inside the store {store.path}: give a file elsewhere")
    if form == "lightning":
        from mvc_callbacks.errors import MissingFramework

        try:
            from mvc_callbacks.torch_files import write_checkpoint
        except ImportError as error:
            raise MissingFramework(
                f"a Lightning checkpoint needs {error.name or 'torch'}: pip install torch"
            ) from error
        written = write_checkpoint(store, version.id, file, overwrite=force)
        if not version.has_training_state:
            session.note("without a training state: load_from_checkpoint takes it, fit cannot go on from it")
        _say_written(session, file, form, version, written, "Lightning checkpoint")
        return
    with session.progress("reading") as progress:
        tensors = store.tensors(version, progress=progress)
    if form == "huggingface":
        written = write_huggingface(tensors, file, card(store, version), overwrite=force)
    else:
        written = write_safetensors(tensors, file, overwrite=force)
    _say_written(session, file, form, version, written, count(len(tensors), "tensor"))
    left_out = version.details.record["weights"].get("extra") or {}
    if left_out:
        session.note(f"left out, as they are no tensors: {clean(', '.join(left_out), 200)}")


def _say_written(session: Session, file: Path, form: str, version: Version, written: int, what: str) -> None:
    from mvc_callbacks.cli_reports import named

    if session.as_json:
        place = {"id": version.id, "run": version.run, "number": version.number}
        session.tell({"file": str(file.absolute()), "format": form, "bytes": written, **place})
    else:
        session.say([f"{clean(file)}: {what}, {size(written)}, from {named(version)}"])


def card(store: VersionStore, version: Version) -> str:
    """Tell a version as a model card."""
    from mvc_callbacks.render_card import card_text
    from mvc_callbacks.viewing import page_of

    return card_text(page_of(store, version.id))


@click.command("import", epilog="Example: mvc import lightning_logs/version_0/checkpoints/*.ckpt --run old")
@click.argument("given", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
@click.option("--run", metavar="LABEL", default="imported", show_default=True, help="The new run's label.")
@json_option
@store_option
@click.pass_obj
def import_(session: Session, given: tuple[Path, ...], run: str) -> None:
    """Take .ckpt, .pt and .safetensors files in as the versions of a new run.

    Nothing is unpickled: a file that needs that is refused, and then none is taken in. Needs torch.
    """
    from mvc_callbacks.cli_reports import named
    from mvc_callbacks.errors import MissingFramework

    try:
        from mvc_callbacks.torch_files import import_file
    except ImportError as error:
        raise MissingFramework(f"importing needs {error.name or 'torch'}: pip install torch") from error
    with session.progress("importing") as progress:
        versions = import_file(session.store, list(given), run=run, progress=progress)
    if session.as_json:
        session.tell([each.to_dict() for each in versions])
        return
    for path, version in zip(given, versions, strict=True):
        session.say([f"{clean(path.name)} -> {named(version)}"])


@click.command(epilog="Example: mvc identify model.safetensors")
@click.argument("file", type=click.Path(path_type=Path))
@json_option
@store_option
@click.pass_obj
def identify(session: Session, file: Path) -> None:
    """Say which version a FILE's weights are, or which come nearest; .ckpt and .pt need torch."""
    from mvc_callbacks.cli_reports import identified
    from mvc_callbacks.weight_files import identify as find

    store = session.store
    tensors = _tensors(file)
    with session.progress("comparing") as progress:
        found = find(store, tensors, progress=progress)
    if session.as_json:
        session.tell(found.to_dict())
    else:
        session.say(identified(found))


def _tensors(file: Path) -> dict[str, Tensor]:
    if file.suffix.lower() == ".safetensors":
        from mvc_callbacks.weight_files import read_safetensors

        return read_safetensors(file)[0]
    from mvc_callbacks.errors import MissingFramework

    try:
        from mvc_callbacks.torch_files import tensors_of
    except ImportError as error:
        raise MissingFramework(f"{file.name} needs {error.name or 'torch'}: pip install torch") from error
    return tensors_of(file)


@click.command(epilog="Example: mvc report -o report.html --run baseline")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("report.html"),
    show_default=True,
    metavar="FILE",
    help="The page; a report that is there is replaced.",
)
@click.option("--run", "runs", multiple=True, metavar="LABEL", help="Only this run; may be given again.")
@click.option("-f", "--force", is_flag=True, help="Replace FILE also if it is no report.")
@json_option
@store_option
@click.pass_obj
def report(session: Session, output: Path, runs: tuple[str, ...], force: bool) -> None:
    """Write one HTML page of everything: table, curves, lineage, comparisons.

    It needs no network, and no server: open it in a browser, keep it, send it. Two versions chosen in it are
    compared: metrics, hyperparameters, data, code, environment, tensors.
    """
    store = session.store
    with session.progress("reading") as progress:
        written = store.report(output, runs=runs, overwrite=force, progress=progress)
    told = written.stat().st_size
    if session.as_json:
        session.tell({"file": str(written.absolute()), "bytes": told})
    else:
        session.say([f"{clean(output)}: {size(told)}; open it in a browser"])
