"""Promises of the examples: each one runs, and shows what it says that it shows."""

from __future__ import annotations

import base64
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from transcript import stable

EXAMPLES = Path(__file__).parent.parent / "examples"
README = EXAMPLES.parent / "README.md"
Demo = tuple[Path, str, float]

pytestmark = [pytest.mark.lightning, pytest.mark.slow]
for _needed in ("lightning", "sklearn", "PIL"):
    pytest.importorskip(_needed)


def run(*arguments: str | Path, cwd: Path, **variables: str) -> str:
    """Run a Python program as a user would, and return what it printed."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(cwd / "cache"), **variables}
    environment.pop("MVC_STORE", None)
    environment.pop("COV_CORE_SOURCE", None)
    told = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert told.returncode == 0, told.stdout + told.stderr
    assert told.stderr == "", "an example is the first thing that people see: " + told.stderr
    return told.stdout


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """Run the demo once: where it worked, what it printed, how long it took."""
    folder = tmp_path_factory.mktemp("demo")
    began = time.monotonic()
    # A copy: in a repository that is being worked on, the code may differ between the demo's two trainings.
    script = shutil.copy(EXAMPLES / "lightning_digits.py", folder)
    output = run(script, "--dir", folder / "here", cwd=folder)
    return folder / "here", output, time.monotonic() - began


def test_the_demo_shows_which_file_changed(demo: Demo) -> None:
    _, output, _ = demo
    assert "train: changed" in output
    assert "~ 8/0008.png" in output
    assert "val: the same" in output


def test_the_demo_measures_in_a_new_process_what_the_record_says(demo: Demo) -> None:
    _, output, _ = demo
    recorded, measured = re.findall(r"(?:recorded|measured)  val_acc = (\S+)", output)
    assert recorded == measured
    assert "The same, to the last bit." in output


def test_the_demo_promotes_and_rolls_back(demo: Demo) -> None:
    folder, _, _ = demo
    from mvc_callbacks import VersionStore

    store = VersionStore(folder / "model_versions")
    moves = [(move.how, store.get(str(move.id)).run) for move in store.alias_log("production")]
    assert moves == [("promote", "baseline"), ("promote", "corrected"), ("rollback", "baseline")]
    assert store.aliases() == {"production": store.get("baseline/best").id}


def test_the_demo_leaves_a_whole_store_with_the_evaluation_of_the_restored_version(demo: Demo) -> None:
    folder, _, _ = demo
    from mvc_callbacks import VersionStore

    store = VersionStore(folder / "model_versions")
    assert store.verify(full=True).ok
    [evaluation] = store.get("baseline/best").evaluations
    assert evaluation.kind == "validate"
    assert evaluation.metrics["val_acc"] == store.get("baseline/best").metrics["val_acc"]
    assert evaluation.data["val"].digest == store.get("corrected/1").data["val"].digest


def test_the_demo_leaves_nothing_but_images_and_the_store(demo: Demo) -> None:
    folder, _, _ = demo
    assert sorted(path.name for path in folder.iterdir()) == ["digits", "model_versions"]


def test_the_demo_takes_less_than_a_minute(demo: Demo) -> None:
    assert demo[2] < 60 or (os.cpu_count() or 1) < 2 or os.getloadavg()[0] > 2


def test_the_transcript_in_the_readme_is_what_the_demo_prints(demo: Demo) -> None:
    text = README.read_text("utf-8").partition("<!-- transcript -->")[2]
    transcript = text.partition("```text\n")[2].partition("\n```")[0]
    assert stable(transcript) == stable(demo[1])


def executed(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Run a notebook on the demo's store, and return its outputs."""
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("MVC_STORE", str(folder / "model_versions"))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    monkeypatch.setenv("PYTHONWARNINGS", "ignore:IProgress not found")  # widgets are for people
    notebook = nbformat.read(EXAMPLES / name, as_version=4)
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(EXAMPLES)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert [each for each in outputs if each.output_type == "error" or each.get("name") == "stderr"] == []
    return outputs


def test_the_notebook_explores_what_the_demo_saved(demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("pandas")
    outputs = executed("explore.ipynb", demo[0], monkeypatch)
    shown = [output.data for output in outputs if "data" in output]
    store, versions, plot, lineage, page, difference, table = shown
    assert "production" in store["text/html"] and "corrected" in store["text/plain"]
    assert "baseline/6" in versions["text/html"] and "corrected/1" in versions["text/plain"]
    assert len(base64.b64decode(plot["image/png"])) > 10_000
    assert lineage["text/html"].count("<circle") >= 11
    assert "hyperparameters" in page["text/html"] and "baseline/6" in page["text/plain"]
    assert "8/0008.png" in difference["text/html"] and "mvc-bar" in difference["text/html"]
    assert "metrics.val_acc" in table["text/html"]
    assert "rollback" in outputs[-1].text


def test_the_notebook_restores_what_the_demo_saved(demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = executed("restore.ipynb", demo[0], monkeypatch)
    printed = "".join(output.text for output in outputs if output.output_type == "stream")
    pairs = re.findall(r"recorded (\S+), measured (\S+)", printed)
    assert len(pairs) == 2
    for recorded, measured in pairs:
        assert recorded == measured


def test_notebooks_are_kept_without_outputs() -> None:
    nbformat = pytest.importorskip("nbformat")
    for path in EXAMPLES.glob("*.ipynb"):
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        for cell in notebook.cells:
            assert not cell.get("outputs") and not cell.get("execution_count"), path.name


def test_a_plain_loop_measures_what_it_recorded(tmp_path: Path) -> None:
    output = run(EXAMPLES / "plain_loop.py", "--dir", tmp_path / "here", cwd=tmp_path)
    recorded, measured = re.search(r"recorded (\S+), measured (\S+)", output).groups()  # type: ignore[union-attr]
    assert recorded == measured
    assert output.count("plain/") >= 6


def test_every_example_is_in_their_readme_and_in_these_tests() -> None:
    readme = (EXAMPLES / "README.md").read_text("utf-8")
    tests = "".join(each.read_text("utf-8") for each in Path(__file__).parent.rglob("test_*.py"))
    for path in EXAMPLES.iterdir():
        if path.suffix in (".py", ".ipynb"):
            assert f"]({path.name})" in readme
            assert path.name in tests
