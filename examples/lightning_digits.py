"""Handwritten digits: train twice, see what changed, bring a version back, promote, roll back.

Needs no network: the digits are scikit-learn's, written as PNG files. It takes half a minute on two cores.

    python lightning_digits.py              # in a new temporary folder
    python lightning_digits.py --dir demo   # in a folder of your own
"""

from __future__ import annotations

import argparse
import logging
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import lightning as L
import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, Dataset

from mvc_callbacks import restore_version
from mvc_callbacks.lightning import VersionCheckpoint

MVC = [sys.executable, "-c", "from mvc_callbacks.cli import main; main()"]  # the command `mvc` of this Python
EPOCHS = 6
DAMAGED = Path("train", "8", "0008.png")


class Digits(Dataset):
    """PNG files in one folder for each class.

    ``samples`` and ``root`` are all that is needed for the files to be found and fingerprinted.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.samples = sorted((str(path), int(path.parent.name)) for path in root.glob("*/*.png"))

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        path, label = self.samples[index]
        with Image.open(path) as image:
            pixels = np.asarray(image, dtype=np.float32) / 255
        return torch.from_numpy(pixels)[None], label


class DigitNet(L.LightningModule):
    """A small convolutional network."""

    def __init__(self, channels: int = 16, lr: float = 3e-3) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(
            nn.Conv2d(1, channels, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(channels, 2 * channels, 3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(2 * channels * 16, 10),
        )

    def training_step(self, batch: list[torch.Tensor], _: int) -> torch.Tensor:
        images, labels = batch
        loss = nn.functional.cross_entropy(self.net(images), labels)
        self.log("train_loss", loss, on_epoch=True, on_step=False)
        return loss

    def validation_step(self, batch: list[torch.Tensor], _: int) -> None:
        images, labels = batch
        scores = self.net(images)
        self.log("val_loss", nn.functional.cross_entropy(scores, labels))
        self.log("val_acc", (scores.argmax(1) == labels).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.hparams.lr)


def write_digits(folder: Path) -> int:
    """Write the digits as PNG files, every fifth for validation; one training image comes out blank."""
    digits = load_digits()
    for index, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        path = folder / ("val" if index % 5 == 0 else "train") / str(label) / f"{index:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 15).astype(np.uint8)).save(path)
    Image.new("L", (8, 8)).save(folder / DAMAGED)
    return len(digits.images)


def repair(folder: Path) -> None:
    """Write the blank image again, as it should have been."""
    index = int(DAMAGED.stem)
    Image.fromarray((load_digits().images[index] * 15).astype(np.uint8)).save(folder / DAMAGED)


def quiet_trainer(**options) -> L.Trainer:
    """Make a Trainer that leaves the screen to the demo."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*is deprecated.*")  # torch 2.13 tells Lightning 2.6
    return L.Trainer(
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


def train(data: Path, run: str) -> None:
    """Train from scratch; the callback is the only line that is not everyday Lightning."""
    L.seed_everything(1, verbose=False)
    versions = VersionCheckpoint(run=run, monitor="val_acc", mode="max")
    trainer = quiet_trainer(max_epochs=EPOCHS, callbacks=[versions])
    trainer.fit(
        DigitNet(),
        DataLoader(Digits(data / "train"), batch_size=64, shuffle=True),
        DataLoader(Digits(data / "val"), batch_size=128),
    )
    best = versions.best_version
    print(f"   run {best.run}: {versions.last_version.number} versions, the best is {best.run}/{best.number}")
    print(f"   {best.data['train'].files:,} training files, fingerprint {best.data['train'].digest[:12]}")


def restore(data: Path, ref: str) -> None:
    """Bring a version back and measure it again. This runs in a process of its own."""
    from mvc_callbacks import VersionStore

    model = restore_version(ref, DigitNet)  # built from the recorded hyperparameters
    version = VersionStore().get(ref)
    trainer = quiet_trainer(callbacks=[VersionCheckpoint()])
    loader = DataLoader(Digits(data / "val"), batch_size=128)
    [measured] = trainer.validate(model, loader, verbose=False)
    print(f"   {version.run}/{version.number} ({version.short_id}), channels={model.hparams.channels}")
    print(f"   recorded  val_acc = {version.metrics['val_acc']!r}")
    print(f"   measured  val_acc = {measured['val_acc']!r}")
    if measured["val_acc"] != version.metrics["val_acc"]:
        sys.exit("   They differ!")
    print("   The same, to the last bit.")


def demo(folder: Path) -> None:
    """Tell the whole story."""
    data = folder / "digits"
    print(f"Everything is in {folder}\n")
    print(f"1. Train on {write_digits(data):,} handwritten digits. Every epoch becomes a version.\n")
    train(data, "baseline")

    print(f"\n2. One image turns out to be blank: {DAMAGED.as_posix()}. Repair it, train again.\n")
    repair(data)
    train(data, "corrected")

    print("\n3. The history. The star is the best of all.\n")
    mvc("log")

    print("\n4. What is different between the best of the two runs?\n")
    mvc("diff", "baseline/best", "corrected/best")

    print("\n5. Bring the best version of the first run back, in a new process.\n")
    run([sys.executable, __file__, "--dir", str(folder), "--restore", "baseline/best"])

    print("\n6. Put it into production, then the other one, and take that back.\n")
    mvc("promote", "baseline/best", "production")
    mvc("promote", "corrected/best", "production", "-m", "trained on clean data")
    mvc("rollback", "production", "-m", "not yet reviewed")
    mvc("aliases")

    print("\n7. Is every byte on the disk what was written?\n")
    mvc("verify", "--full")

    print(f"\nLook around:  mvc show production --store {folder / 'model_versions'}")


def mvc(*arguments: str) -> None:
    """Run the command `mvc`, and show it."""
    quoted = [f'"{each}"' if " " in each else each for each in arguments]
    print(f"$ mvc {' '.join(quoted)}")
    run([*MVC, *arguments])


def run(command: list[str]) -> None:
    sys.stdout.flush()  # before the other process writes
    subprocess.run(command, check=True)


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--dir", type=Path, help="where images and versions go; else a new temporary folder")
    parser.add_argument("--restore", metavar="REF", help=argparse.SUPPRESS)
    options = parser.parse_args()
    folder = (options.dir or Path(tempfile.mkdtemp(prefix="mvc-digits-"))).resolve()
    os.environ["MVC_STORE"] = str(folder / "model_versions")
    if options.restore:
        restore(folder / "digits", options.restore)
    else:
        demo(folder)


if __name__ == "__main__":
    main()
