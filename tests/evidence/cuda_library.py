"""The sources of the CUDA library, and the static reports of their kernels."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch

from tests.evidence.nvcc import compile_cuda
from tests.evidence.static.report import Report, cubin_reports
from tests.evidence.toolchain import ROOT

SOURCES = tuple(str(path.relative_to(ROOT)) for path in sorted((ROOT / "csrc" / "cuda").glob("*.cu")))
THREADS = 128  # of a block: block_threads in csrc/cuda/rows.cuh
_INCLUDE = Path(torch.__file__).parent / "include"
_FLAGS = (
    "--expt-relaxed-constexpr",
    "-DTORCH_TARGET_VERSION=0x020d000000000000",
    "-DUSE_CUDA",
    f"-I{_INCLUDE}",
    f"-I{_INCLUDE}/torch/csrc/api/include",
)


@cache
def reports_of(source: str, target: str) -> dict[str, Report]:
    """Reports of the kernels of a source, by mangled name."""
    return cubin_reports(compile_cuda(source, target, "cubin", _FLAGS), target, THREADS)
