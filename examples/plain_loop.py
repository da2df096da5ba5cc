"""A training loop of one's own: `store.commit` instead of `torch.save`, and back with `restore_version`.

It takes a few seconds.

    python plain_loop.py              # in a new temporary folder
    python plain_loop.py --dir demo   # in a folder of your own
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

from mvc_callbacks import VersionStore, restore_version

EPOCHS = 5


def make_model(hidden: int) -> nn.Module:
    return nn.Sequential(nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 10))


def load(file: Path) -> tuple[torch.Tensor, torch.Tensor]:
    with np.load(file) as arrays:
        return torch.from_numpy(arrays["pixels"]), torch.from_numpy(arrays["labels"])


def accuracy(model: nn.Module, pixels: torch.Tensor, labels: torch.Tensor) -> float:
    with torch.no_grad():
        return (model(pixels).argmax(1) == labels).float().mean().item()


def train(store: VersionStore, data: dict[str, Path]) -> None:
    torch.manual_seed(1)
    hyperparameters = {"hidden": 64, "lr": 0.01}
    model = make_model(hyperparameters["hidden"])
    optimizer = torch.optim.Adam(model.parameters(), lr=hyperparameters["lr"])
    pixels, labels = load(data["train"])
    for epoch in range(EPOCHS):
        for batch in torch.randperm(len(pixels)).split(64):
            loss = nn.functional.cross_entropy(model(pixels[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        version = store.commit(
            model.state_dict(),
            metrics={"train_loss": loss.item(), "val_acc": accuracy(model, *load(data["val"]))},
            monitor=("val_acc", "max"),
            hyperparameters=hyperparameters,
            data=data,
            run="plain",
            epoch=epoch,
        )
        print(f"{version.run}/{version.number}  {version.short_id}  val_acc {version.metrics['val_acc']:.4f}")


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--dir", type=Path, help="where data and versions go; else a new temporary folder")
    folder = (parser.parse_args().dir or Path(tempfile.mkdtemp(prefix="mvc-plain-"))).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    digits = load_digits()
    pixels, labels = digits.data.astype(np.float32) / 16, digits.target
    data = {"train": folder / "train.npz", "val": folder / "val.npz"}
    np.savez(data["train"], pixels=pixels[:1437], labels=labels[:1437])
    np.savez(data["val"], pixels=pixels[1437:], labels=labels[1437:])

    store = VersionStore(folder / "model_versions")
    train(store, data)

    best = store.get("best")
    model = restore_version("best", lambda hidden, lr: make_model(hidden), store=store)
    measured = accuracy(model, *load(data["val"]))
    print(f"best is {best.run}/{best.number}: recorded {best.metrics['val_acc']!r}, measured {measured!r}")
    print(f"trained on {data['train'].name}, fingerprint {best.data['train'].digest[:12]}")
    print(f"store: {store.path}")


if __name__ == "__main__":
    main()
