"""The CUDA library as setup.py builds it: PTX of its sources, and the static reports of the code made of that."""

from __future__ import annotations

import importlib.util
import os
from functools import cache
from pathlib import Path
from types import ModuleType

from tests.evidence.emu.build import BUILD, build_key
from tests.evidence.nvcc import assemble, compile_cuda, nvcc_version
from tests.evidence.static.report import Report, cubin_reports
from tests.evidence.toolchain import ROOT

OPERATORS = (  # registered parts
    "affine_coupling_forward",
    "affine_coupling_backward",
    "affine_coupling_backward_from_output",
    "rounding_coupling_forward",
    "rounding_coupling_backward",
    "discretized_logistic_forward",
    "discretized_logistic_backward",
)

SOURCES = tuple(str(path.relative_to(ROOT)) for path in sorted((ROOT / "csrc").glob("*/cuda.cu")))
THREADS = 128  # of a block: block_threads in csrc/cuda/rows.cuh


@cache
def setup() -> ModuleType:
    """setup.py as a module."""
    spec = importlib.util.spec_from_file_location("hybridkern_setup", ROOT / "setup.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def architectures() -> tuple[str, ...]:
    """What the library's PTX is translated for when it is built, such as ``sm_80``."""
    return tuple(f"sm_{number}" for number in setup().CUDA_ARCHITECTURES)


@cache
def ptx_of(source: str) -> bytes:
    """The PTX that the library is built of: one for all architectures, by setup.py's own options; kept in ``build``."""
    extension = setup().cuda_extension(str(setup().cuda_home()))
    options = [option for option in extension.extra_compile_args["nvcc"] if not option.startswith("-gencode")]
    options += [f"-I{folder}" for folder in extension.include_dirs]
    kept = BUILD / build_key(nvcc_version(), *options) / f"{Path(source).parent.name}.ptx"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        part = kept.with_suffix(f".{os.getpid()}.part")
        part.write_bytes(compile_cuda(source, setup().CUDA_PTX, "ptx", tuple(options)))
        part.replace(kept)
    return kept.read_bytes()


@cache
def reports_of(source: str, target: str) -> dict[str, Report]:
    """Reports of the kernels of a source, by mangled name."""
    return cubin_reports(assemble(ptx_of(source), target), target, THREADS)
