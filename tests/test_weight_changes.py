"""Promises of the numbers that tell how much weights changed."""

from __future__ import annotations

import json
import math
import struct
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from neutral_store import make_store, snapshot

from mvc_callbacks.cli import mvc
from mvc_callbacks.errors import MissingFramework
from mvc_callbacks.snapshot import Snapshot
from mvc_callbacks.tensors import State, Tensor
from mvc_callbacks.weight_changes import layer_changes, tensor_changes

np = pytest.importorskip("numpy")


def floats(*values: float) -> Tensor:
    return Tensor("F32", (len(values),), memoryview(struct.pack(f"<{len(values)}f", *values)))


def test_change_is_measured_against_what_was() -> None:
    [change] = tensor_changes({"w": floats(3, 4)}, {"w": floats(3, 7)})
    assert (change.relative, change.largest, change.items, change.same) == (3 / 5, 3.0, 2, False)


def test_nothing_is_no_change_and_from_zeros_it_is_infinite() -> None:
    same, new = tensor_changes({"a": floats(1, 2), "b": floats(0, 0)}, {"a": floats(1, 2), "b": floats(0, 1)})
    assert (same.relative, same.largest, same.same) == (0.0, 0.0, True)
    assert new.relative == math.inf and new.largest == 1.0


def test_values_that_are_not_finite_are_counted_and_left_out() -> None:
    nan, inf = float("nan"), float("inf")
    [change] = tensor_changes({"w": floats(1, nan, 2)}, {"w": floats(1, inf, nan)})
    assert change.nonfinite == (1, 2)
    assert (change.items, change.relative, change.largest) == (1, 0.0, 0.0)


def test_tensors_of_other_shapes_and_names_are_not_measured() -> None:
    before = {"w": floats(1, 2), "gone": floats(1), "empty": floats()}
    after = {"w": floats(1), "new": floats(1), "empty": floats()}
    assert [each.name for each in tensor_changes(before, after)] == ["empty"]


def test_large_tensors_are_looked_at_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mvc_callbacks.weight_changes._AT_ONCE", 3)
    [change] = tensor_changes({"w": floats(*range(10))}, {"w": floats(*range(9), 10)})
    assert (change.items, change.largest) == (10, 1.0)


def test_the_tensors_of_a_layer_are_measured_together() -> None:
    before = {"net.0.weight": floats(3, 0), "net.0.bias": floats(0, 4), "scale": floats(1)}
    after = {"net.0.weight": floats(3, 0), "net.0.bias": floats(0, 9), "scale": floats(1)}
    layer, scale = layer_changes(tensor_changes(before, after))
    assert (layer.name, layer.tensors, layer.relative, layer.largest) == ("net.0", 2, 1.0, 5.0)
    assert (scale.name, scale.relative) == ("scale", 0.0)


DTYPES = {
    "BF16": "bfloat16",
    "F16": "float16",
    "F64": "float64",
    "I8": "int8",
    "U16": "uint16",
    "C64": "complex64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
}


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_is_decoded_as_torch_does(dtype: str) -> None:
    torch = pytest.importorskip("torch")
    data = bytes(range(256)) * 8
    tensor = torch.frombuffer(bytearray(data), dtype=torch.uint8).view(getattr(torch, DTYPES[dtype]))
    wide = tensor.to(torch.complex128 if dtype == "C64" else torch.float64)
    finite = torch.isfinite(wide)
    zeros = Tensor(dtype, tuple(tensor.shape), memoryview(bytes(len(data))))
    [change] = tensor_changes({"w": zeros}, {"w": Tensor(dtype, tuple(tensor.shape), memoryview(data))})
    assert change.nonfinite[1] == int((~finite).sum())
    base = 2.0**-127 if dtype == "F8_E8M0" else 0.0  # it has no zero
    assert change.squares[0] == pytest.approx(
        float((wide[finite].abs() - base).abs().square().sum()), rel=1e-9
    )


def told(*arguments: str) -> str:
    result = CliRunner().invoke(mvc, arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_diff_tells_how_much_each_layer_changed(tmp_path: Path) -> None:
    store, _ = make_store(tmp_path / "store")
    run = store.open_run("small", framework="torch")
    for value in (1.0, 1.1):
        run.commit(
            Snapshot(State({"net.0.weight": floats(1, 1), "net.1.weight": floats(value, float("nan"))}))
        )
    text = told("diff", "small/1", "small/2", "--weights", "--store", str(store.path))
    assert "net.0" in text and "10.00%" in text and "█" in text and "1 -> 1" in text
    found = json.loads(told("diff", "small/1", "small/2", "--weights", "--json", "--store", str(store.path)))
    assert [each["name"] for each in found["weights"]["layers"]] == ["net.0", "net.1"]
    assert found["weights"]["values"][1]["nonfinite"] == [1, 1]
    plain = json.loads(told("diff", "small/1", "small/2", "--json", "--store", str(store.path)))
    assert plain["weights"]["values"] is None


def test_diff_of_a_pruned_version_tells_what_the_record_tells(tmp_path: Path) -> None:
    store, _ = make_store(tmp_path / "store")
    store.prune("baseline/1")
    text = told("diff", "baseline/1", "finetune/2", "--weights", "--store", str(store.path))
    assert "not known" in text and "~ lr  0.1 -> 0.01" in text and "c/0.png" in text


def test_diff_across_frameworks_says_that_names_may_differ(tmp_path: Path) -> None:
    store, _ = make_store(tmp_path / "store")
    store.open_run("keras", framework="keras").commit(snapshot(5))
    text = told("diff", "best", "keras", "--weights", "--store", str(store.path))
    assert "of different frameworks (lightning, keras)" in text


def test_diff_tells_what_was_not_committed(tmp_path: Path) -> None:
    store, _ = make_store(tmp_path / "store")
    patch = b"diff --git a/net.py b/net.py\n--- a/net.py\n+++ b/net.py\n@@ -1 +1,2 @@\n-old\n+new\n+\x1b[2J\n"
    record = {"code": {"commit": "c" * 40, "patch": store.put_patch(patch)}}
    store.open_run("dirty", framework="torch", record=record).commit(snapshot(5))
    text = told("diff", "best", "dirty", "--patch", "--store", str(store.path))
    assert "not committed in b\n    net.py  +2 -1" in text
    assert "\n+new\n+\\x1b[2J\n" in text
    assert "+new" not in told("diff", "best", "dirty", "--store", str(store.path))


def test_weights_without_numpy_say_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, _ = make_store(tmp_path / "store")
    monkeypatch.setitem(__import__("sys").modules, "numpy", None)
    result: Any = CliRunner().invoke(mvc, ["diff", "best", "best~1", "--weights", "--store", str(store.path)])
    assert result.exit_code == 2 and "pip install numpy" in result.stderr


def test_halves_of_complex_numbers_and_of_bytes_are_decoded_too() -> None:
    halves = struct.pack("<4e", 3, 4, 0, -1)
    zeros = Tensor("C32", (2,), memoryview(bytes(8)))
    [change] = tensor_changes({"w": zeros}, {"w": Tensor("C32", (2,), memoryview(halves))})
    assert (change.squares[0], change.largest) == (26.0, 5.0)
    # Two in a byte, the lower half first: 0.5, -6.0 and 1.0, 0.0.
    values = Tensor("F4_E2M1X2", (2,), memoryview(bytes([0xF1, 0x02])))
    zeros = Tensor("F4_E2M1X2", (2,), memoryview(bytes(2)))
    done: list[tuple[int, int]] = []
    [change] = tensor_changes({"w": zeros}, {"w": values}, progress=lambda *each: done.append(each))
    assert (change.squares[0], change.largest, done) == (37.25, 6.0, [(2, 2)])


def test_a_machine_that_reads_numbers_the_other_way_round_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "byteorder", "big")
    with pytest.raises(MissingFramework, match="little-endian machines only"):
        tensor_changes({"w": floats(1)}, {"w": floats(2)})
