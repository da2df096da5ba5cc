"""Restoring into torch modules: the same bits, or nothing changed and a message that says why."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from kit import Net, same_bits, version_of
from torch import nn

from mvc_callbacks import MVCWarning, VersionStore, lineage, restore_version
from mvc_callbacks.errors import (
    CorruptObject,
    IncompatibleModel,
    Misconfigured,
    MissingHyperparameters,
    MissingObject,
    PrunedVersion,
    StoreNotFound,
    UnknownRef,
)


@pytest.fixture
def store(tmp_path: Path) -> VersionStore:
    return VersionStore(tmp_path / "versions")


def unchanged(model: nn.Module, before: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(each, before[name]) for name, each in model.state_dict().items())


def copy_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: each.clone() for name, each in model.state_dict().items()}


def test_an_instance_gets_the_same_bits_in_place_and_keeps_its_mode(store: VersionStore) -> None:
    saved = Net()
    version_of(store, saved)
    model = Net().train()
    weight = model.head.weight
    assert restore_version("latest", model, store=store.path) is model
    assert same_bits(model, saved)
    assert model.head.weight is weight
    assert weight.requires_grad
    assert model.training


def test_a_class_is_built_from_the_recorded_hyperparameters_and_returns_in_evaluation_mode(
    store: VersionStore,
) -> None:
    saved = Net(width=7)
    version_of(store, saved, width=7, lr=0.1)
    model = restore_version("latest", Net, store=store)
    assert isinstance(model, Net)
    assert same_bits(model, saved)
    assert not model.training


def test_a_factory_gets_all_hyperparameters(store: VersionStore) -> None:
    seen: dict[str, Any] = {}

    def make(width: int, lr: float) -> Net:
        seen.update(width=width, lr=lr)
        return Net(width)

    saved = Net(5)
    version_of(store, saved, width=5, lr=0.25)
    assert same_bits(restore_version("latest", make, store=store), saved)
    assert seen == {"width": 5, "lr": 0.25}


def test_overrides_replace_recorded_hyperparameters(store: VersionStore) -> None:
    version_of(store, Net(5), width=5, depth=2)
    assert restore_version("latest", Net, store=store, overrides={"depth": 9}).depth == 9
    with pytest.raises(Misconfigured, match="overrides"):
        restore_version("latest", Net(5), store=store, overrides={"depth": 9})


def test_a_hyperparameter_that_could_not_be_told_is_never_passed(store: VersionStore) -> None:
    version_of(store, Net(5), width=5, dropout=lambda: 0.5)
    with pytest.raises(MissingHyperparameters, match=r"dropout.*overrides"):
        restore_version("latest", Net, store=store)
    assert restore_version("latest", Net, store=store, overrides={"dropout": 0.5}).encoder[2].p == 0.5


def test_a_masked_hyperparameter_is_never_passed(store: VersionStore) -> None:
    def make(width: int, api_key: str) -> Net:
        raise AssertionError(api_key)

    version_of(store, Net(5), width=5, api_key="sk-123")
    with pytest.raises(MissingHyperparameters, match="api_key"):
        restore_version("latest", make, store=store)


def test_a_factory_that_makes_no_model_is_told(store: VersionStore) -> None:
    version_of(store, Net())
    with pytest.raises(Misconfigured, match="dict"):
        restore_version("latest", dict, store=store)
    with pytest.raises(Misconfigured, match="int"):
        restore_version("latest", 3, store=store)


def test_a_url_names_store_and_version(store: VersionStore) -> None:
    saved = Net()
    version_of(store, saved)
    assert same_bits(restore_version(f"mvc://{store.path}@run/1", Net()), saved) is True


def test_bad_input_66_another_architecture_changes_nothing_and_lists_what_differs(
    store: VersionStore,
) -> None:
    version_of(store, Net(width=4))
    other = Net(width=5)
    other.extra = nn.Linear(2, 2)
    del other.encoder[2]
    before = copy_of(other)
    with pytest.raises(IncompatibleModel) as caught:
        restore_version("latest", other, store=store)
    text = str(caught.value)
    assert "extra.weight" in text
    assert "head.weight: shape [2, 4] in the version, [2, 5] in the model" in text
    assert unchanged(other, before)


def test_bad_input_67_a_failure_midway_leaves_the_model_as_it_was(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    version_of(store, Net())
    model = Net()
    before = copy_of(model)

    def fail(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("the device is gone")

    monkeypatch.setattr(model.head, "_load_from_state_dict", fail)  # the encoder is assigned by then
    with pytest.raises(IncompatibleModel, match="the device is gone"):
        restore_version("latest", model, store=store)
    assert unchanged(model, before)


def test_strict_false_loads_what_fits_and_lists_the_rest(store: VersionStore) -> None:
    saved = Net(width=4)
    version_of(store, saved)
    other = Net(width=4)
    other.head = nn.Linear(4, 7)
    with pytest.warns(MVCWarning, match=r"(?s)7 were loaded.*head\.weight.*head\.bias") as caught:
        restore_version("latest", other, store=store, strict=False)
    assert caught[0].filename == __file__
    assert same_bits(other.encoder, saved.encoder)
    origin = lineage.origin(other)
    assert origin is not None
    assert origin.shared == "7/9"


def test_strict_false_refuses_when_nothing_fits(store: VersionStore) -> None:
    version_of(store, Net())
    with pytest.raises(IncompatibleModel, match="nothing fits"):
        restore_version("latest", nn.Conv2d(1, 1, 3), store=store, strict=False)


def test_a_prefix_fills_a_submodule(store: VersionStore) -> None:
    saved = Net()
    version_of(store, saved)
    encoder = Net().encoder
    restore_version("latest", encoder, store=store, prefix="encoder.")
    assert same_bits(encoder, saved.encoder)
    with pytest.raises(IncompatibleModel, match="encoder"):
        restore_version("latest", encoder, store=store, prefix="backbone.")


def test_a_change_of_dtype_is_refused_unless_asked_for(store: VersionStore) -> None:
    saved = Net()
    version_of(store, saved)
    model = Net().to(torch.bfloat16)
    before = copy_of(model)
    with pytest.raises(IncompatibleModel, match=r"torch.float32 in the version, torch.bfloat16"):
        restore_version("latest", model, store=store)
    assert unchanged(model, before)
    restore_version("latest", model, store=store, cast=True)
    assert torch.equal(model.head.weight, saved.head.weight.to(torch.bfloat16))


def test_names_of_compiled_and_wrapped_modules_match(store: VersionStore) -> None:
    saved = Net()
    version_of(store, saved)
    compiled = torch.compile(Net(), backend="eager")
    restore_version("latest", compiled, store=store)
    assert same_bits(compiled._orig_mod, saved)

    class Wrapper(nn.Module):  # as DistributedDataParallel names things
        def __init__(self) -> None:
            super().__init__()
            self.module = Net()

    wrapper = Wrapper()
    restore_version("latest", wrapper, store=store)
    assert same_bits(wrapper.module, saved)
    version_of(store, wrapper)
    restore_version("latest", plain := Net(), store=store)
    assert same_bits(plain, saved)


def test_a_lazy_module_takes_its_shapes_from_the_version(store: VersionStore) -> None:
    saved = nn.Sequential(nn.Linear(3, 2))
    version_of(store, saved)
    lazy = nn.Sequential(nn.LazyLinear(2))
    restore_version("latest", lazy, store=store)
    assert same_bits(lazy, saved)


def test_a_model_on_the_meta_device_is_told_to_be_materialised(store: VersionStore) -> None:
    version_of(store, Net())
    with torch.device("meta"):
        model = Net()
    with pytest.raises(IncompatibleModel, match="to_empty"):
        restore_version("latest", model, store=store)


def test_bad_input_36_extra_state_comes_back(store: VersionStore) -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(1, 1)
            self.seen: Any = {"words": []}

        def get_extra_state(self) -> Any:
            return self.seen

        def set_extra_state(self, state: Any) -> None:
            self.seen = state

    saved = Counting()
    saved.seen = {"words": ["a", "b"], "pairs": {(1, 2): 3.5}}
    version_of(store, saved)
    assert restore_version("latest", Counting(), store=store).seen == saved.seen


def test_damage_is_found_before_anything_is_assigned(store: VersionStore) -> None:
    version = version_of(store, Net())
    model = Net()
    before = copy_of(model)
    path = next(Path(store.path, "objects").rglob("*.safetensors"))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptObject, match=path.name):
        restore_version("latest", model, store=store)
    assert unchanged(model, before)
    restore_version(version, model, store=store, verify=False)  # who trusts the disk gets what is there
    assert not unchanged(model, before)
    path.unlink()
    with pytest.raises(MissingObject):
        restore_version("latest", model, store=store)


def test_bad_input_69_an_unknown_ref_lists_what_there_is(store: VersionStore) -> None:
    version_of(store, Net())
    with pytest.raises(UnknownRef, match="run"):
        restore_version("nothing", Net(), store=store)
    with pytest.raises(StoreNotFound, match=str(store.path.parent)):
        restore_version("latest", Net(), store=store.path.parent / "elsewhere")


def test_bad_input_70_a_pruned_version_says_when_by_which_policy_and_names_the_nearest(
    store: VersionStore,
) -> None:
    version_of(store, Net())
    run = store.open_run("other", framework="torch", record={})
    from mvc_callbacks.torch_state import snapshot

    for _ in range(3):
        run.commit(snapshot({"state_dict": Net().state_dict()}))
    store.prune("other/2", policy="save_top_k=1")
    with pytest.raises(PrunedVersion, match=r"save_top_k=1.*other/1"):
        restore_version("other/2", Net(), store=store)


def test_the_object_remembers_its_origin_and_a_copy_does_not(store: VersionStore) -> None:
    version = version_of(store, Net())
    model = restore_version("latest", Net(), store=store)
    origin = lineage.origin(model)
    assert origin is not None
    assert (origin.id, origin.shared) == (version.id, None)
    assert lineage.origin(copy.deepcopy(model)) is None


def test_training_state_of_a_torch_model_is_the_trainers_business(store: VersionStore) -> None:
    version_of(store, Net())
    with pytest.raises(Misconfigured, match=r"ckpt_path='mvc://run/1'"):
        restore_version("latest", Net(), store=store, training_state=True)


@pytest.mark.parametrize("hook", [False, True], ids=["plain", "loads itself"])
def test_both_ways_of_assigning_bring_every_bit_of_every_tensor(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch, hook: bool
) -> None:
    from mvc_callbacks import copies

    def make() -> torch.nn.Module:
        model = torch.nn.Sequential(
            torch.nn.Conv2d(3, 5, 3), torch.nn.BatchNorm2d(5), torch.nn.Embedding(7, 4), torch.nn.Linear(4, 4)
        )
        model[3].weight = torch.nn.Parameter(torch.rand(4, 4).T)  # not contiguous
        model.register_buffer("empty", torch.zeros(0, 3))
        model.register_buffer("whole", torch.arange(5))
        if hook:
            model.register_load_state_dict_post_hook(lambda module, keys: None)
        return model

    monkeypatch.setattr(copies, "_PIECE", 16)
    saved, model = make(), make()
    saved[0].weight.data[0, 0, 0, 0] = float("nan")
    store.commit(saved.state_dict(), run="bits")
    kept = model.state_dict(keep_vars=True)
    before = {name: each._version for name, each in kept.items()}
    assert restore_version("bits", model, store=store) is model
    for name, each in model.state_dict(keep_vars=True).items():
        assert each is kept[name]
        assert (
            each.detach().contiguous().numpy().tobytes()
            == saved.state_dict()[name].contiguous().numpy().tobytes()
        )
        assert each._version > before[name] or not each.numel()


def test_a_plain_module_is_copied_into_without_its_own_loader(
    store: VersionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What tells this stands on private names of torch; if they move, restoring gets slower in silence."""
    from mvc_callbacks import torch_assign

    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4))
    store.commit(model.state_dict(), run="plain")
    called: list[str] = []
    monkeypatch.setattr(torch_assign, "_load", lambda *_: called.append("loaded"))
    restore_version("plain", model, store=store)
    assert called == []
    for change in (
        lambda made: made.register_load_state_dict_pre_hook(lambda *_: None),
        lambda made: made.to(torch.float64),
        lambda made: setattr(made[0], "_load_from_state_dict", None),
    ):
        called.clear()
        other = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4))
        change(other)
        restore_version("plain", other, store=store, cast=True)
        assert called == ["loaded"]
