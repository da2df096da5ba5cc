"""Hyperparameters: gathered, told, recalled, shown."""

from __future__ import annotations

import argparse
import dataclasses
import enum
import hashlib
import json
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest

from mvc_callbacks import canonical, masking
from mvc_callbacks.errors import CorruptRecord, Misconfigured
from mvc_callbacks.hyperparameters import as_mapping, find_markers, flat, gather, hiding, recall, tell
from mvc_callbacks.markers import Masked, Tagged, Untold


def _back(given: Any, **options: Any) -> dict[str, Any]:
    """Tell, write, read and recall what a user gave."""
    told = canonical.decode(canonical.encode(tell(gather(explicit=given), **options)), what="it")
    return flat(recall(told))


class _Kind(enum.Enum):
    A = 1


@dataclasses.dataclass
class _Config:
    lr: float = 0.1
    depth: int = 2


def test_what_json_knows_and_what_it_does_not_come_back() -> None:
    given = {
        "lr": 0.1,
        "betas": (0.9, 0.999),
        "root": Path("/data"),
        "steps": {1: "a", 2: "b"},
        "none": None,
        "n": 2**70,
    }
    assert _back(given) == given


@pytest.mark.parametrize(
    "given",
    [
        {"lr": 1},
        argparse.Namespace(lr=1),
        SimpleNamespace(lr=1),
        dataclasses.make_dataclass("C", [("lr", int)])(1),
    ],
)
def test_every_way_to_give_them_is_taken(given: Any) -> None:
    assert as_mapping(given) == {"lr": 1}
    assert _back(given) == {"lr": 1}
    assert as_mapping(None) == {}


def test_bad_input_40_pydantic_and_omegaconf_are_taken() -> None:
    pydantic = pytest.importorskip("pydantic")
    assert _back(pydantic.create_model("C", lr=(float, 0.1))()) == {"lr": 0.1}
    omegaconf = pytest.importorskip("omegaconf")
    assert _back(omegaconf.OmegaConf.create({"lr": 0.1, "again": "${lr}"})) == {"lr": 0.1, "again": 0.1}


@pytest.mark.parametrize("given", [[1], "lr=1", 3, _Config])
def test_what_has_no_names_is_refused_with_what_to_do(given: Any) -> None:
    with pytest.raises(Misconfigured, match="hyperparameters="):
        as_mapping(given)
    assert isinstance(_back(given)["hyperparameters"], Untold)  # but it stops no training


def test_bad_input_40_odd_values_become_markers_and_nothing_is_raised() -> None:
    class Loud:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    cycle: dict[str, Any] = {}
    cycle["self"] = cycle
    back = _back(
        {
            "f": lambda: 0,
            "loud": Loud(),
            "cycle": cycle,
            "kind": _Kind.A,
            "type": Loud,
            "config": _Config(),
            "bad": "\udc80",
        }
    )
    assert set(find_markers(back)) == {"f", "loud", "cycle.self", "kind", "type", "config"}
    assert isinstance(back["kind"], Tagged)


def test_a_list_that_holds_itself_or_another_many_times_costs_no_other_value() -> None:
    itself: list[Any] = []
    itself.append(itself)
    many: list[Any] = []
    for _ in range(40):  # a million million values, were each looked at where it stands
        many = [many, many]
    back = _back({"itself": itself, "lr": 0.1})
    assert set(find_markers(back)) == {"itself.0"}
    assert back["lr"] == 0.1
    assert not masking.masked("many", "many", many)


def test_a_mapping_that_cannot_be_told_is_a_marker_and_can_still_be_read() -> None:
    told = tell({"module": MappingProxyType({"lr": 1}), "given": {"seed": 2}})
    back = recall(told)
    assert isinstance(back["module"]["hyperparameters"], Untold)
    assert flat(back)["seed"] == 2


def test_bad_input_41_secrets_are_masked_and_settings_are_not() -> None:
    given = {"api_key": "abc", "max_tokens": 5, "token": 7, "pad_token": "<pad>", "db": "postgres://u:p@h/x"}
    told = tell(given)
    assert "abc" not in json.dumps(told) and "u:p" not in json.dumps(told)
    back = flat(recall(told))
    assert back == {"api_key": Masked(), "max_tokens": 5, "token": 7, "pad_token": "<pad>", "db": Masked()}


@pytest.mark.parametrize("pattern", ["root", "paths.root", "paths.*", "given.paths.root", "pa*.ro*"])
def test_bad_input_41_what_is_excluded_is_not_recorded(pattern: str) -> None:
    told = tell({"paths": {"root": "/home/me"}, "lr": 1}, exclude=[pattern])
    assert "/home/me" not in json.dumps(told)
    assert flat(recall(told)) == {"paths": {"root": Masked()}, "lr": 1}


def test_a_name_excludes_no_other_name() -> None:
    assert _back({"lr": 1, "lrs": 2, "x": {"y": 3}}, exclude=["lr", "y*"]) == {
        "lr": Masked(),
        "lrs": 2,
        "x": {"y": 3},
    }


def test_bad_input_40_a_text_of_ten_megabytes_is_told_by_its_length_and_digest() -> None:
    text = "x" * 10_000_000
    told = tell({"text": text, "lr": 1})
    assert len(json.dumps(told)) < 2000
    marker = flat(recall(told))["text"]
    assert isinstance(marker, Untold)
    assert "10000000" in marker.text and hashlib.sha256(text.encode()).hexdigest() in marker.text


def test_many_values_are_capped_by_leaving_out_the_largest() -> None:
    given = {"a": [[float(n) for n in range(10_000)] for _ in range(40)], "b": list(range(50)), "lr": 1}
    told = tell(given)
    assert len(canonical.encode(told)) < 1_000_000
    back = flat(recall(told))
    assert back["lr"] == 1 and back["b"] == given["b"]
    assert isinstance(back["a"], Untold) and "sha256" in back["a"].text


def test_a_fault_is_recorded_in_the_place_of_the_values(monkeypatch: pytest.MonkeyPatch) -> None:
    from mvc_callbacks import hyperparameters

    def fails(*_: Any, **__: Any) -> Any:
        raise RuntimeError("unheard of")

    monkeypatch.setattr(hyperparameters.tree, "encode", fails)
    assert find_markers(_back({"lr": 1})) == ["hyperparameters"]


def test_module_and_datamodule_and_the_given_ones_are_kept_apart_and_shown_together() -> None:
    module = SimpleNamespace(hparams={"lr": 0.1, "width": 4, "batch_size": 1}, _hparams_name="kwargs")
    module._hparams = module.hparams
    data = SimpleNamespace(hparams={"batch_size": 8, "root": "/data", "width": 4})
    told = tell(gather(module, data, {"lr": 0.2, "note": "mine"}))
    recalled = recall(told)
    assert recalled["module"] == {"lr": 0.1, "width": 4, "batch_size": 1}
    assert recalled["module_meta"]["hparams_name"] == "kwargs"
    assert flat(recalled) == {
        "lr": 0.2,
        "width": 4,
        "batch_size": 1,
        "note": "mine",
        "datamodule.batch_size": 8,
        "root": "/data",
    }


def test_a_module_whose_hparams_raise_is_told_as_such() -> None:
    class Odd:
        @property
        def hparams(self) -> Any:
            raise RuntimeError("not today")

    assert find_markers(flat(recall(tell(gather(Odd()))))) == ["hyperparameters"]
    assert tell(gather()) == {} == tell(None) and flat(recall({})) == {}


def test_lightnings_hparams_are_told_as_its_checkpoint_holds_them() -> None:
    lightning = pytest.importorskip("lightning.pytorch")

    class Model(lightning.LightningModule):  # type: ignore[misc,name-defined]
        def __init__(self, width: int = 3, api_key: str = "abc") -> None:
            super().__init__()
            self.save_hyperparameters()

    model = Model(width=5)
    model.hparams.width = 6  # as the tuner does; the checkpoint holds what is there now
    recalled = recall(tell(gather(model)))
    assert recalled["module"] == {"width": 6, "api_key": Masked()}
    assert recalled["module_meta"]["hparams_name"] == "kwargs"
    assert recalled["module_meta"]["class"].endswith("Model")


def test_a_checkpoint_hides_what_the_record_hides() -> None:
    hidden = hiding(["root", "net.*"])
    assert hidden("hyper_parameters.root", "root", "/home/me")
    assert hidden("datamodule_hyper_parameters.net.width", "width", 3)
    assert hidden("callbacks.Hub.token", "token", "abc")
    assert not hidden("callbacks.root", "root", "/home/me")
    assert not hidden("hyper_parameters", "hyper_parameters", {"root": 1})


def test_small_tensors_are_told_where_the_caller_can_make_them_neutral() -> None:
    torch = pytest.importorskip("torch")
    from mvc_callbacks.torch_tensors import from_neutral, to_neutral

    given = {
        "weights": torch.tensor([0.5, 2.0], dtype=torch.bfloat16),
        "large": torch.zeros(100_000),
        "sparse": torch.zeros(3).to_sparse(),
        "both": [torch.tensor(1)],
    }
    told = canonical.decode(canonical.encode(tell(given, inline=to_neutral)), what="it")
    back = flat(recall(told, inline=from_neutral))
    assert torch.equal(back["weights"], given["weights"])
    assert back["both"] == [torch.tensor(1)]
    assert set(find_markers(back)) == {"large", "sparse"}
    assert "weights" in find_markers(_back(given))


@pytest.mark.parametrize("told", [None, [], {"module": 3}, {"given": {"$nonsense": 1}}])
def test_what_was_never_told_is_refused(told: Any) -> None:
    with pytest.raises(CorruptRecord):
        recall(told)


def test_hparams_that_are_a_namespace_are_told_by_name() -> None:
    for kind in (argparse.Namespace, SimpleNamespace):
        assert flat(recall(tell(gather(SimpleNamespace(hparams=kind(lr=0.1)))))) == {"lr": 0.1}


def test_what_the_command_line_of_lightning_notes_is_kept_beside_and_not_shown() -> None:
    given = {"lr": 0.1, "_instantiator": "lightning.pytorch.cli.instantiate_module", "_class_path": 5}
    module = SimpleNamespace(hparams=given, _hparams=given, _hparams_name="kwargs")
    recalled = recall(tell(gather(module)))
    assert recalled["module_meta"]["instantiator"] == "lightning.pytorch.cli.instantiate_module"
    assert "class_path" not in recalled["module_meta"]
    assert flat(recalled) == {"lr": 0.1}


def test_one_value_that_is_too_large_is_told_by_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    from mvc_callbacks import hyperparameters

    monkeypatch.setattr(hyperparameters, "_LARGEST", 200)
    told = flat(recall(tell(gather(explicit={"only": list(range(100))}))))
    assert isinstance(told["only"], Untold) and "too large: 300 bytes of JSON" in told["only"].text


def test_names_of_both_that_cannot_be_compared_are_shown_apart() -> None:
    np = pytest.importorskip("numpy")
    shown = flat(
        {
            "module": {"weights": np.arange(3), "lr": 1, "_class_path": "x.Model"},
            "datamodule": {"weights": np.arange(3), "lr": 1, "_class_path": "x.Data"},
        }
    )
    assert sorted(shown) == ["datamodule.weights", "lr", "weights"]
