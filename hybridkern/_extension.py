"""Loads the compiled extension ``hybridkern._C`` and keeps the reason when that fails.

Importing the module registers the CPU kernels of the operators with PyTorch's dispatcher; their schemas are defined
in :mod:`hybridkern.ops`. A missing extension is no error: the package then runs on the reference backend.

The CUDA kernels lie in a library of their own, ``hybridkern._cuda``, which :mod:`hybridkern.ops` loads where torch sees
a device.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import torch

from hybridkern import _env
from hybridkern._nvml import machine

LEAST_TORCH = (2, 10)  # has the stable ABI that the extension was built for; below, Python and Triton alone run


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("+")[0].split(".")[:2])


class Extension(NamedTuple):
    """The loaded module, or ``None`` and the reason why there is none."""

    module: ModuleType | None
    reason: str


def _load() -> Extension:
    if _env.NO_EXTENSION:
        return Extension(None, "switched off by HYBRIDKERN_NO_EXT")
    try:
        module = importlib.import_module("hybridkern._C")
    except ModuleNotFoundError as error:
        if error.name != "hybridkern._C":
            raise
        why = "no C++ compiler at install time, a failed build, or HYBRIDKERN_NO_EXT=1"
        return Extension(None, f"the extension was not built ({why})")
    except ImportError as error:
        if _release(torch.__version__) < LEAST_TORCH:
            return Extension(None, f"the extension needs torch 2.10 or newer, and this is {torch.__version__}")
        return Extension(None, f"the extension does not load with torch {torch.__version__}: {error}")
    level = module.instruction_set()
    return Extension(module, f"compiled C++ kernels, instruction set in use: {level}")


extension: Extension = _load()


def _more_nodes() -> dict[str, Path]:
    """Nodes for other releases of torch than the extension was built with: wheels bring them."""
    folder, suffix = Path(__file__).with_name("nodes_for"), importlib.machinery.EXTENSION_SUFFIXES[0]
    return {path.parent.name: path for path in sorted(folder.glob(f"*/_nodes{suffix}"))}


def _load_nodes() -> Extension:
    """The autograd nodes in C++, which use more of torch than its stable interface: for one torch alone."""
    if extension.module is None:
        return Extension(None, extension.reason)
    built = str(extension.module.build_info().get("autograd_nodes", "none"))
    if built == "none":
        return Extension(None, "the C++ autograd nodes were not built")
    # builds of one release for CPU and for GPUs, which differ behind the plus sign, share their interface
    here, more = torch.__version__.split("+")[0], _more_nodes()
    own = built.split("+")[0] == here
    if not own and here not in more:
        known = ", ".join([built, *more])
        return Extension(None, f"the C++ autograd nodes were built for torch {known}, and this is {torch.__version__}")
    try:
        module = importlib.import_module("hybridkern._nodes") if own else _import_from(more[here])
    except ImportError as error:
        return Extension(None, f"the C++ autograd nodes do not load with torch {torch.__version__}: {error}")
    return Extension(module, f"C++ autograd nodes, built for torch {built if own else here}")


def _import_from(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("hybridkern._nodes", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no module of this Python")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


nodes: Extension = _load_nodes()


class CudaLibrary(NamedTuple):
    """Whether the CUDA kernels are loaded, and why (not)."""

    loaded: bool
    reason: str


def cuda_library_path() -> Path | None:
    """The CUDA library that was built, loaded or not; ``None`` where there is none."""
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        path = Path(__file__).with_name(f"_cuda{suffix}")
        if path.exists():
            return path
    return None


def cuda_architectures() -> str:
    """What the CUDA library was built for, such as ``"sm_80,sm_90,compute_80"``, or ``"none"``."""
    return _of_the_library("cuda_architectures")


def cuda_toolkit() -> str:
    """Version of the CUDA toolkit that the library was built with, such as ``"13.0"``, or ``"none"``."""
    return _of_the_library("cuda_toolkit")


def _of_the_library(name: str) -> str:
    if extension.module is None or cuda_library_path() is None:
        return "none"
    return str(extension.module.build_info().get(name, "none"))


def _obstacle() -> str | None:
    """Why the kernels of the library could not run on the devices that torch sees; they fail at the first launch.

    Torch's own answer starts CUDA. It is asked for only where the machine has a GPU on which they could not run, which
    torch may not see.
    """
    whole = machine()
    if whole is not None and whole.capabilities:
        every = [("a GPU", capability) for capability in whole.capabilities]
        if cuda_obstacle(cuda_architectures(), cuda_toolkit(), whole.driver, every) is None:
            return None
    count = torch.cuda.device_count()
    found = [(torch.cuda.get_device_name(i), torch.cuda.get_device_capability(i)) for i in range(count)]
    # builds without CUDA, which see no device, do not have it
    driver = int(getattr(torch._C, "_cuda_getDriverVersion", lambda: 0)())
    return cuda_obstacle(cuda_architectures(), cuda_toolkit(), driver, found)


def cuda_obstacle(
    architectures: str, toolkit: str, driver: int, devices: Sequence[tuple[str, tuple[int, int]]]
) -> str | None:
    """Why a library built so cannot run on one of the devices; ``None`` if it can run on all.

    Args:
        architectures: as :func:`cuda_architectures`: code for ``sm_``, and PTX that the driver translates.
        toolkit: ``"13.0"``, or ``"none"`` where it is not known.
        driver: the newest CUDA that the driver runs, as ``1000 * major + 10 * minor``.
        devices: name and compute capability of each.
    """
    kinds = [name.split("_") for name in architectures.split(",") if "_" in name]
    made = [(kind, divmod(int(number), 10)) for kind, number in kinds]
    built = tuple(int(part) for part in toolkit.split(".")) if toolkit != "none" else (0, 0)
    runs = (driver // 1000, driver % 1000 // 10)
    if built[0] > runs[0]:
        return (
            f"the CUDA library was built with CUDA {toolkit}, and the driver runs CUDA {runs[0]}.{runs[1]} at most: "
            "update the driver, or build with an older toolkit (CUDA_HOME)"
        )
    for name, (major, minor) in devices:
        if any(kind == "sm" and of[0] == major and of[1] <= minor for kind, of in made):
            continue
        if not any(kind == "compute" and of <= (major, minor) for kind, of in made):
            return f"the CUDA library was built for {architectures}, and {name} is sm_{major}{minor}"
        if built > runs:
            return (
                f"the CUDA library has no code for {name} (sm_{major}{minor}), and the driver, of CUDA "
                f"{runs[0]}.{runs[1]}, does not translate that of CUDA {toolkit}: update the driver"
            )
    return None


def _load_cuda() -> CudaLibrary:
    def missing(reason: str) -> CudaLibrary:
        return CudaLibrary(False, reason)

    if _env.NO_EXTENSION:
        return missing("switched off by HYBRIDKERN_NO_EXT")
    path = cuda_library_path()
    if path is None:
        return missing("the CUDA library was not built (no nvcc at install time, a failed build, or HYBRIDKERN_CUDA=0)")
    if torch.version.hip is not None:
        return missing("the CUDA library does not run on ROCm")
    there = torch.cuda.device_count() > 0  # as is_available() says, which starts the driver
    if not (there or _env.PRETEND_CUDA):
        return missing("the CUDA library was built, but torch sees no CUDA device")
    if there and (why := _obstacle()) is not None:
        return missing(why)
    try:
        torch.ops.load_library(str(path))
    except OSError as error:
        return missing(f"the CUDA library does not load with torch {torch.__version__}: {error}")
    pretended = "" if there else ", loaded without a device (HYBRIDKERN_PRETEND_CUDA)"
    return CudaLibrary(True, f"compiled CUDA kernels for {cuda_architectures()}{pretended}")


_cuda: CudaLibrary | None = None


def cuda_library() -> CudaLibrary:
    """State of the CUDA library; the first call loads it where torch sees a CUDA device."""
    global _cuda
    if _cuda is None:
        _cuda = _load_cuda()
    return _cuda
