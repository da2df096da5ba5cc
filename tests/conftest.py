"""What every test stands on: no store of the user's, no cache of the user's, one thread for each worker."""

from __future__ import annotations

import os
import re
from pathlib import Path

# Before torch or numpy is imported by any test: two pytest workers on two cores, one thread each.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "mvc",
    deadline=None,  # a busy machine is no counter-example
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("mvc")

_USES_LIGHTNING = re.compile(
    r"^\s*(?:import|from)\s+(?:lightning|pytorch_lightning|mvc_callbacks\.(?:pytorch_)?lightning)\b",
    re.MULTILINE,
)
_uses_lightning: dict[Path, bool] = {}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what imports Lightning, so that the session with the oldest one finds it without being told."""
    for item in items:
        if item.path not in _uses_lightning:
            _uses_lightning[item.path] = bool(_USES_LIGHTNING.search(item.path.read_text("utf-8")))
        if _uses_lightning[item.path]:
            item.add_marker("lightning")


@pytest.fixture(autouse=True)
def _nothing_of_the_user(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the user's store and cache out of the tests, and the tests out of them."""
    monkeypatch.delenv("MVC_STORE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
