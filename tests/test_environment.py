"""The environment of a run."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mvc_callbacks import canonical, environment


def test_what_is_told_is_plain_json_and_says_where_training_ran() -> None:
    told = environment.capture()
    assert canonical.decode(canonical.encode(told), what="it") == told
    assert told["python"]["version"] == ".".join(map(str, sys.version_info[:3]))
    assert told["cpu"]["count"] >= 1
    assert told["host"] and told["user"]
    assert "problems" not in told


def test_packages_are_those_that_importlib_finds() -> None:
    found = environment.capture()["packages"]
    for each in importlib.metadata.distributions():
        name = re.sub(r"[-_.]+", "-", each.metadata["Name"]).lower()
        assert name in found
    assert found["tinydb"] == importlib.metadata.version("tinydb")
    assert list(found) == sorted(found)


def test_it_is_told_in_a_moment() -> None:
    environment.capture()
    took = []
    for _ in range(5):
        start = time.perf_counter()
        environment.capture()
        took.append(time.perf_counter() - start)
    assert min(took) < 0.05


def test_no_framework_is_imported_for_it() -> None:
    script = (
        "import sys; from mvc_callbacks import environment; told = environment.capture(); "
        "print(sorted({'torch', 'lightning', 'keras', 'tensorflow', 'jax', 'numpy'} & set(sys.modules)), "
        "told['frameworks'], told['devices'])"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] {} {}"


def test_a_loaded_framework_tells_its_version_and_devices() -> None:
    torch = pytest.importorskip("torch")
    told = environment.capture()
    assert told["frameworks"]["torch"] == str(torch.__version__)
    assert told["devices"]["torch"]["cuda_initialized"] is torch.cuda.is_initialized()


def test_secrets_of_command_line_and_environment_are_not_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", "--hf_token=abc", "\udcff"])
    monkeypatch.setenv("WANDB_API_KEY", "abc")
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    told = environment.capture()
    assert told["argv"] == ["train.py", "--hf_token=***", "\\udcff"]
    assert told["variables"]["SLURM_JOB_ID"] == "77"
    assert "abc" not in json.dumps(told)


def test_a_fault_is_recorded_and_the_rest_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> Any:
        raise KeyError("no such user")

    monkeypatch.setattr(environment.getpass, "getuser", fails)
    monkeypatch.setitem(sys.modules, "tensorflow", SimpleNamespace())
    monkeypatch.setattr(environment, "cpu", fails)
    told = environment.capture()
    assert "user" in told["problems"][0] and "packages" in told
    assert any("devices of tensorflow" in each for each in told["problems"])


def test_a_cuda_that_is_not_in_use_is_not_woken() -> None:
    def wakes() -> Any:
        raise AssertionError("asking for the devices initialises CUDA")

    backends = SimpleNamespace(mps=None, cudnn=None)
    cuda = SimpleNamespace(is_initialized=lambda: False, device_count=wakes, get_device_properties=wakes)
    torch = SimpleNamespace(
        get_num_threads=lambda: 1,
        are_deterministic_algorithms_enabled=lambda: False,
        get_float32_matmul_precision=lambda: "highest",
        version=SimpleNamespace(cuda="12.4"),
        cuda=cuda,
        backends=backends,
    )
    assert environment._torch(torch)["cuda_initialized"] is False


def test_broken_metadata_on_the_path_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "~orch-1.dist-info").mkdir()
    (tmp_path / "odd.egg-info").mkdir()
    (tmp_path / "Old_Thing.egg-info").write_text("Name: Old_Thing\nVersion: 1.5\n")
    (tmp_path / "Nameless.egg-info").write_text("Name: Nameless\n")
    (tmp_path / "My_Thing-2.0.dist-info").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path), str(tmp_path / "gone"), str(tmp_path / "a.zip")])
    assert environment.capture()["packages"] == {"my-thing": "2.0", "old-thing": "1.5"}


def test_a_machine_that_says_less_is_told_by_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails() -> Any:
        raise OSError("no /etc/os-release")

    monkeypatch.setattr(environment.platform, "freedesktop_os_release", fails)
    monkeypatch.setattr(
        environment.platform, "uname", lambda: SimpleNamespace(system="Linux", release="6", machine="x")
    )
    assert environment.capture()["platform"]["distribution"] == ""
    monkeypatch.setattr(
        environment.platform, "uname", lambda: SimpleNamespace(system="Darwin", release="23", machine="arm64")
    )
    assert environment.capture()["platform"] == {"system": "Darwin", "release": "23", "machine": "arm64"}
    info = tmp_path / "cpuinfo"
    monkeypatch.setattr(environment, "Path", lambda path: info)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.delattr(os, "sysconf")
    assert environment.cpu() == {"count": os.cpu_count()}
    info.write_text("processor: 0\n")  # of an ARM, which has no model name
    assert environment.cpu() == {"count": os.cpu_count()}
    info.write_text("processor: 0\nmodel name\t: Fast One\n")
    assert environment.cpu()["model"] == "Fast One"


def test_devices_that_are_in_use_are_told() -> None:
    card = SimpleNamespace(name="Big One", total_memory=2**34, major=9, minor=0)
    cudnn = SimpleNamespace(version=lambda: 90100, deterministic=False, benchmark=True)
    torch = SimpleNamespace(
        get_num_threads=lambda: 1,
        are_deterministic_algorithms_enabled=lambda: False,
        get_float32_matmul_precision=lambda: "highest",
        version=SimpleNamespace(cuda="12.4"),
        cuda=SimpleNamespace(
            is_initialized=lambda: True, device_count=lambda: 1, get_device_properties=lambda index: card
        ),
        backends=SimpleNamespace(mps=SimpleNamespace(is_available=lambda: True), cudnn=cudnn),
    )
    told = environment._torch(torch)
    assert told["cuda_devices"] == [{"name": "Big One", "memory": 2**34, "capability": "9.0"}]
    assert (told["cudnn"], told["cudnn_benchmark"], told["mps"]) == (90100, True, True)


def test_jax_is_asked_for_devices_only_when_it_has_some_already(monkeypatch: pytest.MonkeyPatch) -> None:
    device = SimpleNamespace(platform="tpu", device_kind="v4")
    monkeypatch.setitem(sys.modules, "jax", SimpleNamespace(devices=lambda: [device]))
    ready = [False]
    bridge = SimpleNamespace(backends_are_initialized=lambda: ready[0])
    for module, told in ((None, {"initialized": False}), (bridge, {"initialized": False})):
        monkeypatch.setitem(sys.modules, "jax._src.xla_bridge", module)
        assert environment.capture()["devices"]["jax"] == told
    ready[0] = True
    assert environment.capture()["devices"]["jax"] == {"devices": ["tpu v4"]}
