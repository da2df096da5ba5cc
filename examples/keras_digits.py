"""Handwritten digits with Keras: train twice, see what changed, bring a version back, promote, roll back.

Needs no network: the digits are scikit-learn's, written as PNG files. It runs on any backend of Keras
(set KERAS_BACKEND) and takes less than a minute on two cores.

    python keras_digits.py              # in a new temporary folder
    python keras_digits.py --dir demo   # in a folder of your own
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow announces itself otherwise

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from mvc_callbacks import restore_version
from mvc_callbacks.keras import VersionCheckpoint

import keras  # isort: skip  after VersionCheckpoint, which says what to do where Keras has no backend

MVC = [sys.executable, "-c", "from mvc_callbacks.cli import main; main()"]  # the command `mvc` of this Python
EPOCHS = 6
DAMAGED = Path("train", "8", "0008.png")


class Digits(keras.utils.PyDataset):
    """PNG files in one folder for each class.

    ``samples`` and ``root`` are all that is needed for the files to be found and fingerprinted.
    """

    def __init__(self, root: Path, batch_size: int = 64) -> None:
        super().__init__()
        self.root = root
        self.samples = sorted((str(path), int(path.parent.name)) for path in root.glob("*/*.png"))
        self.batch_size = batch_size
        self.order = np.random.default_rng(1).permutation(len(self.samples))

    def __len__(self) -> int:
        return -(-len(self.samples) // self.batch_size)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        chosen = self.order[index * self.batch_size : (index + 1) * self.batch_size]
        images = [np.asarray(Image.open(self.samples[each][0]), "float32") / 255 for each in chosen]
        return np.stack(images)[..., None], np.array([self.samples[each][1] for each in chosen])


def build(channels: int = 16, learning_rate: float = 3e-3) -> keras.Model:
    """Make a small convolutional network."""
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(channels, 3, padding="same", activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Conv2D(2 * channels, 3, padding="same", activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(10),
        ]
    )
    model.compile(
        keras.optimizers.Adam(learning_rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


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


def train(data: Path, run: str) -> None:
    """Train from scratch; the callback is the only line that is not everyday Keras."""
    keras.utils.set_random_seed(1)
    settings = {"channels": 16, "learning_rate": 3e-3}
    versions = VersionCheckpoint(run=run, monitor="val_accuracy", hyperparameters=settings)
    build(**settings).fit(
        Digits(data / "train"),
        validation_data=Digits(data / "val"),
        epochs=EPOCHS,
        verbose=0,
        callbacks=[versions],
    )
    best = versions.best_version
    print(f"   run {best.run}: {versions.last_version.number} versions, the best is {best.run}/{best.number}")
    print(f"   {best.data['train'].files:,} training files, fingerprint {best.data['train'].digest[:12]}")


def restore(data: Path, ref: str) -> None:
    """Bring a version back and measure it again. This runs in a process of its own."""
    from mvc_callbacks import VersionStore

    model = restore_version(ref, build)  # built from the recorded hyperparameters
    version = VersionStore().get(ref)
    measured = model.evaluate(
        Digits(data / "val"), verbose=0, return_dict=True, callbacks=[VersionCheckpoint()]
    )
    print(f"   {version.run}/{version.number} ({version.short_id}), channels={model.layers[0].filters}")
    print(f"   recorded  val_accuracy = {version.metrics['val_accuracy']!r}")
    print(f"   measured  val_accuracy = {measured['accuracy']!r}")
    if measured["accuracy"] != version.metrics["val_accuracy"]:
        sys.exit("   They differ!")
    print("   The same, to the last bit.")


def demo(folder: Path) -> None:
    """Tell the whole story."""
    data = folder / "digits"
    print(f"Everything is in {folder}; Keras runs on {keras.backend.backend()}\n")
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
