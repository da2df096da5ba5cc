"""Promises of weights on their way out of a store and in: files of Lightning, torch and Hugging Face."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mvc_callbacks import VersionStore, restore_version
from mvc_callbacks.cli import mvc

torch = pytest.importorskip("torch")
L = pytest.importorskip("lightning")

MODEL = """
import lightning as L, torch
from torch.utils.data import DataLoader, TensorDataset

class MyModel(L.LightningModule):
    def __init__(self, width=8, act="relu"):
        super().__init__()
        self.save_hyperparameters()
        self.layer = torch.nn.Linear(4, width)
        self.small = torch.nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
    def training_step(self, batch, index):
        return self.layer(batch[0]).square().mean() + self.small.float().sum()
    def validation_step(self, batch, index):
        self.log("val_loss", self.layer(batch[0]).square().mean())
    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 0.1)

def data():
    generator = torch.Generator().manual_seed(1)
    return DataLoader(TensorDataset(torch.randn(16, 4, generator=generator)), batch_size=4)

def trainer(epochs, *callbacks):
    return L.Trainer(max_epochs=epochs, callbacks=list(callbacks), logger=False, accelerator="cpu",
                     devices=1, enable_progress_bar=False, enable_model_summary=False,
                     enable_checkpointing=bool(callbacks))
"""
NAMES: dict[str, Any] = {}
exec(MODEL, NAMES)
MyModel, data, trainer = NAMES["MyModel"], NAMES["data"], NAMES["trainer"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[VersionStore, Path]:
    """Train twice two epochs from one seed: into a store, and with stock ModelCheckpoint into files."""
    from lightning.pytorch.callbacks import ModelCheckpoint

    from mvc_callbacks.lightning import VersionCheckpoint

    folder = tmp_path_factory.mktemp("trained")
    for callback in (
        VersionCheckpoint(store=folder / "store", monitor="val_loss", run="small"),
        ModelCheckpoint(folder / "stock", monitor="val_loss", save_top_k=-1, filename="{epoch}"),
    ):
        torch.manual_seed(1)
        trainer(2, callback).fit(MyModel(width=5), data(), data())
    return VersionStore(folder / "store"), folder / "stock"


def call(store: VersionStore, *arguments: str | Path, code: int = 0) -> Result:
    result = CliRunner().invoke(mvc, [*map(str, arguments), "--store", str(store.path)])
    assert result.exit_code == code, result.output
    return result


def test_an_exported_ckpt_is_loaded_and_resumed_where_the_package_does_not_exist(
    trained: tuple[VersionStore, Path], tmp_path: Path
) -> None:
    store, _ = trained
    target = tmp_path / "model.ckpt"
    assert "Lightning checkpoint" in call(store, "export", "small/2", target).stdout
    stranger = f"""
import sys
sys.modules["mvc_callbacks"] = None
{MODEL}
model = MyModel.load_from_checkpoint({str(target)!r})
assert model.hparams.width == 5 and model.layer.weight.shape == (5, 4)
torch.save(model.state_dict(), {str(tmp_path / "state.pt")!r})
torch.load({str(target)!r}, weights_only=True)
fit = trainer(4)
fit.fit(MyModel(width=5), data(), data(), ckpt_path={str(target)!r})
assert (fit.current_epoch, fit.global_step) == (4, 16)
"""
    ended = subprocess.run([sys.executable, "-c", stranger], capture_output=True, text=True, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    loaded, saved = torch.load(tmp_path / "state.pt"), store.state_dict("small/2")
    assert all(torch.equal(loaded[name], saved[name]) for name in saved) and len(loaded) == len(saved)


def test_without_its_training_state_it_can_still_be_loaded(
    trained: tuple[VersionStore, Path], tmp_path: Path
) -> None:
    import shutil

    store = VersionStore(shutil.copytree(trained[0].path, tmp_path / "store"))
    store.prune("small/1", what="state")
    result = call(store, "export", "small/1", tmp_path / "m.ckpt")
    assert "fit cannot go on" in result.stderr
    assert MyModel.load_from_checkpoint(tmp_path / "m.ckpt").hparams.width == 5
    assert "already" in call(store, "export", "small/1", tmp_path / "m.ckpt", code=2).stderr


def test_files_of_stock_lightning_become_versions_bit_for_bit(
    trained: tuple[VersionStore, Path], tmp_path: Path
) -> None:
    _, stock = trained
    store = VersionStore(tmp_path / "store")
    files = sorted(stock.glob("*.ckpt"))
    assert len(files) == 2
    assert "epoch=1.ckpt -> old/2" in call(store, "import", *files, "--run", "old").stdout
    for file, version in zip(files, store.versions(), strict=True):
        there = torch.load(file, weights_only=True)
        model = restore_version(version.id, MyModel, store=store.path)
        assert all(torch.equal(each, there["state_dict"][name]) for name, each in model.state_dict().items())
        assert (version.framework, version.epoch, version.step) == (
            "lightning",
            there["epoch"],
            there["global_step"],
        )
        assert version.hyperparameters["width"] == 5
        assert version.monitor is not None and list(version.metrics) == ["val_loss"]
        assert version.details.record["imported"]["file"] == file.name
    best = min(store.versions(), key=lambda each: each.metrics["val_loss"])
    assert store.get("best").id == best.id
    fit = trainer(3)
    fit.fit(MyModel(width=5), data(), ckpt_path=f"mvc://{store.path}@old/2")
    assert fit.current_epoch == 3
    assert store.verify(full=True).ok


def test_what_needs_unpickling_is_refused_by_name_and_nothing_is_taken_in(
    trained: tuple[VersionStore, Path], tmp_path: Path
) -> None:
    store = VersionStore(tmp_path / "store")
    good = next(trained[1].glob("*.ckpt"))
    for number, evil in enumerate(
        [
            {"state_dict": {"w": torch.ones(2)}, "path": Path("x")},
            {"state_dict": {"w": torch.ones(2)}, "call": Evil()},
        ]
    ):
        torch.save(evil, tmp_path / f"{number}.ckpt")
        said = call(store, "import", good, tmp_path / f"{number}.ckpt", code=2).stderr
        assert "is not opened: it needs" in said and "Nothing is unpickled" in said
    (tmp_path / "raw.pt").write_bytes(pickle.dumps(Evil()))
    (tmp_path / "noise.ckpt").write_bytes(b"noise")
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({"a": 1}, tmp_path / "plain.pt")
    (tmp_path / "bad.safetensors").write_bytes(b"\xff" * 100)
    for name in (
        "raw.pt",
        "noise.ckpt",
        "list.pt",
        "plain.pt",
        "bad.safetensors",
        "none.ckpt",
        "none.safetensors",
    ):
        assert len(call(store, "import", tmp_path / name, code=2).stderr.splitlines()) <= 2
    assert not store.exists() and not (tmp_path / "owned").exists()


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (eval, ("open('owned', 'w')",))


def test_safetensors_come_in_as_they_went_out(trained: tuple[VersionStore, Path], tmp_path: Path) -> None:
    store, _ = trained
    other = VersionStore(tmp_path / "store")
    call(store, "export", "small/2", tmp_path / "m.safetensors")
    call(other, "import", tmp_path / "m.safetensors")
    version = other.get("imported/1")
    assert version.weights.digest == store.get("small/2").weights.digest
    assert (version.framework, version.epoch, version.parents) == ("torch", None, ())
    call(other, "import", tmp_path / "m.safetensors")
    [parent] = other.get("imported-2").parents
    assert (parent.id, parent.how) == (version.id, "content")


def test_a_file_is_told_to_be_a_version_or_near_to_some(
    trained: tuple[VersionStore, Path], tmp_path: Path
) -> None:
    from safetensors.torch import save_file

    store, stock = trained
    for number, file in enumerate(sorted(stock.glob("*.ckpt")), 1):
        assert f"small/{number} (" in call(store, "identify", file).stdout
    state = store.state_dict("small/1")
    save_file({f"model.{name}": each for name, each in state.items()}, tmp_path / "prefixed.safetensors")
    found = json.loads(call(store, "identify", tmp_path / "prefixed.safetensors", "--json").stdout)
    assert [each["number"] for each in found["exact"]] == [1]
    save_file({**state, "layer.bias": state["layer.bias"] + 1}, tmp_path / "changed.safetensors")
    assert "small/1" in (said := call(store, "identify", tmp_path / "changed.safetensors").stdout)
    assert "2 of the file's 3 tensors" in said
    save_file({"other": torch.rand(7)}, tmp_path / "other.safetensors")
    assert "no version shares" in call(store, "identify", tmp_path / "other.safetensors").stdout


def test_a_hugging_face_folder_holds_weights_and_a_card_with_lineage(
    trained: tuple[VersionStore, Path], tmp_path: Path
) -> None:
    from safetensors import safe_open

    store, _ = trained
    store.note("small/2", "<script>alert(1)</script> | [x](y) `z`")
    call(store, "export", "small/2", tmp_path / "hub", "--format", "huggingface")
    with safe_open(tmp_path / "hub" / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
        assert set(file.keys()) == set(store.state_dict("small/2"))
    text = (tmp_path / "hub" / "README.md").read_text()
    assert text.startswith("---\nlibrary_name: pytorch\n")
    assert store.get("small/2").id in text and "small/1 | run, id" in text and "val" in text
    assert "<script" not in text and "[x](y)" not in text and "`z`" not in text
    assert (
        "already"
        in call(store, "export", "small/1", tmp_path / "hub", "--format", "huggingface", code=2).stderr
    )
    call(store, "export", "small/1", tmp_path / "hub", "--format", "huggingface", "--force")
    assert (
        "inside the store"
        in call(store, "export", "best", store.path, "--format", "huggingface", code=2).stderr
    )


def test_a_folder_of_hugging_face_is_loaded_by_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    model = transformers.BertModel(config)
    store = VersionStore(tmp_path / "store")
    store.commit(model.state_dict(), run="bert")
    call(store, "export", "latest", tmp_path / "hub", "--format", "huggingface")
    config.save_pretrained(tmp_path / "hub")
    loaded = transformers.BertModel.from_pretrained(tmp_path / "hub")
    assert all(torch.equal(each, model.state_dict()[name]) for name, each in loaded.state_dict().items())


def test_an_import_tells_how_far_it_is(tmp_path: Path) -> None:
    from mvc_callbacks.torch_files import import_file

    paths = [tmp_path / f"{place}.pt" for place in range(2)]
    for place, path in enumerate(paths):
        torch.save({"weight": torch.full((8,), float(place))}, path)
    told: list[tuple[int, int]] = []
    import_file(VersionStore(tmp_path / "store"), paths, progress=lambda *each: told.append(each))
    first, second = (path.stat().st_size for path in paths)
    assert told == [(first, first + second), (first + second, first + second)]
