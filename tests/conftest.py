"""What every test stands on: no store of the user's, no cache of the user's, one thread for each worker."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import sys
import time
from functools import cache
from pathlib import Path

# A shell lets a job in the background ignore Ctrl-C, and so all processes that its tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Before torch or numpy is imported by any test: two pytest workers on two cores, one thread each.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The benchmarks are no part of the package. At the end, so that an installed package goes before its sources.
sys.path.append(str(Path(__file__).parent.parent))

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "mvc",
    deadline=None,  # a busy machine is no counter-example
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("mvc")

_LIGHTNING = {"lightning", "pytorch_lightning"}
_FRAMEWORKS = {*_LIGHTNING, "keras", "numpy", "tensorflow", "torch", "transformers"}
_ROOMS = {
    "mvc_callbacks.keras": "keras",
    "mvc_callbacks.lightning": "lightning",
    "mvc_callbacks.pytorch_lightning": "pytorch_lightning",
    "mvc_callbacks.torch_state": "torch",
    "mvc_callbacks.torch_tensors": "torch",
}
_IMPORT = re.compile(r"^(?P<indent>[ \t]*)(?:import|from)[ \t]+(?P<module>[\w.]+)", re.MULTILINE)


@cache
def _imports(test: Path, *, nested: bool) -> frozenset[str]:
    """Say which frameworks a test file imports: at its top, or anywhere."""
    found = set()
    for match in _IMPORT.finditer(test.read_text("utf-8")):
        if nested or not match["indent"]:
            found.add(_ROOMS.get(match["module"], match["module"].partition(".")[0]))
    return frozenset(found & _FRAMEWORKS)


def _installed(name: str) -> bool:
    found = importlib.util.find_spec(name)
    # A folder such as tests/lightning would pass for a namespace package, which has no origin.
    return found is not None and found.origin is not None


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave out what cannot be imported, so that the core's tests run where no framework is installed."""
    if collection_path.suffix != ".py" or collection_path.name == "conftest.py":
        return None
    return True if any(not _installed(name) for name in _imports(collection_path, nested=False)) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what imports Lightning, so that the session with the oldest one finds it without being told."""
    for item in items:
        if _imports(item.path, nested=True) & _LIGHTNING:
            item.add_marker("lightning")


@pytest.fixture(autouse=True)
def _nothing_of_the_user(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the user's store and cache out of the tests, and the tests out of them."""
    monkeypatch.delenv("MVC_STORE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Five images of cats and five of dogs."""
    folder = tmp_path / "images"
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for number in range(5):
            (folder / name / f"{number}.png").write_bytes(f"{name} {number}".encode())
    return folder


@pytest.fixture
def aged(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, old enough to be remembered; that takes a hundredth of a second here, and two otherwise."""
    from mvc_callbacks import digests_cache, stamps

    for module in (digests_cache, stamps):
        monkeypatch.setattr(module, "YOUNG", 10_000_000)
    time.sleep(0.05)
    return folder
