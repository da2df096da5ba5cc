"""Shapes: state dicts with the proportions of real models, made without the packages that define them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch

__all__ = ["STATES", "gpt2", "resnet50", "state_of"]

Shapes = Mapping[str, tuple[int, ...]]


def resnet50() -> dict[str, tuple[int, ...]]:
    """Return names and shapes of torchvision's ResNet-50: 320 tensors, 102 MB."""
    shapes = {"conv1.weight": (64, 3, 7, 7), **_norm("bn1", 64)}
    before = 64
    for stage, (blocks, width) in enumerate(((3, 64), (4, 128), (6, 256), (3, 512)), start=1):
        for block in range(blocks):
            name = f"layer{stage}.{block}"
            shapes |= {f"{name}.conv1.weight": (width, before, 1, 1), **_norm(f"{name}.bn1", width)}
            shapes |= {f"{name}.conv2.weight": (width, width, 3, 3), **_norm(f"{name}.bn2", width)}
            shapes |= {f"{name}.conv3.weight": (4 * width, width, 1, 1), **_norm(f"{name}.bn3", 4 * width)}
            if block == 0:
                shapes |= {f"{name}.downsample.0.weight": (4 * width, before, 1, 1)}
                shapes |= _norm(f"{name}.downsample.1", 4 * width)
            before = 4 * width
    return {**shapes, "fc.weight": (1000, 2048), "fc.bias": (1000,)}


def _norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    own = {f"{name}.{each}": (width,) for each in ("weight", "bias", "running_mean", "running_var")}
    return {**own, f"{name}.num_batches_tracked": ()}


def gpt2() -> dict[str, tuple[int, ...]]:
    """Return names and shapes of GPT-2 small: 148 tensors, 124 million parameters, 498 MB."""
    shapes = {"wte.weight": (50257, 768), "wpe.weight": (1024, 768)}
    for block in range(12):
        for name, shape in (
            ("ln_1", (768,)),
            ("attn.c_attn", (768, 2304)),
            ("attn.c_proj", (768, 768)),
            ("ln_2", (768,)),
            ("mlp.c_fc", (768, 3072)),
            ("mlp.c_proj", (3072, 768)),
        ):
            shapes |= {f"h.{block}.{name}.weight": shape, f"h.{block}.{name}.bias": shape[-1:]}
    return {**shapes, "ln_f.weight": (768,), "ln_f.bias": (768,)}


def _even(number: int, items: int) -> dict[str, tuple[int, ...]]:
    return {f"t{at:04d}": (items,) for at in range(number)}


STATES: Mapping[str, Shapes] = {
    "ResNet-50": resnet50(),
    "GPT-2 124M": gpt2(),
    "1 024 tensors of 0.5 MB": _even(1024, 125_000),
    "3 000 small tensors": _even(3000, 4_000),
    "a small one": _even(12, 5_000),
}
"""Names and shapes of the states that are written."""


def state_of(name: str, seed: int = 0) -> dict[str, torch.Tensor]:
    """Return a state dict of random float32 values; counters are whole numbers."""
    generator = torch.Generator().manual_seed(seed)
    return dict(_tensors(STATES[name], generator))


def _tensors(shapes: Shapes, generator: torch.Generator) -> Iterator[tuple[str, torch.Tensor]]:
    for name, shape in shapes.items():
        made = torch.rand(shape, generator=generator) if shape else torch.zeros((), dtype=torch.int64)
        yield name, made
