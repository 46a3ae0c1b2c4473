"""What a figure depends on besides the code, and what must hold before anything is measured."""

from __future__ import annotations

import datetime
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from hybridkern._extension import extension

THREADS = 2
# glibc maps and faults in large temporaries anew at each call; with these it keeps them. The Makefile has the same.
ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "17179869184",
    "MALLOC_TOP_PAD_": "268435456",
}
ALLOCATOR_VARIABLES = tuple(ALLOCATOR)


def started_with() -> dict[str, str]:
    """The environment as this process was started: glibc read its variables then, and never looks again."""
    try:
        entries = Path("/proc/self/environ").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return dict(os.environ)
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)


def refusal(environment: dict[str, str] | None = None) -> str | None:
    """Why nothing can be measured in this process, in words for the user; ``None`` if it can.

    Args:
        environment: the variables the process was started with; by default those it was.
    """
    environment = started_with() if environment is None else environment
    unset = [name for name in ALLOCATOR_VARIABLES if not environment.get(name)]
    if unset:
        return (
            f"the benchmarks need {', '.join(unset)} set before Python starts: without them glibc maps large "
            "temporaries anew at each call, and identical code differs by up to 3x between runs. Start them with "
            '`make bench` (a part of them: make bench BENCH_FLAGS="operators -k glow").'
        )
    if extension.module is None:
        return f"the benchmarks measure the compiled kernels, and there are none: {extension.reason}"
    return None


def with_allocator_settings(module: str, arguments: Sequence[str]) -> None:
    """Starts this process over as ``python -m module arguments`` if it was not started with :data:`ALLOCATOR`."""
    environment = started_with()
    if all(environment.get(name) for name in ALLOCATOR):
        return
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, "-m", module, *arguments], ALLOCATOR | dict(os.environ))


def bf16_unit() -> str | None:
    """The unit of this processor that multiplies bfloat16 matrices: ``"AMX"``, ``"AVX512-BF16"``, or ``None``."""
    if torch.cpu._is_amx_tile_supported():
        return "AMX"
    return "AVX512-BF16" if torch.cpu._is_avx512_bf16_supported() else None


def conditions() -> dict[str, str]:
    """Threads, processor, instruction set of the kernels, version of torch, date: columns of every row of results."""
    level = "none" if extension.module is None else str(extension.module.instruction_set())
    return {
        "threads": str(torch.get_num_threads()),
        "cpu": f"{_cpu_model()} ({os.cpu_count()} cores)",
        "instruction_set": level,
        "torch": str(torch.__version__),
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())
