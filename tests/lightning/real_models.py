"""Lightning modules around models that this project did not write; importable by another process."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def loader(*tensors: torch.Tensor, batch_size: int = 4) -> Any:
    return DataLoader(TensorDataset(*tensors), batch_size=batch_size, shuffle=True)


class Base(pl.LightningModule):
    """One loss, AdamW, and data made by the subclass's `data`."""

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = self.loss(batch)
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW([each for each in self.parameters() if each.requires_grad], lr=1e-2)

    def train_dataloader(self) -> Any:
        return loader(*self.data(torch.Generator().manual_seed(3)))

    def loss(self, batch: Any) -> torch.Tensor:
        raise AssertionError

    def data(self, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        raise AssertionError


class Bert(Base):
    """Hugging Face's BERT with random weights."""

    def __init__(self, hidden: int = 16) -> None:
        super().__init__()
        self.save_hyperparameters()
        from transformers import BertConfig, BertForSequenceClassification

        config = BertConfig(
            vocab_size=50,
            hidden_size=hidden,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
        )
        self.model = BertForSequenceClassification(config)

    def data(self, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        return torch.randint(0, 50, (8, 6), generator=generator), torch.randint(
            0, 2, (8,), generator=generator
        )

    def loss(self, batch: Any) -> torch.Tensor:
        return self.model(input_ids=batch[0], labels=batch[1]).loss


class Gpt2(Base):
    """Hugging Face's GPT-2 with random weights, its embeddings tied to its head."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.save_hyperparameters()
        from transformers import GPT2Config, GPT2LMHeadModel

        self.model = GPT2LMHeadModel(
            GPT2Config(vocab_size=50, n_positions=16, n_embd=width, n_layer=2, n_head=2)
        )

    def data(self, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        return (torch.randint(0, 50, (8, 6), generator=generator),)

    def loss(self, batch: Any) -> torch.Tensor:
        return self.model(input_ids=batch[0], labels=batch[0]).loss


class Convolutional(Base):
    """Batch norm with its counters, dropout, and a buffer that is not persistent."""

    def __init__(self, channels: int = 4) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.body = nn.Sequential(
            nn.Conv2d(1, channels, 3), nn.BatchNorm2d(channels), nn.ReLU(), nn.Dropout(0.2), nn.Flatten()
        )
        self.head = nn.Linear(channels * 36, 2)
        self.register_buffer("scale", torch.tensor(2.0))
        self.register_buffer("scratch", torch.zeros(3), persistent=False)

    def data(self, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        return torch.randn(8, 1, 8, 8, generator=generator), torch.randint(0, 2, (8,), generator=generator)

    def loss(self, batch: Any) -> torch.Tensor:
        return nn.functional.cross_entropy(self.head(self.body(batch[0])) * self.scale, batch[1])


class Recurrent(Base):
    """An LSTM of two layers, both ways."""

    def __init__(self, hidden: int = 8) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.lstm = nn.LSTM(4, hidden, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(2 * hidden, 1)

    def data(self, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        return torch.randn(8, 5, 4, generator=generator), torch.randn(8, 1, generator=generator)

    def loss(self, batch: Any) -> torch.Tensor:
        return nn.functional.mse_loss(self.head(self.lstm(batch[0])[0][:, -1]), batch[1])


class Compiled(Base):
    """A submodule under torch.compile, which puts ``_orig_mod.`` into the names."""

    def __init__(self, compiled: bool = True) -> None:
        super().__init__()
        self.save_hyperparameters()
        body = nn.Linear(4, 4)
        self.body = torch.compile(body, backend="eager") if compiled else body
        self.head = nn.Linear(4, 1)

    def data(self, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        return (torch.randn(8, 4, generator=generator),)

    def loss(self, batch: Any) -> torch.Tensor:
        return self.head(self.body(batch[0])).pow(2).mean()


class Lora(Base):
    """A frozen base of Hugging Face with PEFT's trained adapters."""

    def __init__(self, rank: int = 2) -> None:
        super().__init__()
        self.save_hyperparameters()
        from peft import LoraConfig, get_peft_model
        from transformers import GPT2Config, GPT2LMHeadModel

        torch.manual_seed(11)  # the base that everybody downloads
        base = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_positions=16, n_embd=16, n_layer=2, n_head=2))
        config = LoraConfig(r=rank, target_modules=["c_attn"], fan_in_fan_out=True, task_type="CAUSAL_LM")
        self.model = get_peft_model(base, config)

    data = Gpt2.data
    loss = Gpt2.loss


class Gan(pl.LightningModule):
    """Manual optimisation with two optimizers."""

    def __init__(self, latent: int = 3) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.automatic_optimization = False
        self.generator = nn.Linear(latent, 4)
        self.discriminator = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))

    def training_step(self, batch: Any, batch_idx: int) -> None:
        first, second = self.optimizers()
        noise = torch.randn(len(batch[0]), self.hparams["latent"])
        loss = self.discriminator(self.generator(noise)).mean()
        first.zero_grad()
        self.manual_backward(loss)
        first.step()
        loss = (
            self.discriminator(batch[0]).pow(2).mean()
            - self.discriminator(self.generator(noise).detach()).mean()
        )
        second.zero_grad()
        self.manual_backward(loss)
        second.step()

    def configure_optimizers(self) -> Any:
        return (
            torch.optim.Adam(self.generator.parameters(), lr=1e-2),
            torch.optim.SGD(self.discriminator.parameters(), lr=1e-2, momentum=0.9),
        )

    def train_dataloader(self) -> Any:
        return loader(torch.randn(8, 4, generator=torch.Generator().manual_seed(3)))


MODELS = {each.__name__: each for each in (Bert, Gpt2, Convolutional, Recurrent, Compiled, Lora, Gan)}
