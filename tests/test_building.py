"""Building models from recorded hyperparameters."""

from __future__ import annotations

import argparse
import dataclasses
import enum
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest

from mvc_callbacks import canonical
from mvc_callbacks.building import build
from mvc_callbacks.errors import Misconfigured, MissingHyperparameters
from mvc_callbacks.hyperparameters import gather, tell

L = pytest.importorskip("lightning.pytorch")
torch = pytest.importorskip("torch")


def _told(module: Any = None, datamodule: Any = None, given: Any = None, **options: Any) -> Any:
    return canonical.decode(canonical.encode(tell(gather(module, datamodule, given), **options)), what="it")


class Mode(enum.Enum):
    FAST = "fast"
    SLOW = "slow"


@dataclasses.dataclass
class Block:
    width: int = 2
    mode: Mode = Mode.FAST


class Plain(L.LightningModule):  # type: ignore[misc]
    def __init__(self, width: int = 3, betas: tuple[float, ...] = (0.9, 0.99), token: str = "") -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layer = torch.nn.Linear(width, 1)


class Typed(L.LightningModule):  # type: ignore[misc]
    def __init__(
        self,
        mode: Mode,
        block: Block,
        act: Callable[..., Any] = torch.nn.ReLU,
        root: Path | None = None,
        by_default: Any = Mode.FAST,
        kind: Literal["a", "b"] = "a",
    ) -> None:
        super().__init__()
        self.save_hyperparameters()


class Wrapped(L.LightningModule):  # type: ignore[misc]
    def __init__(self, cfg: Any, extra: int = 1) -> None:
        super().__init__()
        self.save_hyperparameters(cfg)
        self.layer = torch.nn.Linear(cfg.width, 1)
        self.extra = extra


class Late(L.LightningModule):  # type: ignore[misc]
    def __init__(self, width: int) -> None:
        super().__init__()
        self.save_hyperparameters()

    def configure_model(self) -> None:
        self.layer = torch.nn.Linear(self.hparams.width, 1)


def test_a_lightning_class_comes_back_with_its_hyperparameters() -> None:
    model = build(Plain, _told(Plain(width=7, betas=(0.5, 0.6))))
    assert (model.layer.in_features, model.hparams.betas) == (7, (0.5, 0.6))


def test_pytorch_lightnings_own_namespace_is_known_too() -> None:
    pl = pytest.importorskip("pytorch_lightning")

    class Other(pl.LightningModule):  # type: ignore[misc,name-defined]
        def __init__(self, width: int = 3) -> None:
            super().__init__()
            self.save_hyperparameters()

    assert build(Other, _told(Other(5))).hparams.width == 5


def test_the_same_is_built_as_lightning_itself_builds(tmp_path: Path) -> None:
    for model, kind in ((Plain(width=7), Plain), (Wrapped(_config(width=4)), Wrapped), (Late(6), Late)):
        trainer = L.Trainer(logger=False, enable_checkpointing=False, barebones=True)
        trainer.strategy.connect(model)
        checkpoint = trainer._checkpoint_connector.dump_checkpoint(weights_only=True)
        model.configure_model()
        checkpoint["state_dict"] = model.state_dict()
        torch.save(checkpoint, tmp_path / "stock.ckpt")
        stock = kind.load_from_checkpoint(tmp_path / "stock.ckpt", weights_only=False)
        ours = build(kind, _told(model))
        assert dict(ours.hparams) == dict(stock.hparams)
        assert str(ours) == str(stock)


def _config(**values: Any) -> Any:
    return pytest.importorskip("omegaconf").OmegaConf.create(values)


def test_names_that_the_class_does_not_accept_are_dropped() -> None:
    told = _told(Plain(width=7))
    told["module"] = {"width": 7, "gone_since": 1}
    assert build(Plain, told).layer.in_features == 7


def test_a_class_with_keyword_arguments_gets_all_that_it_saved() -> None:
    class Open(L.LightningModule):  # type: ignore[misc]
        def __init__(self, **kwargs: Any) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.got = kwargs

    assert build(Open, _told(Open(a=1, b=2), given={"note": "no argument"})).got == {"a": 1, "b": 2}


def test_hyperparameters_of_one_object_are_wrapped_again() -> None:
    omegaconf = pytest.importorskip("omegaconf")
    model = build(Wrapped, _told(Wrapped(_config(width=4, inner={"lr": 0.1}))))
    assert isinstance(model.hparams, omegaconf.DictConfig) and model.hparams.inner.lr == 0.1
    model = build(Wrapped, _told(Wrapped(argparse.Namespace(width=5))))
    assert model.layer.in_features == 5


def test_overrides_reach_into_wrapped_hyperparameters() -> None:
    told = _told(Wrapped(_config(width=4, hub={"token": "abc"})))
    with pytest.raises(MissingHyperparameters, match=r'overrides=\{"cfg.hub.token": ...\}'):
        build(Wrapped, told)
    for overrides in ({"cfg.hub.token": "x"}, {"hub.token": "x"}):
        assert build(Wrapped, told, overrides).hparams.hub.token == "x"
    assert build(Wrapped, told, {"width": 9, "hub": {}, "extra": 3}).extra == 3
    assert build(Wrapped, told, {"cfg": _config(width=2)}).layer.in_features == 2


def test_a_configuration_is_one_again_after_its_secrets_were_given() -> None:
    omegaconf = pytest.importorskip("omegaconf")

    class Inner(L.LightningModule):  # type: ignore[misc]
        def __init__(self, cfg: Any, lr: float = 0.1) -> None:
            super().__init__()
            self.save_hyperparameters()

    told = _told(Inner(_config(hub={"token": "abc", "size": 3})))
    model = build(Inner, told, {"cfg.hub.token": "x"})
    assert isinstance(model.hparams.cfg, omegaconf.DictConfig) and model.hparams.cfg.hub.token == "x"
    assert build(lambda cfg, lr: cfg.hub, told, {"cfg.hub.token": "x"}).size == 3


def test_configure_model_is_called() -> None:
    assert build(Late, _told(Late(6))).layer.in_features == 6


def test_a_masked_value_is_never_passed_nor_replaced_by_a_default() -> None:
    told = _told(Plain(token="hf_abc"))
    with pytest.raises(MissingHyperparameters, match=r'token \(masked.*overrides=\{"token": \.\.\.\}'):
        build(Plain, told)
    assert build(Plain, told, {"token": "new"}).hparams.token == "new"
    told = _told(Plain(width=5), exclude=["width"])
    with pytest.raises(MissingHyperparameters, match="width"):
        build(Plain, told)


def test_a_value_that_could_not_be_told_is_never_passed() -> None:
    class Odd(L.LightningModule):  # type: ignore[misc]
        def __init__(self, net: Any, depth: Any = None) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.net = net

    told = _told(Odd(torch.nn.Linear(1, 1), depth={"deep": [lambda: 0]}))
    with pytest.raises(MissingHyperparameters) as raised:
        build(Odd, told)
    assert '"net": ..., "depth.deep.0": ...' in str(raised.value) and "Linear" in str(raised.value)
    assert build(Odd, told, {"net": 1, "depth.deep.0": 2}).hparams.depth == {"deep": [2]}


def test_a_value_that_was_never_recorded_is_asked_for() -> None:
    class Silent(L.LightningModule):  # type: ignore[misc]
        def __init__(self, width: int) -> None:
            super().__init__()
            self.width = width

    with pytest.raises(MissingHyperparameters, match=r"save_hyperparameters\(\)"):
        build(Silent, _told(Silent(3)))
    assert build(Silent, _told(Silent(3), given={"width": 3, "note": "x"})).width == 3
    assert build(Silent, _told(Silent(3)), {"width": 4}).width == 4


def test_what_the_constructor_got_wins_over_what_was_noted() -> None:
    assert build(Plain, _told(Plain(width=7), given={"width": 99})).layer.in_features == 7


def test_an_unknown_override_is_refused() -> None:
    with pytest.raises(Misconfigured, match=r"depth.*width"):
        build(Plain, _told(Plain()), {"depth": 1})
    with pytest.raises(Misconfigured, match="nothing recorded"):
        build(Wrapped, _told(Wrapped(_config(width=4))), {"width.x": 1})


def test_types_that_the_class_names_come_back() -> None:
    model = Typed(Mode.SLOW, Block(5, Mode.SLOW), root=Path("/x"))
    hparams = build(Typed, _told(model)).hparams
    assert hparams.mode is Mode.SLOW and hparams.block == Block(5, Mode.SLOW)
    assert hparams.act is torch.nn.ReLU and hparams.root == Path("/x") and hparams.by_default is Mode.FAST


def test_a_class_that_is_not_the_default_has_to_be_given() -> None:
    told = _told(Typed(Mode.SLOW, Block(), act=torch.nn.GELU))
    with pytest.raises(MissingHyperparameters, match="act"):
        build(Typed, told)
    assert build(Typed, told, {"act": torch.nn.GELU}).hparams.act is torch.nn.GELU


class Configured(L.LightningModule):  # type: ignore[misc]
    def __init__(
        self,
        width: int = 2,
        mode: Mode = Mode.FAST,
        block: Block | None = None,
        betas: tuple[float, float] = (0.9, 0.99),
        act: str = "torch.nn.ReLU",
        net: torch.nn.Module | None = None,
        make: Callable[..., Any] | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.args = (width, mode, block, betas, act, net, make)


def _from_cli(arguments: list[str], **options: Any) -> Any:
    pytest.importorskip("jsonargparse")
    from lightning.pytorch.cli import LightningCLI

    return LightningCLI(Configured, run=False, args=arguments, save_config_callback=None, **options).model


def test_what_lightning_cli_built_comes_back() -> None:
    arguments = ["--model.width=5", "--model.mode=SLOW", "--model.block.width=7", "--model.betas=[0.1,0.2]"]
    model = _from_cli(arguments)
    assert "_instantiator" in model.hparams
    again = build(Configured, _told(model))
    assert again.args == model.args == (5, Mode.SLOW, Block(7), (0.1, 0.2), "torch.nn.ReLU", None, None)


def test_the_class_of_a_subclass_mode_is_checked_and_never_imported() -> None:
    name = f"{Configured.__module__}.{Configured.__qualname__}"
    model = _from_cli([f"--model={name}", "--model.width=6"], subclass_mode_model=True)
    told = _told(model)
    assert model.hparams["_class_path"] == name == told["module_meta"]["class_path"]
    assert build(Configured, told).args[0] == 6
    with pytest.raises(Misconfigured, match=r"Configured, not .*Plain"):
        build(Plain, told)
    told["module"] = {"_class_path": "__main__.Configured", "_instantiator": "os.system"}
    assert build(Configured, told).args[0] == 2  # it was the script then


def test_nothing_that_a_store_names_is_imported_or_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "trap_module.py").write_text("raise SystemExit('it was imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    for value in (
        {"class_path": "trap_module.Trap", "init_args": {}},
        "trap_module.Trap",
        [{"class_path": "os.system"}],
    ):
        for name in ("net", "make", "block"):
            told = {"module": {"_instantiator": "lightning.pytorch.cli.instantiate_module", name: value}}
            with pytest.raises((MissingHyperparameters, TypeError), match=name):
                build(Configured, canonical.decode(canonical.encode(told), what="it"))
    assert build(Configured, told, {"block": None}).args[2] is None
    assert "trap_module" not in sys.modules


def test_an_override_is_passed_as_it_is() -> None:
    model = _from_cli(["--model.make=torch.relu"])
    told = _told(model)
    with pytest.raises(MissingHyperparameters, match="make"):
        build(Configured, told)
    assert build(Configured, told, {"make": torch.nn.Linear}).args[-1] is torch.nn.Linear
    assert build(Configured, told, {"make": "text"}).args[-1] == "text"


class Net(torch.nn.Module):  # type: ignore[misc,name-defined]
    def __init__(self, width: int, depth: int = 1, weights: Any = None) -> None:
        super().__init__()
        self.width, self.depth, self.weights = width, depth, weights


def test_a_torch_module_is_built_by_its_signature() -> None:
    net = build(Net, _told(given={"width": 4, "lr": 0.1}))
    assert (net.width, net.depth) == (4, 1)
    assert build(Net, _told(Plain(width=8))).width == 8  # a submodule of what was trained
    with pytest.raises(MissingHyperparameters, match="width"):
        build(Net, _told(given={"lr": 0.1}))


def test_small_tensors_come_back_as_tensors() -> None:
    from mvc_callbacks.torch_tensors import to_neutral

    weights = torch.tensor([0.5, 2.0])
    net = build(Net, _told(given={"width": 4, "weights": weights}, inline=to_neutral))
    assert torch.equal(net.weights, weights)
    with pytest.raises(MissingHyperparameters, match="weights"):
        build(Net, _told(given={"width": 4, "weights": weights}))


def test_a_factory_is_called_with_everything() -> None:
    class Data(L.LightningDataModule):  # type: ignore[misc]
        def __init__(self, batch_size: int = 8, root: str = "x") -> None:
            super().__init__()
            self.save_hyperparameters()

    told = _told(Plain(width=7), Data(), {"note": "mine"})
    everything = build(lambda **hyperparameters: hyperparameters, told)
    assert everything == {
        "width": 7,
        "betas": (0.9, 0.99),
        "token": "",
        "note": "mine",
        "batch_size": 8,
        "root": "x",
    }
    # Whoever makes a model need not take what only the datamodule took.
    assert build(lambda width, betas, token, note, root: (width, note, root), told) == (7, "mine", "x")
    assert build(lambda width, **rest: width, told, {"width": 1, "new": 2}) == 1


def test_a_factory_that_cannot_take_them_is_told_how() -> None:
    with pytest.raises(Misconfigured, match=r"lr.*\*\*hyperparameters"):
        build(lambda width: width, _told(given={"width": 1, "lr": 0.1}))
    with pytest.raises(MissingHyperparameters, match="depth"):
        build(lambda width, depth: width, _told(given={"width": 1}))
    assert build(dict, _told(given={"width": 1})) == {"width": 1}


def test_building_imports_no_framework() -> None:
    script = (
        "import sys; from mvc_callbacks.building import build; "
        "print(build(lambda **h: h, {'given': {'lr': 1}}), sorted({'torch', 'lightning'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "{'lr': 1} []"
