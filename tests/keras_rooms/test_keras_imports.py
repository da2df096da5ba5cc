"""What importing the Keras room costs, and what it says where it cannot work."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from keras_models import BACKEND

HIDE = """
import importlib.abc, importlib.util, sys
class Hidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in HIDDEN:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name in HIDDEN else find(name, package)
sys.meta_path.insert(0, Hidden())
"""


def python(program: str, *hidden: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    environment |= {"PYTHONPATH": str(Path(__file__).parents[2]), "KERAS_HOME": str(folder), **variables}
    text = f"HIDDEN = {set(hidden) or {'nothing'}!r}\n{HIDE}\n{textwrap.dedent(program)}"
    return subprocess.run(
        [sys.executable, "-c", text], env=environment, cwd=folder, capture_output=True, text=True, timeout=120
    )


def test_without_tensorflow_and_with_no_backend_chosen_the_error_says_what_to_do(tmp_path: Path) -> None:
    ended = python("import mvc_callbacks.keras", "tensorflow", folder=tmp_path)
    last = ended.stderr.strip().splitlines()[-1]
    assert "MissingFramework" in last
    assert "pip install tensorflow" in last
    assert "KERAS_BACKEND=" in last


def test_a_chosen_backend_that_is_not_installed_is_named(tmp_path: Path) -> None:
    ended = python("import mvc_callbacks.keras", "jax", folder=tmp_path, KERAS_BACKEND="jax")
    assert "the backend jax was chosen" in ended.stderr
    (tmp_path / "keras.json").write_text('{"backend": "jax"}')
    ended = python("import mvc_callbacks.keras", "jax", folder=tmp_path)
    assert "the backend jax was chosen" in ended.stderr


def test_without_keras_the_error_says_so(tmp_path: Path) -> None:
    ended = python("import mvc_callbacks.keras", "keras", folder=tmp_path)
    assert "Keras is not installed" in ended.stderr


def test_keras_can_be_imported_after_the_error(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    program = """
        import os
        try:
            import mvc_callbacks.keras
        except ImportError:
            os.environ["KERAS_BACKEND"] = "torch"
        from mvc_callbacks.keras import VersionCheckpoint
        import keras
        print(keras.backend.backend())
    """
    ended = python(program, "tensorflow", folder=tmp_path)
    assert ended.stdout.strip() == "torch", ended.stderr


def test_a_fit_on_torch_imports_no_tensorflow_and_the_other_way_round(tmp_path: Path) -> None:
    program = """
        import sys
        import numpy as np
        from mvc_callbacks.keras import VersionCheckpoint
        import keras
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        model.fit(np.zeros((4, 2)), np.zeros((4, 1)), verbose=0, callbacks=[VersionCheckpoint("versions")])
        from mvc_callbacks import VersionStore, restore_version
        restore_version("latest", model, store="versions")
        VersionStore("versions").state_dict("latest")
        print([name for name in ("tensorflow", "torch", "jax", "lightning") if name in sys.modules])
    """
    # Keras itself imports TensorFlow for its data pipelines where that is installed; so it is hidden here.
    hidden = {"torch": ("tensorflow", "jax"), "tensorflow": ("torch", "jax"), "jax": ("torch", "tensorflow")}[
        BACKEND
    ]
    ended = python(program, *hidden, folder=tmp_path, KERAS_BACKEND=BACKEND)
    assert ended.stdout.strip() == f"['{BACKEND}']", ended.stderr


def test_the_package_imports_no_keras(tmp_path: Path) -> None:
    program = """
        import sys
        import mvc_callbacks
        from mvc_callbacks import VersionStore, restore_version
        print("keras" in sys.modules, "numpy" in sys.modules)
    """
    assert python(program, folder=tmp_path).stdout.split() == ["False", "False"]
