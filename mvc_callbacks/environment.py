"""The environment of a run: Python, packages, platform, devices, and the command that was given."""

from __future__ import annotations

import getpass
import os
import platform
import re
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mvc_callbacks.masking import without_credentials, without_secrets, words

__all__ = ["capture", "cpu"]

# Variables that change what training computes, or say which job it was. No others are read: the rest is
# nobody's business.
_VARIABLES = sorted(
    words(
        "CI_COMMIT_SHA CI_JOB_ID CI_PIPELINE_ID CUBLAS_WORKSPACE_CONFIG CUDA_LAUNCH_BLOCKING "
        "CUDA_VISIBLE_DEVICES GITHUB_RUN_ID GITHUB_SHA HIP_VISIBLE_DEVICES JOB_ID KERAS_BACKEND LOCAL_RANK "
        "LSB_JOBID MKL_NUM_THREADS NODE_RANK NVIDIA_TF32_OVERRIDE OMP_NUM_THREADS PBS_JOBID PL_GLOBAL_SEED "
        "PYTHONHASHSEED PYTORCH_CUDA_ALLOC_CONF PYTORCH_ENABLE_MPS_FALLBACK RANK RAY_JOB_ID "
        "SLURM_ARRAY_JOB_ID SLURM_ARRAY_TASK_ID SLURM_JOB_ID SLURM_JOB_NAME SLURM_JOB_PARTITION "
        "SLURM_NNODES SLURM_NODEID SLURM_NTASKS SLURM_PROCID SLURM_RESTART_COUNT TF_CUDNN_DETERMINISTIC "
        "TF_DETERMINISTIC_OPS TORCHELASTIC_RUN_ID TORCH_ALLOW_TF32_CUBLAS_OVERRIDE WORLD_SIZE XLA_FLAGS"
    )
)
_FRAMEWORKS = sorted(
    words(
        "torch lightning pytorch_lightning keras tensorflow jax numpy transformers torchvision torchaudio "
        "accelerate peft"
    )
)
_MOST_ARGUMENTS = 1000
_LONGEST = 4096
_VERSION_LINE = re.compile(rb"^Version:[ \t]*(\S+)", re.MULTILINE)


def capture() -> dict[str, Any]:
    """Tell what training runs in, as plain JSON values.

    No framework is imported, and no device is initialised, that is not so already. What cannot be found out
    is left out and named under ``problems``; nothing is raised.

    Returns:
        ``python``, ``platform``, ``host``, ``user``, ``argv``, ``cwd``, ``variables``, ``cpu``, ``packages``
        (normalised name to version), ``frameworks`` (versions as the loaded modules tell them), ``devices``,
        and ``problems``.
    """
    problems: list[str] = []
    told: dict[str, Any] = {}
    parts: Mapping[str, Callable[[], Any]] = {
        "python": _python,
        "platform": _platform,
        "host": socket.gethostname,
        "user": getpass.getuser,
        "argv": _argv,
        "cwd": lambda: _text(str(Path.cwd())),
        "variables": _variables,
        "cpu": cpu,
        "packages": _packages,
        "frameworks": _frameworks,
        "devices": lambda: _devices(problems),
    }
    for name, find in parts.items():
        try:
            told[name] = find()
        except Exception as error:  # nothing of this may stop training; it is recorded instead
            problems.append(_problem(name, error))
    if problems:
        told["problems"] = problems
    return told


def _problem(name: str, error: BaseException) -> str:
    return _text(f"{name}: {type(error).__name__}: {error}"[:300])


def _text(text: str) -> str:
    return str(text)[:_LONGEST].encode("utf-8", "backslashreplace").decode("utf-8")


def _python() -> dict[str, Any]:
    return {
        "version": platform.python_version(),
        "implementation": platform.python_implementation(),
        "executable": _text(sys.executable or ""),
        "build": " ".join(platform.python_build()),
        "interactive": "ipykernel" in sys.modules or hasattr(sys, "ps1"),
    }


def _platform() -> dict[str, Any]:
    # Not platform.platform(): it may start a process to learn the processor's name.
    uname = platform.uname()
    told = {"system": uname.system, "release": uname.release, "machine": uname.machine}
    if uname.system == "Linux":
        try:
            told["distribution"] = _text(platform.freedesktop_os_release().get("PRETTY_NAME", ""))
        except OSError:
            told["distribution"] = ""  # a container without /etc/os-release
    return told


def _argv() -> list[str]:
    return [_text(each) for each in without_secrets(sys.argv[:_MOST_ARGUMENTS])]


def _variables() -> dict[str, str]:
    return {name: _text(without_credentials(os.environ[name])) for name in _VARIABLES if name in os.environ}


def cpu() -> dict[str, Any]:
    """Tell the processors, as plain JSON values."""
    told: dict[str, Any] = {"count": os.cpu_count()}
    if hasattr(os, "sched_getaffinity"):
        told["usable"] = len(os.sched_getaffinity(0))
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        told["memory"] = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    info = Path("/proc/cpuinfo")
    if info.exists():
        with info.open("rb") as file:
            match = re.search(rb"^model name\s*:\s*(.+)$", file.read(4096), re.MULTILINE)
        if match:
            told["model"] = match[1].decode("utf-8", "replace").strip()
    return told


def _packages() -> dict[str, str]:
    """Read names and versions of what is installed from the names of its metadata folders.

    `importlib.metadata` parses a file for each package, which takes some hundred milliseconds in a large
    environment.
    """
    found: dict[str, str] = {}
    for entry in dict.fromkeys(sys.path):
        try:
            names = os.listdir(entry or ".")  # noqa: PTH208 - some hundred Path objects would cost more than the rest
        except OSError:  # a zip file, or a folder that is not there
            continue
        for name in names:
            package = _package(entry or ".", name)
            if package is not None:
                found.setdefault(re.sub(r"[-_.]+", "-", package[0]).lower(), package[1])
    return dict(sorted(found.items()))


def _package(folder: str, name: str) -> tuple[str, str] | None:
    if name.startswith("~"):  # pip's leftovers of a broken removal
        return None
    stem, ending = os.path.splitext(name)  # noqa: PTH122 - as above
    if ending == ".dist-info" and "-" in stem:
        project, _, version = stem.partition("-")
        return _text(project), _text(version)
    if ending == ".egg-info":
        path = Path(folder, name)
        try:
            data = (path / "PKG-INFO" if path.is_dir() else path).read_bytes()[: 64 * 1024]
        except OSError:
            return None
        version_line = _VERSION_LINE.search(data)
        if version_line:
            return _text(stem.partition("-")[0]), version_line[1].decode("utf-8", "replace")
    return None


def _frameworks() -> dict[str, str]:
    told = {}
    for name in _FRAMEWORKS:
        version = getattr(sys.modules.get(name), "__version__", None)
        if version is not None:
            told[name] = _text(str(version))
    return told


def _devices(problems: list[str]) -> dict[str, Any]:
    told: dict[str, Any] = {}
    finders: Mapping[str, Callable[[Any], dict[str, Any]]] = {
        "torch": _torch,
        "tensorflow": _tensorflow,
        "jax": _jax,
    }
    for name, find in finders.items():
        module = sys.modules.get(name)
        if module is None:
            continue
        try:
            told[name] = find(module)
        except Exception as error:  # a half-imported framework, a driver that is not there, another release
            problems.append(_problem(f"devices of {name}", error))
    return told


def _torch(torch: Any) -> dict[str, Any]:
    told: dict[str, Any] = {
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "matmul_precision": torch.get_float32_matmul_precision(),
        "cuda_version": torch.version.cuda,
        "hip_version": getattr(torch.version, "hip", None),
    }
    cuda = torch.cuda
    # Asking an unused CUDA for its devices would initialise it, which takes memory and breaks forked workers.
    told["cuda_initialized"] = bool(cuda.is_initialized())
    if told["cuda_initialized"]:
        told["cudnn"] = torch.backends.cudnn.version()
        told["cudnn_deterministic"] = torch.backends.cudnn.deterministic
        told["cudnn_benchmark"] = torch.backends.cudnn.benchmark
        told["cuda_devices"] = [
            _cuda_device(cuda.get_device_properties(index)) for index in range(cuda.device_count())
        ]
    mps = getattr(torch.backends, "mps", None)
    if mps is not None and mps.is_available():
        told["mps"] = True
    return told


def _cuda_device(properties: Any) -> dict[str, Any]:
    return {
        "name": _text(properties.name),
        "memory": int(properties.total_memory),
        "capability": f"{properties.major}.{properties.minor}",
    }


def _tensorflow(tensorflow: Any) -> dict[str, Any]:
    # Physical devices are listed without being initialised.
    return {
        "devices": [f"{each.device_type} {each.name}" for each in tensorflow.config.list_physical_devices()]
    }


def _jax(jax: Any) -> dict[str, Any]:
    bridge = sys.modules.get("jax._src.xla_bridge")
    ready = getattr(bridge, "backends_are_initialized", None)  # private; without it nothing is asked
    if ready is None or not ready():
        return {"initialized": False}
    return {"devices": [f"{each.platform} {each.device_kind}" for each in jax.devices()]}
