"""Promises of the documents: their code runs, their tables are complete, their links lead somewhere."""

from __future__ import annotations

import ast
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mvc_callbacks.refs import parse_ref

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "mvc_callbacks"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*.md")])
NOT_RUN = "<!-- not run -->"
_BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)

# What a reader of the documents has anyway: a model, its data, a Trainer, and a store with a few versions.
PRELUDE = """
import logging, warnings
import lightning as L
import torch
from torch.utils.data import DataLoader, TensorDataset
from mvc_callbacks import VersionStore, restore_version
from mvc_callbacks.lightning import VersionCheckpoint

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", category=UserWarning, module="lightning")
_Trainer = L.Trainer
_quiet = {"accelerator": "cpu", "devices": 1, "logger": False}
_quiet |= {"enable_progress_bar": False, "enable_model_summary": False}
L.Trainer = lambda max_epochs=2, **options: _Trainer(max_epochs=min(max_epochs, 4), **options, **_quiet)

class MyModel(L.LightningModule):
    def __init__(self, width=8):
        super().__init__()
        self.save_hyperparameters()
        self.layer = torch.nn.Linear(4, width)
    def step(self, batch):
        return self.layer(batch[0]).square().mean()
    def training_step(self, batch, index):
        return self.step(batch)
    def validation_step(self, batch, index):
        self.log("val_loss", self.step(batch))
    def test_step(self, batch, index):
        self.log("test_loss", self.step(batch))
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)

class Data(L.LightningDataModule):
    def train_dataloader(self):
        return DataLoader(TensorDataset(torch.randn(16, 4)), batch_size=4)
    val_dataloader = test_dataloader = train_dataloader

torch.manual_seed(1)
model, datamodule = MyModel(), Data()
trainer = L.Trainer(max_epochs=2, callbacks=[VersionCheckpoint(monitor="val_loss", run="baseline")])
trainer.fit(model, datamodule)
"""

KERAS_PRELUDE = """
import keras
import numpy as np
from mvc_callbacks import VersionStore, restore_version

def build_model(units=64):
    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(units), keras.layers.Dense(1)])
    model.compile(optimizer="adam", loss="mse")
    return model

keras.utils.set_random_seed(1)
x, y = np.random.rand(64, 4).astype("float32"), np.random.rand(64, 1).astype("float32")
model = build_model()
"""


def blocks(document: Path) -> list[str]:
    """Return the Python blocks of a document that are to be run: all but those that say that they are not."""
    text = re.sub(f"{NOT_RUN}\n```python", "```text", document.read_text("utf-8"))
    return _BLOCK.findall(text)


def all_blocks(document: Path) -> list[str]:
    """Return all Python blocks of a document."""
    return _BLOCK.findall(document.read_text("utf-8"))


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.slow
@pytest.mark.lightning
@pytest.mark.parametrize("document", [each for each in DOCUMENTS if all_blocks(each)], ids=name)
def test_the_code_in_the_document_runs(document: Path, tmp_path: Path) -> None:
    pytest.importorskip("lightning")
    prelude = PRELUDE
    if "mvc_callbacks.keras" in "".join(blocks(document)):
        prelude = KERAS_PRELUDE
        pytest.importorskip("keras.callbacks")  # the folder of its tests would pass for a package
    parts = [f"# {name(document)}, block {number}\n{code}" for number, code in enumerate(blocks(document), 1)]
    script = tmp_path / "document.py"
    script.write_text(prelude + "\n\n".join(parts), "utf-8")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("MVC_STORE", None)
    told = subprocess.run(
        [sys.executable, script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert told.returncode == 0, told.stderr


@pytest.mark.parametrize("document", [each for each in DOCUMENTS if all_blocks(each)], ids=name)
def test_all_code_in_the_document_is_python(document: Path) -> None:
    for code in all_blocks(document):
        ast.parse(code)


def test_the_reader_of_stock_tools_reads_full_manifests_and_differences(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    from mvc_callbacks import VersionStore

    monkeypatch.chdir(tmp_path)
    store = VersionStore()
    frozen = {f"frozen.{number}": torch.full((3,), float(number)) for number in range(50)}
    for step in range(3):
        version = store.commit(
            {**frozen, "large": torch.zeros(1100000), "low": torch.ones(step + 1)}, run="baseline"
        )
    assert store._layout.manifests.read(version.weights.digest).base is not None
    [code] = all_blocks(ROOT / "docs/format.md")
    for run in ("baseline", "other"):
        store.commit({"weight": torch.arange(3), "bias": torch.ones(2, dtype=torch.bfloat16)}, run="other")
        names: dict[str, Any] = {}
        exec(code.replace("history/baseline", f"history/{run}"), names)
        saved = store.state_dict(run)
        assert names["weights"].keys() == saved.keys()
        assert all(torch.equal(names["weights"][each], saved[each]) for each in saved)


def test_the_help_in_the_readme_is_the_real_one() -> None:
    from click.testing import CliRunner

    from mvc_callbacks.cli import mvc

    real = CliRunner().invoke(mvc, ["--help"], terminal_width=100, prog_name="mvc").output
    told = (ROOT / "README.md").read_text("utf-8").partition("<!-- help -->")[2]
    told = told.partition("```text\n")[2].partition("\n```")[0].removeprefix("$ mvc --help\n")
    assert told.rstrip() == real.rstrip()


def test_the_readme_names_both_commands_on_its_first_screen() -> None:
    screen = "\n".join((ROOT / "README.md").read_text("utf-8").splitlines()[:40])
    assert "pip install nox && nox -s demo" in screen
    assert "pip install nox && nox -s tests" in screen
    assert "restore_version(" in screen


def test_the_sessions_that_the_readme_names_exist() -> None:
    sessions = set(re.findall(r"^def (\w+)\(session", (ROOT / "noxfile.py").read_text("utf-8"), re.MULTILINE))
    for document in DOCUMENTS:
        named = re.findall(r"nox -s ((?:[a-z]+ ?)+)", document.read_text("utf-8"))
        assert {each for names in named for each in names.split()} - sessions <= WORDS, document.name


# What may follow the name of a session in a sentence.
WORDS = {"and", "does", "in", "makes", "runs", "to", "trains"}


def test_every_ref_in_the_readme_is_one() -> None:
    table = (ROOT / "README.md").read_text("utf-8").partition("## Naming a version")[2].partition("##")[0]
    refs = re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)
    assert len(refs) >= 8
    for ref in refs:
        parse_ref(ref)


def anchors(document: Path) -> set[str]:
    """Return the anchors that GitHub gives to a document's headings."""
    heads = re.findall(r"^#+ (.+)$", document.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_every_link_inside_the_repository_leads_somewhere(document: Path) -> None:
    text = re.sub(r"^```.*?^```", "", document.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(\s*([^)\s]+)\s*\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), f"{link}: there is no such file"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{link}: there is no such heading"


@pytest.mark.parametrize("document", [*DOCUMENTS, *(ROOT / "examples").glob("*.[pi]*")], ids=name)
def test_no_document_names_a_folder_of_the_machine_that_it_was_written_on(document: Path) -> None:
    text = document.read_text("utf-8")
    assert not re.search(r"/root/|/Users/|site-packages", text)
    assert str(Path.home()) not in text
    assert str(ROOT) not in text
    assert sys.prefix not in text


def test_the_architecture_names_every_module() -> None:
    text = (ROOT / "docs/architecture.md").read_text("utf-8")
    modules = [path.stem for path in PACKAGE.glob("[a-z]*.py") if not path.stem.startswith("keras")]
    missing = [each for each in modules if f"`{each}`" not in text]  # Keras's are told of with its callback
    assert missing == []
    named = set(re.findall(r"`([a-z]+_[a-z_]+)`", text))
    assert named - {path.stem for path in PACKAGE.glob("*.py")} == set()


def test_the_format_names_every_tag_of_a_tree() -> None:
    text = (ROOT / "docs/format.md").read_text("utf-8")
    for path in PACKAGE.glob("tree*.py"):
        for tag in re.findall(r"\"(\$[a-z]+)\"", path.read_text("utf-8")):
            assert f"`{tag}`" in text or f'"{tag}"' in text, f"{tag} of {path.name}"


def test_the_format_names_every_field_that_a_store_holds(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    import json

    from mvc_callbacks import VersionStore

    store = VersionStore(tmp_path / "store")
    (tmp_path / "data.txt").write_text("data")
    for epoch in range(2):
        store.commit(
            {"weight": torch.full((3,), float(epoch)), "large": torch.zeros(1100000)},
            metrics={"val_loss": 1.0},
            monitor=("val_loss", "min"),
            data={"train": tmp_path / "data.txt"},
            run="baseline",
            epoch=epoch,
            training_state={"optimizer": {"step": torch.zeros(2)}},
        )
    store.promote("latest", "production")
    store.evaluate("latest", "test", {"test_loss": 1.0})
    store.prune("baseline/1", what="state")
    text = (ROOT / "docs/format.md").read_text("utf-8")
    known = set(re.findall(r"[`\"]([a-z_]+)[`\"]", text)) | {
        word for code in re.findall(r"`([^`\n]+)`", text) for word in re.findall(r"[a-z_]+", code)
    }
    for folder in ("versions", "runs", "events", "manifests"):
        for path in (store.path / folder).glob("*/*.json"):
            fields = json.loads(path.read_text())
            for part in (fields, fields.get("weights") or {}, fields.get("training_state") or {}):
                assert set(part) - known == set(), path.parent.parent.name
    for path in (*store.path.glob("history/*/*.json"), store.path / "aliases.json"):
        for table, rows in json.loads(path.read_text()).items():
            assert table in known
            for row in rows.values():
                assert set(row) - known == set(), f"{path.name}: {table}"


@pytest.mark.lightning
def test_the_table_of_arguments_is_complete_and_tells_the_true_defaults() -> None:
    pytest.importorskip("lightning")
    from mvc_callbacks.lightning import VersionCheckpoint

    text = (ROOT / "docs/lightning.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", text, re.MULTILINE))
    parameters = dict(inspect.signature(VersionCheckpoint).parameters)
    for argument, parameter in parameters.items():
        assert f"`{argument}`" in text, argument
        if argument in rows and parameter.default is not None:
            assert rows[argument].strip("` ") == repr(parameter.default).replace("'", '"'), argument
    assert set(rows) <= set(parameters)
