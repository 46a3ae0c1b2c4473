"""What the machine is and has; and the compiled kernels, which are built where they were not brought."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from benchmarks._results import ROOT
from benchmarks.gpu.device import Device
from benchmarks.gpu.item import Context, Item
from benchmarks.gpu.rows import SKIPPED
from benchmarks.gpu.sizes import Sizes

COLUMNS = ("value",)
_PACKAGES = ("torch", "triton", "numpy", "pytest", "scipy", "matplotlib", "normflows", "FrEIA", "ninja", "pybind11")
_QUERY = "name,driver_version,memory.total,clocks.max.sm,clocks.max.memory,power.limit,mig.mode.current"


def items(device: Device, sizes: Sizes) -> list[Item]:
    """The facts, each an item; the kernels first, since the others speak of them."""
    facts: dict[str, Callable[[Context], str]] = {
        "kernels": kernels,
        "device": partial(_device, device),
        "nvidia-smi": lambda _: _said("nvidia-smi", f"--query-gpu={_QUERY}", "--format=csv,noheader"),
        "python": lambda _: f"{platform.python_version()}, {sys.executable}",
        "Python.h": lambda _: _header(),
        "packages": lambda _: ", ".join(f"{name} {_version(name)}" for name in _PACKAGES),
        "cuda of torch": lambda _: f"CUDA {torch.version.cuda}, ROCm {torch.version.hip}",
        "cores": lambda _: str(os.cpu_count()),
        **{tool: partial(_tool, tool) for tool in ("gcc", "g++", "nvcc", "ncu", "compute-sanitizer")},
        "report": lambda _: _said(sys.executable, "-m", "hybridkern.report"),
        "copy": _copy,
    }
    return [Item(name, partial(_add, name, fact)) for name, fact in facts.items()]


class MissingError(RuntimeError):
    """A tool that the machine does not have, and that need not be there."""


def _add(name: str, fact: Callable[[Context], str], context: Context) -> None:
    try:
        context.add(name, value=fact(context))
    except MissingError as error:
        context.table.add(name, SKIPPED, str(error))


def _said(*command: str, limit: float = 60) -> str:
    """What a command says, its lines joined.

    Raises:
        MissingError: it is not there.
        RuntimeError: it fails.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, cwd=ROOT, check=False)
    except FileNotFoundError as error:
        raise MissingError(f"{command[0]} is not on PATH") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RuntimeError(f"{command[0]}: {error}") from error
    if done.returncode:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}: {(done.stderr or done.stdout)[-300:]}")
    return " | ".join(line.rstrip() for line in done.stdout.splitlines() if line.strip())


def _tool(name: str, _: Context) -> str:
    found = shutil.which(name)
    if found is None:
        raise MissingError(f"{name} is not on PATH")
    return f"{found}: {_said(found, '--version').split(' | ')[-1]}"


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "missing" if importlib.util.find_spec(name) is None else "(no version)"


def _header() -> str:
    """Where Triton's launchers find Python.h: beside the interpreter, or where C_INCLUDE_PATH says."""
    folders = [sysconfig.get_path("include"), *os.environ.get("C_INCLUDE_PATH", "").split(":")]
    for folder in filter(None, folders):
        if (Path(folder) / "Python.h").exists():
            return str(Path(folder) / "Python.h")
    raise RuntimeError("Python.h was not found: Triton cannot compile its launchers; see `make gpu-kit`")


def _device(device: Device, context: Context) -> str:
    if not device.is_gpu:
        return "pretended: no time means anything"
    p = torch.cuda.get_device_properties(0)
    capability = f"{p.major}.{p.minor}"
    return f"{p.name}, {capability}, {p.multi_processor_count} multiprocessors, {p.total_memory >> 20} MiB"


def _copy(context: Context) -> str:
    from benchmarks.gpu.operators import copy_bandwidth

    return f"{copy_bandwidth(context):.4g} bytes/s read and written"


def kernels(context: Context) -> str:
    """The extension for this Python: brought along, or built here, with as many processes as there are cores."""
    package = ROOT / "hybridkern"
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    missing = [name for name in ("_C", "_cuda") if not (package / f"{name}{suffix}").exists()]
    if not missing or not context.device.is_gpu:
        return "brought along" if not missing else f"{', '.join(missing)} missing"
    environment = {**os.environ, "MAX_JOBS": str(os.cpu_count() or 1), "HYBRIDKERN_REQUIRE_EXT": "1"}
    command = [sys.executable, "setup.py", "build_ext", "--inplace"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=context.time_left(), check=False
    )
    (context.out / "build.log").write_text(done.stdout + done.stderr, encoding="utf-8")
    if done.returncode:
        raise RuntimeError(f"{', '.join(missing)}: not brought, and the build failed (build.log): {done.stderr[-200:]}")
    return f"{', '.join(missing)} built here"
