"""A training that is killed at random, again and again, and ends with the same bits as one left alone.

Each attempt runs the same script in the same way, as a job that a cluster queues again does: `run=` names the
job, and `ckpt_path="last"` is the newest version of it, or a fresh start. It takes about a minute.

    python preemptible.py              # in a new temporary folder
    python preemptible.py --dir here   # in a folder of your own
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

EPOCHS, STEPS_AN_EPOCH = 4, 20


def train(store: str, job: str, progress: Path | None) -> None:
    import lightning.pytorch as pl
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    from mvc_callbacks.lightning import VersionCheckpoint

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)  # after the import, which sets it

    class Model(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = torch.nn.Sequential(
                torch.nn.Linear(8, 32), torch.nn.ReLU(), torch.nn.Dropout(0.2), torch.nn.Linear(32, 1)
            )

        def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
            if progress is not None:
                progress.touch()
            time.sleep(0.02)  # a real step takes its time
            return torch.nn.functional.mse_loss(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters(), lr=0.01)

    values = torch.randn(STEPS_AN_EPOCH * 8, 8, generator=torch.Generator().manual_seed(1))
    data = TensorDataset(values, values.sum(1, keepdim=True).sin())
    attempt = job != "undisturbed" and Path(store).exists()
    pl.seed_everything(time.time_ns() % 2**32 if attempt else 7, verbose=False)
    trainer = pl.Trainer(
        max_epochs=EPOCHS,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[VersionCheckpoint(store, run=job, every_n_train_steps=5)],
    )
    trainer.fit(Model(), DataLoader(data, batch_size=8, shuffle=True), ckpt_path="last")


def attempt(store: Path, job: str, patience: float | None, how: signal.Signals) -> int:
    """Run the training in a process of its own, and end that after some seconds of training."""
    progress = store.with_name(f"{job}.began")
    progress.unlink(missing_ok=True)
    command = [sys.executable, __file__, "--train", str(store), job, str(progress)]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    while patience is not None and not progress.exists() and process.poll() is None:
        time.sleep(0.02)
    try:
        return process.wait(patience)
    except subprocess.TimeoutExpired:
        process.send_signal(how)
        return process.wait(60)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dir", type=Path)
    parser.add_argument("--train", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train:
        warnings.simplefilter("ignore")
        try:
            train(options.train[0], options.train[1], Path(options.train[2]))
        except BaseException as error:
            if type(error).__name__ != "SIGTERMException":
                raise
            sys.exit(143)
        return

    from mvc_callbacks import VersionStore

    folder = options.dir or Path(tempfile.mkdtemp(prefix="mvc-preemptible-"))
    folder.mkdir(parents=True, exist_ok=True)
    assert attempt(folder / "alone", "undisturbed", None, signal.SIGTERM) == 0
    expected = VersionStore(folder / "alone").versions()[-1]

    chance = random.Random(3)
    kills = 0
    while True:
        how = chance.choice([signal.SIGKILL, signal.SIGTERM])
        code = attempt(folder / "killed", "job", chance.uniform(0.3, 1.0) if kills < 5 else None, how)
        if code == 0:
            break
        kills += 1
        print(f"attempt {kills} was ended by {how.name}")
    versions = VersionStore(folder / "killed").versions()
    promises = {
        each.details.run_record.get("resume", {}).get("guarantee", "a fresh start") for each in versions
    }
    print(f"{kills} interruptions, {len(versions)} versions, promised: {', '.join(sorted(promises))}")
    print(f"left alone   step {expected.step}: {expected.weights.digest[:24]}")
    print(f"interrupted  step {versions[-1].step}: {versions[-1].weights.digest[:24]}")
    assert versions[-1].weights.digest == expected.weights.digest
    print("The same, to the last bit.")


if __name__ == "__main__":
    main()
