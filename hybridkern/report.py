"""``python -m hybridkern.report``: what runs here, and why; the first thing to put into a bug report."""

from __future__ import annotations

import os
import platform

import numpy
import torch

import hybridkern
from hybridkern._extension import cuda_architectures, cuda_library, cuda_toolkit, extension, nodes


def _versions() -> dict[str, str]:
    return {
        "hybridkern": hybridkern.__version__,
        "python": f"{platform.python_version()} ({platform.python_implementation()})",
        "torch": str(torch.__version__),
        "numpy": numpy.__version__,
        "system": f"{platform.system()} {platform.machine()}",
    }


def _build() -> dict[str, str]:
    if extension.module is None:
        return {"extension": f"none: {extension.reason}"}
    return {str(key): str(value) for key, value in extension.module.build_info().items()}


def _cpu() -> dict[str, str]:
    in_use = "none (plain PyTorch)" if extension.module is None else str(extension.module.instruction_set())
    return {
        "instruction set in use": in_use,
        "autograd": nodes.reason if nodes.module else f"Python functions: {nodes.reason}",
        "instruction set of torch": torch.backends.cpu.get_cpu_capability(),
        "threads of torch": f"{torch.get_num_threads()} of {os.cpu_count()} cores",
    }


def _cuda() -> dict[str, str]:
    seen = "none"
    if torch.cuda.is_available():
        seen = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    return {
        "architectures built in": cuda_architectures(),
        "toolkit": cuda_toolkit(),
        "library": cuda_library().reason,
        "devices that torch sees": seen,
    }


def _backends() -> dict[str, str]:
    return {
        name: f"{'available' if status.available else 'not available'}: {status.reason}"
        for name, status in hybridkern.backends().items()
    }


def report() -> str:
    """Backends with reasons, the CPU instruction set, CUDA architectures, versions and threads, as aligned text."""
    sections = {
        "backends": _backends(),
        "cpu": _cpu(),
        "cuda": _cuda(),
        "extension": _build(),
        "versions": _versions(),
    }
    width = max(len(key) for section in sections.values() for key in section)
    lines = []
    for title, section in sections.items():
        lines.append(title)
        lines += [f"  {key:<{width}}  {value}" for key, value in section.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    print(report())
