"""Promises of torch's state: one moment of it, told completely, and given back as it was."""

from __future__ import annotations

import argparse
import collections
import copy
import datetime
import enum
import math
import pathlib
import pickle
import random
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from mvc_callbacks import canonical, tree  # noqa: E402
from mvc_callbacks.errors import CorruptRecord, UnsupportedTensor  # noqa: E402
from mvc_callbacks.snapshot import Snapshot  # noqa: E402
from mvc_callbacks.tensors import State, Tensor, weights_digest  # noqa: E402
from mvc_callbacks.torch_state import StagingBuffers, rebuild, snapshot, to_torch  # noqa: E402


def stored(state: State) -> State:
    """Return the state as it comes from a store: read-only bytes elsewhere, sorted by name."""
    tensors = {
        name: Tensor(each.dtype, each.shape, memoryview(bytes(each.data)))
        for name, each in sorted(state.tensors.items())
    }
    return State(tensors, tied=state.tied)


def json_again(told: Any) -> Any:
    return canonical.decode(canonical.encode(told), what="test")


def through(checkpoint: dict[str, Any], **options: Any) -> dict[str, Any]:
    """Take a snapshot, write it, and make the checkpoint of it again."""
    taken = snapshot(checkpoint, **options)
    return rebuild(
        stored(taken.weights),
        {name: tree.decode(json_again(each)) for name, each in taken.extra.items()},
        json_again(taken.tree),
        None if taken.tree_tensors is None else stored(taken.tree_tensors),
    )


def assert_same(one: Any, other: Any, path: str = "") -> None:
    """Compare with types, the order of keys, and bits."""
    if path == ".state_dict":  # a dict of another kind, in another order: torch does not care
        one, other = dict(sorted(one.items())), dict(sorted(other.items()))
    assert type(one) is type(other), path
    if isinstance(one, torch.Tensor):
        assert (one.dtype, one.shape) == (other.dtype, other.shape), path
        first, second = (
            each.detach().cpu().contiguous().reshape(-1).view(torch.uint8) for each in (one, other)
        )
        assert torch.equal(first, second), path
    elif isinstance(one, dict):
        assert list(one) == list(other), path
        for key in one:
            assert_same(one[key], other[key], f"{path}.{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), path
        for index, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f"{path}.{index}")
    else:
        assert one == other or (one != one and other != other), path


class Tied(nn.Module):
    """A module with tied weights, a frozen part, and buffers that are kept and not kept."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.body = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("scale", torch.tensor(2.0))
        self.register_buffer("cache", torch.zeros(3), persistent=False)


def digest_of(state: State) -> str:
    return weights_digest(
        (name, each.dtype, each.shape, each.digest()) for name, each in state.tensors.items()
    )


def test_a_whole_training_state_comes_back_as_it_was() -> None:
    module = Tied()
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=10)
    module.body(torch.randn(5, 4)).sum().backward()
    optimizer.step()
    scheduler.step()
    checkpoint = {
        "epoch": 3,
        "state_dict": module.state_dict(),
        "optimizer_states": [optimizer.state_dict()],
        "lr_schedulers": [scheduler.state_dict()],
        "MixedPrecision": torch.amp.GradScaler("cpu").state_dict(),
        "random": {"python": random.getstate(), "torch": torch.get_rng_state()},
        "callbacks": {
            "EarlyStopping{'monitor': 'x'}": {"best_score": torch.tensor(math.inf), "wait_count": 0}
        },
        "when": datetime.timedelta(seconds=3),
        "a": {5: (1, {2}), "x": collections.OrderedDict(b=1, a=2)},
    }
    for options in ({"copy": True}, {"copy": False}, {"copy": True, "module": module}):
        back = through(checkpoint, **options)
        assert_same(checkpoint, back)
        assert back["state_dict"]._metadata["body.1"] == {"version": 2}
        assert snapshot(checkpoint, **options).untold == ()
    fresh = Tied()
    fresh.load_state_dict(back["state_dict"])
    again = torch.optim.AdamW(fresh.parameters(), lr=0.5)
    again.load_state_dict(back["optimizer_states"][0])
    assert_same(again.state_dict(), optimizer.state_dict())


def test_the_groups_tell_what_trains() -> None:
    module = Tied()
    groups = snapshot({"state_dict": module.state_dict()}, module=module).weights.groups
    assert {name for name, group in groups.items() if group == "buffer"} == {
        "scale",
        "body.1.running_mean",
        "body.1.running_var",
        "body.1.num_batches_tracked",
    }
    assert {name for name, group in groups.items() if group == "frozen"} == {"frozen.weight", "frozen.bias"}
    assert groups["head.weight"] == groups["embed.weight"] == "train"
    assert snapshot({"state_dict": module.state_dict()}).weights.groups == {}


@pytest.mark.parametrize("copied", [True, False])
def test_bad_input_26_tied_weights_are_taken_once_and_tied_again(copied: bool) -> None:
    module = Tied()
    taken = snapshot({"state_dict": module.state_dict()}, copy=copied)
    assert taken.weights.tied == (("embed.weight", "head.weight"),)
    assert taken.weights.tensors["embed.weight"] is taken.weights.tensors["head.weight"]
    back = through({"state_dict": module.state_dict()}, copy=copied)["state_dict"]
    assert back["embed.weight"].data_ptr() == back["head.weight"].data_ptr()
    assert back["frozen.bias"].data_ptr() != back["body.0.bias"].data_ptr()


def test_what_only_looks_tied_is_not() -> None:
    base = torch.arange(16.0)
    views = {
        "a": base[:4],
        "b": base[4:8],
        "c": base[:4].view(2, 2),
        "d": base[:4].view(torch.int32),
        "e": base[:0],
        "f": base[:0],
        "g": base.view(4, 4).t(),
        "h": base.view(4, 4),
    }
    taken = snapshot({"state_dict": views})
    assert taken.weights.tied == ()
    assert_same({"state_dict": views}, rebuild(taken.weights))


def test_bad_input_32_only_slices_are_copied() -> None:
    buffers = StagingBuffers()
    taken = snapshot({"state_dict": {"a": torch.zeros(1_000_000)[5:10]}}, buffers=buffers)
    taken.release()
    assert buffers.held == 64


def test_bad_input_37_a_copy_is_one_moments_state() -> None:
    numpy = pytest.importorskip("numpy")
    weight, moment, array = torch.ones(100), torch.ones(10), numpy.ones(10_000)
    checkpoint = {"state_dict": {"w": weight}, "m": moment, "array": array, "list": [1]}
    taken = snapshot(checkpoint)
    before = digest_of(taken.weights)
    weight.mul_(2)
    moment.mul_(2)
    array *= 2
    checkpoint["list"].append(2)
    assert digest_of(taken.weights) == before
    assert taken.tree_tensors is not None
    back = rebuild(taken.weights, None, taken.tree, taken.tree_tensors)
    assert float(back["m"].sum()) == 10
    assert float(back["array"].sum()) == 10_000
    assert back["list"] == [1]


def test_memory_is_used_again_only_after_its_release() -> None:
    buffers = StagingBuffers()

    def take(value: float) -> Snapshot:
        return snapshot({"state_dict": {"w": torch.full((1000,), value)}}, buffers=buffers)

    def place(taken: Snapshot) -> int:
        return torch.frombuffer(taken.weights.tensors["w"].data, dtype=torch.uint8).data_ptr()

    one, two = take(1.0), take(2.0)
    assert place(one) != place(two)
    assert digest_of(one.weights) == digest_of(take(1.0).weights)
    first = place(one)
    one.release()
    one.release()
    three, four = take(3.0), take(4.0)
    assert place(three) == first
    assert place(four) != first
    for each in (two, three, four):
        each.release()
    assert buffers.held == 2 * 4032


def test_memory_that_has_become_too_small_is_let_go() -> None:
    buffers = StagingBuffers()
    for size in (1000, 2000, 500, 3000):
        snapshot({"state_dict": {"w": torch.zeros(size)}}, buffers=buffers).release()
    assert buffers.held == 12_032


def test_memory_for_staging_copies_and_pickles_as_empty() -> None:
    buffers = StagingBuffers()
    snapshot({"state_dict": {"w": torch.zeros(100)}}, buffers=buffers).release()
    assert pickle.loads(pickle.dumps(buffers)).held == copy.deepcopy(buffers).held == 0


def test_nan_and_infinity_are_found_in_weights_of_any_layout() -> None:
    good = {
        "w": torch.randn(4, 4),
        "i": torch.tensor([2**31 - 1]),
        "e": torch.zeros(0),
        "h": torch.ones(3).half(),
    }
    for copied in (True, False):
        assert not snapshot({"state_dict": good, "x": torch.tensor(math.nan)}, copy=copied).nonfinite()
        for value in (math.nan, math.inf):
            bad = torch.randn(4, 4)
            bad[1, 2] = value
            for spoiled in (bad, bad.t(), bad[1:, 1:], bad.bfloat16(), bad.to(torch.complex64).conj()):
                assert snapshot({"state_dict": {**good, "bad": spoiled}}, copy=copied).nonfinite()


def test_views_and_odd_tensors_in_a_state_dict_are_kept_by_value() -> None:
    wave = torch.complex(torch.randn(3, 4), torch.randn(3, 4))
    values = {
        "transposed": torch.randn(3, 4).t(),
        "expanded": torch.randn(1, 3).expand(5, 3),
        "last": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
        "conj": wave.conj(),
        "neg": wave.conj().imag,
        "zero": torch.zeros(0, 3),
        "scalar": torch.tensor(-0.0),
        "bf16": torch.randn(3).bfloat16(),
        "f8": torch.randn(5).to(torch.float8_e4m3fn),
        "bool": torch.tensor([True]),
        "u16": torch.tensor([1], dtype=torch.uint16),
        "c128": wave.to(torch.complex128),
        "grad": torch.randn(3, requires_grad=True),
        "parameter": nn.Parameter(torch.randn(2)),
    }
    for copied in (True, False):
        back = through({"state_dict": values}, copy=copied)["state_dict"]
        for name, value in values.items():
            plain = value.detach()
            assert torch.equal(
                back[name].float() if name == "f8" else back[name], plain.float() if name == "f8" else plain
            )
            back[name].zero_()  # writable


@pytest.mark.parametrize("name", ["", "__metadata__", "a/b", "é😀", "\x00", "$tensor", "../x", "a.b"])
def test_bad_input_34_any_name_comes_back(name: str) -> None:
    back = through({"state_dict": {name: torch.ones(1), name + "_": {"extra": 1}}})["state_dict"]
    assert set(back) == {name, name + "_"}
    back = through({"state_dict": {}, "x": {name: torch.ones(1)}})
    assert list(back["x"]) == [name]


def test_names_that_cannot_be_written_are_refused() -> None:
    for name in ("\ud800", 5):
        with pytest.raises(UnsupportedTensor, match="name"):
            snapshot({"state_dict": {name: torch.ones(1)}})


def test_bad_input_28_a_tensor_that_cannot_be_kept_is_refused_in_the_weights_and_named_elsewhere() -> None:
    sparse = torch.eye(3).to_sparse()
    with pytest.raises(UnsupportedTensor, match=r"'layer.weight'.*sparse"):
        snapshot({"state_dict": {"layer.weight": sparse}})
    taken = snapshot({"state_dict": {}, "mine": [sparse]})
    assert taken.untold == ("mine.0: torch.Tensor",)


def test_bad_input_36_extra_state_of_any_kind_is_kept_with_the_weights() -> None:
    extra = {"scale": torch.tensor([1.5, 2.5]), "history": (1, {2: b"x"}), "path": pathlib.Path("a")}
    values = {"w": torch.ones(2), "m._extra_state": extra, "n._extra_state": 5, "o._extra_state": lambda: 0}
    taken = snapshot({"state_dict": values})
    assert set(taken.weights.tensors) == {"w"}
    assert taken.untold[0].startswith("state_dict.o._extra_state: ")
    back = through({"state_dict": values})["state_dict"]
    assert_same(back["m._extra_state"], extra)
    assert back["n._extra_state"] == 5
    assert isinstance(back["o._extra_state"], tree.Tagged)


def test_to_torch_reaches_into_plain_containers() -> None:
    one = Tensor("F32", (1,), memoryview(b"\x00\x00\x80\x3f"))
    back = to_torch({"a": [one, (one, 5)]})
    assert_same(back, {"a": [torch.ones(1), (torch.ones(1), 5)]})


class Colour(enum.Enum):
    RED = 1


def test_hyperparameters_of_any_kind_never_stop_a_snapshot() -> None:
    omegaconf = pytest.importorskip("omegaconf")
    cycle: list[Any] = []
    cycle.append(cycle)
    told = {
        "lr": 0.1,
        "fn": lambda: 0,
        "cls": nn.ReLU,
        "path": pathlib.Path("/x"),
        "colour": Colour.RED,
        "dtype": torch.bfloat16,
        "cfg": omegaconf.OmegaConf.create({"b": [1], "a": {"c": None}}),
        "ns": argparse.Namespace(x=1),
        "cycle": cycle,
        "module": nn.Linear(2, 2),
        "generator": torch.Generator(),
        "api_key": "hunter2",
    }
    checkpoint = {"state_dict": {}, "hyper_parameters": told}
    taken = snapshot(checkpoint, masked=lambda path, key, value: key == "api_key")
    assert b"hunter2" not in canonical.encode(taken.tree)
    back = through(checkpoint)["hyper_parameters"]
    assert list(back) == list(told)
    for name in ("lr", "path", "dtype", "cfg", "ns", "api_key"):
        assert_same(back[name], told[name])
    assert dict(tree.find_markers(back)).keys() == {"fn", "cls", "colour", "cycle.0", "module", "generator"}


def test_a_checkpoint_without_weights_is_refused() -> None:
    with pytest.raises(ValueError, match="state_dict"):
        snapshot({"model": {}})


def test_a_tree_that_is_no_checkpoint_is_refused() -> None:
    for told in (5, [], {}, {"state_dict": 5}):
        with pytest.raises(CorruptRecord):
            rebuild({}, None, told, {})


def test_weights_alone_have_no_tree() -> None:
    taken = snapshot({"state_dict": {"w": torch.ones(1)}})
    assert (taken.tree, taken.tree_tensors, taken.weights_of) == (None, None, "training")
    assert list(rebuild(taken.weights)) == ["state_dict"]


def real_checkpoint(path: pathlib.Path, *callbacks: Any) -> Any:
    """Train for a moment with Lightning and return what it writes."""
    L = pytest.importorskip("lightning.pytorch")
    from lightning.pytorch.demos.boring_classes import BoringModel

    class Model(BoringModel):
        def __init__(self, rate: float = 0.1, sizes: tuple[int, ...] = (1, 2)) -> None:
            super().__init__()
            self.save_hyperparameters()

        def validation_step(self, batch: Any, index: int) -> None:
            self.log("val_loss", self(batch).sum())

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.AdamW(self.parameters(), lr=self.hparams.rate)
            scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=100)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    trainer = L.Trainer(
        max_epochs=2,
        limit_train_batches=3,
        limit_val_batches=1,
        accelerator="cpu",
        logger=False,
        default_root_dir=path,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[L.callbacks.ModelCheckpoint(path), *callbacks],
    )
    trainer.fit(Model())
    (written,) = path.glob("*.ckpt")
    return torch.load(written, weights_only=False)


@pytest.mark.lightning
def test_a_real_checkpoint_of_lightning_comes_back_as_it_was(tmp_path: pathlib.Path) -> None:
    callbacks = pytest.importorskip("lightning.pytorch.callbacks")
    checkpoint = real_checkpoint(tmp_path, callbacks.EarlyStopping("val_loss"))
    assert {
        "loops",
        "callbacks",
        "optimizer_states",
        "lr_schedulers",
        "hyper_parameters",
    } <= checkpoint.keys()
    taken = snapshot(checkpoint)
    assert (taken.untold, taken.weights_of, taken.nonfinite()) == ((), "training", False)
    assert_same(checkpoint, through(checkpoint))


@pytest.mark.lightning
def test_a_real_checkpoint_with_averaged_weights_comes_back_as_it_was(tmp_path: pathlib.Path) -> None:
    averaging = pytest.importorskip("lightning.pytorch.callbacks.weight_averaging")
    checkpoint = real_checkpoint(
        tmp_path, averaging.WeightAveraging(multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn())
    )
    assert {"current_model_state", "averaging_state"} <= checkpoint.keys()
    taken = snapshot(checkpoint)
    assert (taken.untold, taken.weights_of) == ((), "average")
    assert_same(checkpoint, through(checkpoint))


def test_a_large_block_is_used_again_for_a_state_that_grew_a_little() -> None:
    """Memory that was touched before is filled in half the time; the loops' counters must not cost that."""
    buffers = StagingBuffers()
    block = buffers.acquire(70_000_000)  # its pages are not touched here
    buffers.give_back(block)
    assert buffers.acquire(70_100_000) is block
