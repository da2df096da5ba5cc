"""Models for fits: real ones, whose steps are real arithmetic, or cost nothing but time."""

from __future__ import annotations

import time
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from torch import nn

__all__ = ["Steps", "data", "megabytes", "module"]

Steps = Literal["cpu", "elsewhere"]
"""Whether steps keep the cores busy, or only take time, as when an accelerator computes."""

_GPT2 = {"n_embd": 768, "n_layer": 12, "n_head": 12, "vocab_size": 50257, "n_positions": 1024}
_TOKENS = 64
_LAYERS = {"tiny": (4, 128), "8 MB": (8, 500), "100 MB": (25, 1000), "512 MB": (32, 2000)}


def module(name: str, optimizer: str, steps: Steps = "cpu", pause: float = 0.1) -> pl.LightningModule:
    """Make a module.

    Args:
        name: ``tiny`` (0.3 MB), ``8 MB``, ``100 MB`` and ``512 MB`` (layers of one width), ``gpt2`` (124
            million parameters); with `` frozen`` the same, of which about 5 % are trained.
        optimizer: ``sgd`` or ``adam``.
        steps: What a step costs.
        pause: Seconds of a step elsewhere.
    """
    torch.manual_seed(0)
    name, frozen, _ = name.partition(" frozen")
    made: _Module
    if name == "gpt2":
        made = _Language(optimizer, steps, pause)
        trained = [made.model.transformer.h[11].mlp, made.model.transformer.ln_f]
    else:
        number, width = _LAYERS[name]
        made = _Layers(number, width, optimizer, steps, pause)
        trained = [made.layers[-1]]
    if frozen:
        made.requires_grad_(False)
        for layer in trained:
            layer.requires_grad_(True)
        made.scale.requires_grad_(True)  # which the loss of a step elsewhere is made of
    return made


def data(name: str) -> torch.utils.data.DataLoader[Any]:
    """Return a loader that outlasts any fit here."""
    if name.startswith("gpt2"):
        return torch.utils.data.DataLoader(_Tokens(), batch_size=1)
    return torch.utils.data.DataLoader(_Numbers(), batch_size=32)


def megabytes(model: nn.Module, optimizer: str) -> dict[str, float]:
    """Return the megabytes of a state: ``changed`` with each step, ``kept``, and ``state``, which is both."""
    trained = sum(each.numel() for each in model.parameters() if each.requires_grad)
    frozen = sum(each.numel() for each in model.parameters() if not each.requires_grad)
    kept, changed = 4e-6 * frozen, 4e-6 * trained * (3 if optimizer == "adam" else 1)
    return {"kept": kept, "changed": changed, "state": kept + changed}


class _Numbers(torch.utils.data.Dataset[torch.Tensor]):
    def __len__(self) -> int:
        return 1_000_000

    def __getitem__(self, at: int) -> torch.Tensor:
        return torch.tensor([float(at % 7)])


class _Tokens(torch.utils.data.Dataset[torch.Tensor]):
    def __len__(self) -> int:
        return 1_000_000

    def __getitem__(self, at: int) -> torch.Tensor:
        return torch.arange(at, at + _TOKENS) % 50257


class _Module(pl.LightningModule):
    def __init__(self, optimizer: str, steps: Steps, pause: float) -> None:
        super().__init__()
        self._optimizer, self._steps, self._pause = optimizer, steps, pause
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.after_hooks: list[float] = []

    def training_step(self, batch: torch.Tensor, at: int) -> torch.Tensor:
        if self._steps == "elsewhere":
            time.sleep(self._pause)
            return self.scale * 1.0
        return self.loss(batch)

    def loss(self, batch: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def on_train_batch_end(self, *_: Any) -> None:
        self.after_hooks.append(time.perf_counter())  # Lightning calls this after the callbacks' hooks

    def configure_optimizers(self) -> Any:
        trained = [each for each in self.parameters() if each.requires_grad]
        if self._steps == "elsewhere":
            return _Nudge(trained, moments=2 if self._optimizer == "adam" else 0)
        if self._optimizer == "adam":
            return torch.optim.Adam(trained, lr=1e-4)
        return torch.optim.SGD(trained, lr=1e-4)


class _Nudge(torch.optim.Optimizer):
    """Changes one value of each weight, and of as many moments of its shape, for no time."""

    def __init__(self, weights: list[nn.Parameter], moments: int) -> None:
        super().__init__(weights, {"moments": moments})
        for weight in weights:
            if moments:
                self.state[weight]["step"] = torch.tensor(0.0)
            for at in range(moments):
                self.state[weight][f"moment{at}"] = torch.rand_like(weight)

    def step(self, closure: Any = None) -> Any:
        loss = closure() if closure is not None else None
        with torch.no_grad():
            for group in self.param_groups:
                for weight in group["params"]:
                    for each in (weight, *self.state[weight].values()):
                        each.view(-1)[0] += 1
        return loss


class _Layers(_Module):
    def __init__(self, number: int, width: int, *given: Any) -> None:
        super().__init__(*given)
        self.layers = nn.Sequential(*(nn.Linear(width, width, bias=False) for _ in range(number)))

    def loss(self, batch: torch.Tensor) -> torch.Tensor:
        width = self.layers[0].in_features
        return self.layers(batch.expand(-1, width)).square().mean()


class _Language(_Module):
    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        from transformers import GPT2Config, GPT2LMHeadModel

        self.model = GPT2LMHeadModel(GPT2Config(**_GPT2))

    def loss(self, batch: torch.Tensor) -> torch.Tensor:
        loss: torch.Tensor = self.model(input_ids=batch, labels=batch).loss
        return loss
