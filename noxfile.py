"""Sessions: each does all of its set-up, so that ``pip install nox && nox -s tests`` is enough.

Environments are kept between calls (``nox -r`` is the default here); delete ``.nox`` to begin afresh.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import nox

nox.needs_version = ">=2024.4.15"
nox.options.default_venv_backend = "virtualenv"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["tests", "lint", "typing"]

ROOT = Path(__file__).parent
TORCH_CPU = "https://download.pytorch.org/whl/cpu"
# What `nox -s coverage` runs beside the tests of the store and of restoring.
UNITS = ["arguments", "bad_inputs", "cli", "code", "copies", "diff", "display", "environment", "expressions"]
UNITS += ["file_digests", "fingerprint", "hidden_state", "hyperparameters", "interrupts", "listings"]
UNITS += ["logger_runs", "masking", "metrics", "odd_sources", "packs", "progress", "random_state"]
UNITS += ["resume_guarantee", "saver", "sources", "tensors", "tree", "urls", "watching", "weight_changes"]
# Of the store, those that break it again and again go where others have been, and take the longest.
REPEATED = ["crowds", "flips", "fuzz_targets", "interleavings", "large", "many_processes", "model"]
REPEATED += ["mutations", "power"]
FUZZED = ["pack", "foreign safetensors", "manifest", "record", "event", "database", "aliases", "format"]
FUZZED += ["tree", "listing", "condition", "text"]
# Two workers of pytest fill two cores; more threads in each would only wait for one another.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


def cpu_wheels(session: nox.Session) -> list[str]:
    """Say where PyTorch's CPU wheels are: on Linux the plain ones bring two gigabytes of CUDA with them.

    Args:
        session: Its environment is looked at; nothing is asked of the network when torch is there already.

    Returns:
        Options for pip; none where the index cannot be reached, or where ``PIP_FIND_LINKS`` names a mirror of
        one's own.
    """
    installed = any(Path(session.virtualenv.location).glob("lib/python*/site-packages/torch/version.py"))
    if installed or sys.platform != "linux" or "PIP_FIND_LINKS" in os.environ:
        return []
    try:
        with urllib.request.urlopen(f"{TORCH_CPU}/torch/", timeout=10):
            return ["--extra-index-url", TORCH_CPU]
    except (urllib.error.URLError, OSError):
        return []


def install(session: nox.Session, *what: str, constraints: str | Path = "constraints.txt") -> None:
    """Install with the exact versions of a constraints file; what is imported is compiled then."""
    session.install("--no-compile", "--constraint", str(constraints), *cpu_wheels(session), *what)


def pytest(session: nox.Session, *args: str, dist: str = "worksteal", **environment: str) -> None:
    """Run pytest on two workers; what follows ``--`` on nox's command line comes last."""
    env = {**ONE_THREAD, **environment}
    session.run("pytest", "-n", "2", "--dist", dist, *args, *session.posargs, env=env)


@nox.session
def demo(session: nox.Session) -> None:
    """Train on real images, look at versions, restore, promote, roll back: with Lightning, then Keras."""
    install(session, ".[lightning,tensorflow]", "scikit-learn", "pillow")
    folder = Path(tempfile.mkdtemp(prefix="mvc-demo-"))
    with session.chdir(folder):
        session.run("python", str(ROOT / "examples/lightning_digits.py"), *session.posargs, env=ONE_THREAD)
        session.run("python", str(ROOT / "examples/keras_digits.py"), env=ONE_THREAD)
    session.log(f"What the demo made is in {folder}; {session.bin}/mvc looks at its store.")


@nox.session
def tests(session: nox.Session) -> None:
    """Run every ordinary test."""
    install(session, ".[test]")
    pytest(session)


@nox.session
def keras(session: nox.Session) -> None:
    """Run the Keras tests, and what both frameworks promise, on TensorFlow and again on torch."""
    install(session, ".[tensorflow,lightning,test_keras]")
    for backend in ("tensorflow", "torch"):
        # A file stays on one worker: its fixtures train models that all of its tests look at.
        pytest(session, "tests/keras_rooms", "tests/test_parity.py", dist="loadfile", KERAS_BACKEND=backend)


@nox.session
def loggers(session: nox.Session) -> None:
    """Run the tests of loggers with W&B (offline) and MLflow (in files) too."""
    install(session, ".[test]", "mlflow-skinny", "wandb")
    pytest(session, "tests/lightning/test_loggers.py")


@nox.session
def jax(session: nox.Session) -> None:
    """Look whether Keras on JAX works: fits, restoring and resuming."""
    install(session, ".[keras]", "hypothesis", "jax", "pytest", "pytest-xdist")
    files = ("tests/keras_rooms/test_keras_fit.py", "tests/keras_rooms/test_keras_restore.py")
    pytest(session, *files, dist="loadfile", KERAS_BACKEND="jax")


@nox.session
def browser(session: nox.Session) -> None:
    """Open reports in a headless Chromium, and click; Chromium itself has to be there."""
    names = ("chromium", "chromium-browser", "google-chrome")
    program = os.environ.get("MVC_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if program is None:
        session.error(
            "there is no Chromium. Debian: apt-get install chromium; Fedora: dnf install chromium; "
            "macOS: brew install --cask chromium. Or name one: MVC_CHROMIUM=/path/of/chrome nox -s browser"
        )
    install(session, ".", "axe-playwright-python", "hypothesis", "playwright", "pytest")
    session.run("pytest", "tests/browser", *session.posargs, env={**ONE_THREAD, "MVC_CHROMIUM": program})


@nox.session
def torture(session: nox.Session) -> None:
    """Break the store in every way, for about an hour; `-- 0.1` does a tenth. Writes docs/reliability.md."""
    install(session, ".[test]")
    share = session.posargs[0] if session.posargs else "1"
    told = Path(tempfile.mkdtemp(prefix="mvc-torture-")) / "figures"
    told.touch()
    began = time.monotonic()
    names = ("faults", "power", "crowds", "interleavings", "flips", "mutations", "model", "losses", "large")
    session.run(
        "pytest",
        "-n",
        "2",
        "--dist",
        "worksteal",
        *(f"tests/store/test_{name}.py" for name in names),
        "tests/lightning/test_kills.py",
        env={**ONE_THREAD, "MVC_TORTURE": share, "MVC_TORTURE_FIGURES": str(told)},
    )
    # Only a run that lost nothing comes here.
    part = "the full counts" if float(share) == 1 else f"{float(share):.0%} of the full counts"
    seconds = str(time.monotonic() - began)
    session.run(
        "python", "tests/store/figures.py", "docs/reliability.md", "figures", str(told), part, seconds
    )


@nox.session
def fuzz(session: nox.Session) -> None:
    """Fuzz each thing that is parsed, led by branches; `-- 1000` does so many runs of each, else 200 000."""
    install(session, ".", "atheris", "hypothesis", "pytest")
    runs = session.posargs[0] if session.posargs else "200000"
    told = Path(tempfile.mkdtemp(prefix="mvc-fuzz-")) / "figures"
    began = time.monotonic()
    for target in FUZZED:
        session.run("python", "tests/store/fuzz.py", target, runs, str(told))
    # Only a run in which every input was accepted or refused comes here.
    seconds = str(time.monotonic() - began)
    script = "tests/store/figures.py"
    session.run("python", script, "docs/reliability.md", "fuzz", str(told), f"{runs} runs of each", seconds)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure versions beside their peers and write docs/benchmarks.md; `-- fit` measures one topic again."""
    install(session, ".[bench]")
    session.run("python", "-m", "benchmarks", "--write", "docs/benchmarks.md", *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """Measure the branches of the rooms that are listed in pyproject.toml: less than all fails."""
    install(session, "--editable", ".[test]", "pytest-cov")
    left_out = [f"--ignore=tests/store/test_{name}.py" for name in REPEATED]
    units = [f"tests/test_{name}.py" for name in UNITS]
    pytest(session, "--cov", "--cov-report=term", *left_out, "tests/store", "tests/restore", *units)


@nox.session
def oldest(session: nox.Session) -> None:
    """Run the Lightning tests with the oldest Lightning that pyproject.toml promises."""
    replaced = (ROOT / "constraints-oldest.txt").read_text("utf-8")
    names = set(re.findall(r"^([A-Za-z0-9._-]+)==", replaced, re.MULTILINE))
    kept = [
        line
        for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines()
        if line.partition("==")[0] not in names
    ]
    merged = Path(session.virtualenv.location) / "constraints.txt"
    merged.write_text("\n".join([*kept, replaced]), "utf-8")
    install(session, ".[test]", constraints=merged)
    pytest(session, "-m", "lightning")


@nox.session
def resume(session: nox.Session) -> None:
    """Interrupt and resume every kind of training in new processes; write docs/resume.md."""
    install(session, ".[test,tensorflow]")
    script = str(ROOT / "tests/lightning/resume_scenarios.py")
    session.run("python", script, str(ROOT / "docs/resume.md"), *session.posargs, env=ONE_THREAD)
    script = str(ROOT / "tests/keras_rooms/keras_resume_scenarios.py")
    for backend in ("torch", "tensorflow"):
        # Adds its rows to the table.
        environment = {**ONE_THREAD, "KERAS_BACKEND": backend}
        session.run("python", script, str(ROOT / "docs/resume.md"), *session.posargs, env=environment)


@nox.session
def core(session: nox.Session) -> None:
    """Run the tests that need no framework where none is installed; `-P 3.10` takes another Python."""
    session.install(".", "hypothesis", "pytest", "pytest-xdist")  # newest ones: users' ranges, any Python
    pytest(session)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, and that imports go downwards only."""
    install(session, "ruff", "import-linter")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("lint-imports")


@nox.session
def typing(session: nox.Session) -> None:
    """Check the types of the package, strictly."""
    install(session, ".[lightning,pytorch_lightning]", "matplotlib", "mypy", "numpy")
    session.run("mypy", *session.posargs)


@nox.session
def build(session: nox.Session) -> None:
    """Build the wheel and the source distribution into dist/."""
    session.install("build")
    shutil.rmtree(ROOT / "dist", ignore_errors=True)
    session.run("python", "-m", "build")
