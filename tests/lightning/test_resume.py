"""Promises of resuming: the same bits where that is said, and the reason where it is not."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from small_models import Small, trainer_of
from torch.utils.data import DataLoader, Dataset

from mvc_callbacks import VersionStore, restore_version, torch_random
from mvc_callbacks.errors import DataChanged, MVCWarning
from mvc_callbacks.interrupts import Deferral
from mvc_callbacks.lightning import VersionCheckpoint
from mvc_callbacks.lightning_private import missing
from mvc_callbacks.lightning_resume import KEY
from mvc_callbacks.resume_guarantee import Guarantee, changed

HERE = Path(__file__).parent


def play(folder: Path, *names: str) -> None:
    """Play scenarios in new processes; `nox -s resume` plays them all."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parent.parent)}
    done = subprocess.run(
        [sys.executable, str(HERE / "resume_scenarios.py"), "--quick", str(folder / "resume.md"), *names],
        capture_output=True,
        text=True,
        env=environment,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "name",
    [
        "adam+plateau, accumulation 2, workers 0",
        "by step, workers 2",
        "by step, validation inside the epoch",
        "SIGTERM between accumulated batches",
        "Ctrl-C",
        "state that no checkpoint holds",
    ],
)
def test_bad_input_47_an_interrupted_training_does_as_promised(name: str, tmp_path: Path) -> None:
    play(tmp_path, name)


@pytest.mark.slow
def test_a_stateful_loader_goes_on_by_its_own_state(tmp_path: Path) -> None:
    pytest.importorskip("torchdata")
    play(tmp_path, "StatefulDataLoader by step")


@pytest.mark.slow
def test_two_ranks_go_on_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
    play(tmp_path, "DDP, by step, workers 1")


def test_lightning_still_has_the_private_attributes_that_resuming_needs() -> None:
    assert missing(trainer_of(VersionCheckpoint())) == []


def test_every_random_state_comes_back() -> None:
    import numpy as np

    def draw() -> Any:
        own = [holder["torch"], holder["numpy"], holder["python"]]
        return (
            random.random(),
            random.gauss(0, 1),
            np.random.randn(),
            torch.rand(1).item(),
            torch.rand(1, generator=own[0]).item(),
            own[1].random(),
            own[2].random(),
        )

    holder = {"torch": torch.Generator(), "numpy": np.random.default_rng(4), "python": random.Random(5)}
    found = torch_random.held({"holder": holder})
    assert sorted(found) == ["holder.numpy", "holder.python", "holder.torch"]
    everything, own = torch_random.capture(), torch_random.capture_held(found)
    first = draw()
    torch_random.put_back(everything)
    assert torch_random.put_back_held(found, own) == ()
    assert draw() == first


def begin_devices(patch: pytest.MonkeyPatch, count: int, begun: bool = True) -> None:
    """Let torch see CUDA devices and, where there is one, an MPS device: generators where its own would be.

    Args:
        patch: Takes it all back.
        count: How many CUDA devices; 0 is a machine with neither.
        begun: Whether CUDA has been used in this process.
    """
    cuda = tuple(torch.Generator() for _ in range(count))
    mps = torch.Generator()
    patch.setattr(torch.cuda, "default_generators", cuda)
    patch.setattr(torch.cuda, "is_available", lambda: count > 0)
    patch.setattr(torch.cuda, "is_initialized", lambda: begun)
    for each in (torch.cuda, torch.cuda.random):
        patch.setattr(each, "device_count", lambda: count)
    patch.setattr(torch.cuda, "get_rng_state_all", lambda: [each.get_state() for each in cuda])
    patch.setattr(
        torch.cuda,
        "set_rng_state_all",
        lambda states: [cuda[at].set_state(state) for at, state in enumerate(states)],
    )
    patch.setattr(torch.mps, "_get_default_mps_generator", lambda: mps)
    patch.setattr(torch.backends.mps, "is_available", lambda: count > 0)
    patch.setattr(torch.mps, "get_rng_state", mps.get_state)
    patch.setattr(torch.mps, "set_rng_state", mps.set_state)


def draw_on_devices() -> list[float]:
    """Draw from each device's generator."""
    generators = (*torch.cuda.default_generators, torch.mps._get_default_mps_generator())
    return [torch.rand(1, generator=each).item() for each in generators]


class Noisy(Small):
    """A module whose loss depends on what the devices draw."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return super().training_step(batch, batch_idx) * sum(draw_on_devices())


def test_the_random_state_of_every_device_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    begin_devices(monkeypatch, 2)
    for count, each in enumerate(torch.cuda.default_generators):
        torch.rand(count + 1, generator=each)
    state = torch_random.capture()
    first = draw_on_devices()
    assert len(set(first)) == 3  # a generator that got another's state would be seen
    draw_on_devices()
    torch_random.put_back(state)
    assert draw_on_devices() == first


def test_random_state_of_devices_that_are_not_there_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    begin_devices(monkeypatch, 2)
    draw_on_devices()
    of_two = torch_random.capture()
    assert {"cuda", "mps"} <= of_two.keys()
    for count in (1, 0):
        begin_devices(monkeypatch, count)
        before = [each.get_state() for each in torch.cuda.default_generators]
        torch_random.put_back(of_two)
        after = [each.get_state() for each in torch.cuda.default_generators]
        assert all(map(torch.equal, before, after))
    assert not {"cuda", "mps"} & torch_random.capture().keys()


def test_cuda_that_nobody_has_begun_is_not_begun_by_a_save(monkeypatch: pytest.MonkeyPatch) -> None:
    begin_devices(monkeypatch, 2, begun=False)
    assert "cuda" not in torch_random.capture()


def test_cuda_that_is_begun_after_the_save_draws_from_the_seed_that_there_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begin_devices(monkeypatch, 2, begun=False)
    torch.manual_seed(5)
    state = torch_random.capture()
    begin_devices(monkeypatch, 2)  # another process
    torch.manual_seed(9)
    torch_random.put_back(state)
    assert draw_on_devices()[:2] == [torch.rand(1, generator=torch.Generator().manual_seed(5)).item()] * 2


def test_a_resumed_fit_draws_on_its_devices_as_if_it_had_gone_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit(run: str, epochs: int, seed: int, **given: Any) -> str:
        begin_devices(monkeypatch, 2)
        for at, each in enumerate((*torch.cuda.default_generators, torch.mps._get_default_mps_generator())):
            each.manual_seed(seed + at)
        torch.manual_seed(0)
        checkpoint = VersionCheckpoint(tmp_path / "store", run=run)
        trainer_of(checkpoint, max_epochs=epochs).fit(Noisy(), **given)
        return VersionStore(tmp_path / "store").versions()[-1].weights.digest

    straight = fit("straight", 3, 1)
    fit("job", 1, 1)
    assert fit("job", 3, 50, ckpt_path="last") == straight
    assert resume_of(VersionStore(tmp_path / "store"))["guarantee"] == "exact"
    assert fit("other", 3, 50) != straight


def test_a_guarantee_tells_what_differs() -> None:
    reasons = changed(
        {"the seed": 1, "the loader": {"workers": 2}}, {"the seed": 1, "the loader": {"workers": 0}}
    )
    assert str(Guarantee.of([*reasons, *reasons])) == (
        "approximate: the loader changed (workers was 2 and is 0)"
    )
    assert str(Guarantee()) == "exact"


class Files(Dataset[torch.Tensor]):
    def __init__(self, folder: Path) -> None:
        self.paths = sorted(folder.glob("*.txt"))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.full((4,), float(self.paths[index].read_text()))


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    for number in range(6):
        (folder / f"{number}.txt").write_text(str(number))
    return folder


class OfFiles(Small):
    folder: Path

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return self.layer(batch).pow(2).mean()

    def train_dataloader(self) -> Any:
        return DataLoader(Files(self.folder), batch_size=2, shuffle=True)


def fit(store: VersionStore, folder: Path, epochs: int, **options: Any) -> Any:
    model = OfFiles()
    model.folder = folder
    path = options.pop("ckpt_path", None)
    start = options.pop("start", None)
    if start is not None:
        restore_version(start, model, store=store)
    trainer = trainer_of(VersionCheckpoint(store.path, run="job", **options), max_epochs=epochs)
    trainer.fit(model, ckpt_path=path)
    return trainer


def change(folder: Path) -> None:
    (folder / "3.txt").write_text("99")
    (folder / "5.txt").unlink()
    (folder / "6.txt").write_text("6")


def resume_of(store: VersionStore) -> Any:
    return store.versions()[-1].details.run_record["resume"]


def test_other_data_are_told_file_by_file_and_nothing_exact_is_promised(
    store: VersionStore, files: Path
) -> None:
    fit(store, files, 1)
    change(files)
    with pytest.warns(
        MVCWarning, match=r"1 added \(.*6\.txt\), 1 removed \(.*5\.txt\), 1 changed \(.*3\.txt\)"
    ):
        fit(store, files, 2, ckpt_path="last")
    assert resume_of(store)["guarantee"] == "approximate"


def test_other_data_stop_a_resume_where_that_is_asked_for(store: VersionStore, files: Path) -> None:
    fit(store, files, 1)
    fit(store, files, 2, ckpt_path="last", on_data_change="error")
    assert resume_of(store) == {"guarantee": "exact", "reasons": []}
    change(files)
    with pytest.raises(DataChanged, match=r"6\.txt"):
        fit(store, files, 3, ckpt_path="last", on_data_change="error")


def test_other_hyperparameters_are_told_by_their_names(store: VersionStore, files: Path) -> None:
    given = {"lr": 0.1, "folder": Path("a"), "api_key": "sk-1", "same": [1]}
    fit(store, files, 1, hyperparameters=given)
    with pytest.warns(MVCWarning, match="goes on"):
        fit(store, files, 2, ckpt_path="last", hyperparameters={**given, "lr": 0.2, "folder": Path("b")})
    assert resume_of(store)["reasons"] == [
        "the hyperparameters changed (lr was 0.1 and is 0.2, folder was a and is b)"
    ]


def test_data_that_are_not_compared_are_not_promised(store: VersionStore, files: Path) -> None:
    fit(store, files, 1)
    change(files)
    fit(store, files, 2, ckpt_path="last", on_data_change="ignore")
    assert any("not compared" in each for each in resume_of(store)["reasons"])


def test_other_data_are_told_when_a_restored_model_is_trained(store: VersionStore, files: Path) -> None:
    fit(store, files, 1)
    change(files)
    with pytest.warns(MVCWarning, match="are not the data that version job/1 was trained on"):
        fit(store, files, 1, start="job/1")
    assert "resume" not in store.versions()[-1].details.run_record


def test_a_version_without_random_state_is_never_called_exact(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mvc_callbacks.lightning_resume import Resuming

    with monkeypatch.context() as patch:
        patch.setattr(Resuming, "keep", lambda self, checkpoint: None)
        trainer_of(VersionCheckpoint(store.path, run="job"), max_epochs=1).fit(Small())
    with pytest.warns(MVCWarning, match="approximate: no random state was kept"):
        trainer_of(VersionCheckpoint(store.path, run="job"), max_epochs=2).fit(Small(), ckpt_path="last")


def test_the_loops_are_left_as_they_were(store: VersionStore) -> None:
    trainer = trainer_of(VersionCheckpoint(store.path), VersionCheckpoint(store.path, every_n_train_steps=2))
    trainer.fit(Small())
    assert "on_advance_start" not in vars(trainer.fit_loop)
    assert "on_run_start" not in vars(trainer.fit_loop.epoch_loop)


def test_a_plain_file_can_be_resumed_from_too(store: VersionStore, tmp_path: Path) -> None:
    trainer = trainer_of(VersionCheckpoint(store.path), max_epochs=1)
    trainer.fit(Small())

    class SaveOwn(Callback):
        def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
            trainer.save_checkpoint(tmp_path / "own.ckpt")

    trainer_of(SaveOwn(), VersionCheckpoint(store.path), max_epochs=1).fit(Small())
    assert KEY in torch.load(tmp_path / "own.ckpt", weights_only=False)


def test_bad_input_47_the_first_ctrl_c_waits_and_the_second_does_not() -> None:
    deferral = Deferral()
    deferral.begin()
    try:
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            deferral.raise_if_asked()
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            signal.sigtimedwait([], 1)
    finally:
        deferral.end()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.slow
def test_bad_input_46_a_job_that_is_killed_at_random_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    example = HERE.parent.parent / "examples" / "preemptible.py"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parent.parent)}
    done = subprocess.run(
        [sys.executable, str(example), "--dir", str(tmp_path)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "was ended by SIGKILL" in done.stdout
    assert "The same, to the last bit." in done.stdout
