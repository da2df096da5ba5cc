"""Models that this project did not write, and training as people do it: made versions, and brought back."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from real_models import MODELS, Convolutional, Gpt2, Lora, Recurrent
from small_models import trainer_of

from mvc_callbacks import VersionStore, restore_version
from mvc_callbacks.lightning import VersionCheckpoint
from mvc_callbacks.tensors import weights_digest
from mvc_callbacks.torch_state import snapshot

RESTORE = """
import json, sys
from lightning_real_models import MODELS
from mvc_callbacks import restore_version
from mvc_callbacks.tensors import weights_digest
from mvc_callbacks.torch_state import snapshot

found = {}
for name, model_class in MODELS.items():
    model = restore_version(f"{name}/latest", model_class, store=sys.argv[1])
    assert not model.training
    tensors = snapshot({"state_dict": model.state_dict()}, copy=False).weights.tensors
    told = ((key, each.dtype, each.shape, each.digest()) for key, each in tensors.items())
    found[name] = weights_digest(told)
print(json.dumps(found))
"""


def digest_of(module: torch.nn.Module) -> str:
    weights = snapshot({"state_dict": module.state_dict()}, copy=False).weights
    return weights_digest(
        (name, each.dtype, each.shape, each.digest()) for name, each in weights.tensors.items()
    )


def test_every_model_comes_back_in_another_process_with_the_same_digest(
    store: VersionStore, tmp_path: Path
) -> None:
    expected = {}
    for name, model_class in MODELS.items():
        pl.seed_everything(5)
        model = model_class()
        trainer_of(VersionCheckpoint(store.path, run=name), max_epochs=2).fit(model)
        version = store.get(f"{name}/latest")
        assert version.weights.digest == digest_of(model)
        assert len(store.versions(name)) == 2
        expected[name] = version.weights.digest

    Path(tmp_path, "lightning_real_models.py").write_bytes(
        Path(__file__).with_name("real_models.py").read_bytes()
    )
    Path(tmp_path, "restore_all.py").write_text(RESTORE)
    command = [sys.executable, str(tmp_path / "restore_all.py"), str(store.path)]
    output = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert output.returncode == 0, output.stderr
    assert json.loads(output.stdout.splitlines()[-1]) == expected
    assert store.verify(full=True).ok


def test_bad_input_26_tied_embeddings_are_stored_once_and_tied_again(store: VersionStore) -> None:
    trainer_of(VersionCheckpoint(store.path), max_epochs=1).fit(Gpt2())
    version = store.get("latest")
    state_dict = store.state_dict(version)
    embeddings, head = state_dict["model.transformer.wte.weight"], state_dict["model.lm_head.weight"]
    assert embeddings.data_ptr() == head.data_ptr()
    restored = restore_version(version, Gpt2, store=store)
    assert restored.model.lm_head.weight is restored.model.transformer.wte.weight
    digests = {digest for _, _, digest in store.entries(version).values()}
    assert len(digests) < len(store.entries(version))


def test_a_frozen_base_is_stored_once_in_all_versions_and_runs(store: VersionStore) -> None:
    frozen_packs = []
    for _ in range(2):
        trainer_of(VersionCheckpoint(store.path, run="lora"), max_epochs=2).fit(Lora())
    manifests = [store._layout.manifests.read(each.weights.digest) for each in store.versions()]
    for manifest in manifests:
        frozen_packs.append({each.object for each in manifest.entries if "lora" not in each.name})
    assert len(manifests) == 4
    assert all(packs == frozen_packs[0] for packs in frozen_packs)
    # What the later versions add is the adapters, their optimizer state and its tree.
    first, *later = [each.weights.stored_bytes for each in store.versions()]
    assert max(later) < first / 2


def test_a_buffer_that_is_not_persistent_is_no_part_of_a_version(store: VersionStore) -> None:
    trainer_of(VersionCheckpoint(store.path), max_epochs=1).fit(Convolutional())
    names = set(store.state_dict("latest"))
    assert "scale" in names
    assert "scratch" not in names
    assert "body.1.num_batches_tracked" in names


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_bfloat16_training_comes_back_bit_for_bit(store: VersionStore, precision: str) -> None:
    model = Recurrent()
    trainer_of(VersionCheckpoint(store.path), max_epochs=1, precision=precision).fit(model)
    version = store.get("latest")
    dtypes = {dtype for dtype, _, _ in store.entries(version).values()}
    assert dtypes == ({"BF16"} if precision == "bf16-true" else {"F32"})
    fresh = Recurrent().to(torch.bfloat16 if precision == "bf16-true" else torch.float32)
    restore_version("latest", fresh, store=store)
    assert digest_of(fresh) == version.weights.digest


def test_gradient_accumulation_counts_optimizer_steps(store: VersionStore) -> None:
    trainer_of(VersionCheckpoint(store.path), max_epochs=2, accumulate_grad_batches=2).fit(Recurrent())
    assert [(each.epoch, each.step) for each in store.versions()] == [(0, 1), (1, 2)]


def test_averaged_weights_are_told_apart_from_raw_ones(store: VersionStore) -> None:
    averaging = pytest.importorskip("lightning.pytorch.callbacks.weight_averaging")
    model = Recurrent()
    ema = averaging.EMAWeightAveraging(decay=0.5)
    trainer = trainer_of(ema, VersionCheckpoint(store.path), max_epochs=2)
    trainer.fit(model)
    version = store.get("latest")
    assert version.weights.of == "average"
    # At the end of fit the callback puts its average into the module: the version's weights.
    assert digest_of(model) == version.weights.digest
    tree_names = set(store.training_state(version)[1])
    assert any("current_model_state" in name for name in tree_names)
    resumed = trainer_of(averaging.EMAWeightAveraging(decay=0.5), VersionCheckpoint(store.path), max_epochs=3)
    resumed.fit(Recurrent(), ckpt_path=f"mvc://{store.path}@latest")
    assert store.get("latest").epoch == 2


def test_a_compiled_submodule_restores_into_one_that_is_not(store: VersionStore) -> None:
    compiled = MODELS["Compiled"]()
    trainer_of(VersionCheckpoint(store.path), max_epochs=1).fit(compiled)
    plain: Any = restore_version("latest", MODELS["Compiled"], store=store, overrides={"compiled": False})
    assert torch.equal(plain.body.weight, compiled.body._orig_mod.weight)


class WithVocabulary(Recurrent):
    """What people put into a checkpoint beside the weights, and cannot load without."""

    vocabulary: Any = None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["vocabulary"] = {"the": 0, "a": 1, "size": (2, torch.tensor([1.5]))}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.vocabulary = checkpoint["vocabulary"]


def test_what_a_modules_own_hook_added_comes_back_also_after_the_training_state_went(
    store: VersionStore,
) -> None:
    trainer_of(VersionCheckpoint(store.path, keep_training_state=1), max_epochs=3).fit(WithVocabulary())
    first = store.versions()[0]
    assert not first.has_training_state
    expected = {"the": 0, "a": 1, "size": (2, torch.tensor([1.5]))}
    assert restore_version(first, WithVocabulary, store=store).vocabulary == expected
    loaded = WithVocabulary.load_from_checkpoint(f"mvc://{store.path}@{first.id}")
    assert loaded.vocabulary == expected
    # It is one object for all versions, and goes with the last weights that need it.
    additions = {each.weights.additions for each in store.versions()}
    assert len(additions) == 1
    store.prune(*[each.id for each in store.versions()])
    assert not list(store.path.rglob("objects/*/*.json"))


def test_a_run_on_restored_parts_names_the_version_of_each_part(store: VersionStore) -> None:
    for run in ("first", "second"):
        trainer_of(VersionCheckpoint(store.path, run=run), max_epochs=1).fit(Recurrent())
    model = Recurrent()
    restore_version("first", model.lstm, store=store, prefix="lstm.")
    restore_version("second", model.head, store=store, prefix="head.")
    trainer_of(VersionCheckpoint(store.path, run="third"), max_epochs=1).fit(model)
    told = [(store.get(each.id).run, each.how, each.shared) for each in store.get("third").parents]
    assert told == [("first", "restore", "16/18"), ("second", "restore", "2/18")]
