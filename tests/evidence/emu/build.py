"""Builds the ``.cu`` files with g++ through the shim; what is built is kept under ``build/emulation``."""

from __future__ import annotations

import hashlib
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[3]
HERE = Path(__file__).resolve().parent
CSRC = ROOT / "csrc"
BUILD = ROOT / "build" / "emulation"
TORCH = Path(torch.__file__).parent
COMMON = ["-std=c++20", "-fno-strict-aliasing", "-ffp-contract=off", "-w", "-DHK_EMULATE", f"-I{HERE}"]


def inputs() -> list[Path]:
    """Every file that a build reads."""
    ours = [path for kind in ("*.h", "*.cuh", "*.cu", "check.cpp", "layout.cpp") for path in CSRC.rglob(kind)]
    return sorted([*ours, *HERE.glob("*.h"), *HERE.glob("*.cpp")])


def build_key(*options: str) -> str:
    """Name of a build: changes with any source, option or version of torch."""
    digest = hashlib.sha256(" ".join([*COMMON, *options, torch.__version__]).encode())
    for path in inputs():
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def compiled(name: str, command: list[str], target: Path) -> Path:
    """Run g++ unless ``target`` is there; the file appears whole or not at all."""
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_suffix(f".{os.getpid()}.part{target.suffix}")
        done = subprocess.run([*command, "-o", str(part)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{name}: {done.stderr[-4000:]}"
        part.replace(target)
    return target


def emulated_library() -> Path:
    """``hybridkern_emulated``: the operators' ``.cu`` files for CPU tensors, as a shared library."""
    flags = [*COMMON, "-O1", "-fPIC", "-DTORCH_TARGET_VERSION=0x020d000000000000"]
    flags += [f"-I{TORCH / 'include'}", f"-I{TORCH / 'include' / 'torch' / 'csrc' / 'api' / 'include'}", f"-I{CSRC}"]
    folder = BUILD / build_key(*flags)
    sources = [*sorted(CSRC.glob("*/cuda.cu")), HERE / "library.cpp", CSRC / "check.cpp", CSRC / "layout.cpp"]

    def one(source: Path) -> Path:
        return compiled(
            source.name,
            ["g++", *flags, "-x", "c++", "-c", str(source)],
            folder / f"{source.parent.name}-{source.stem}.o",
        )

    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(one, sources))
    link = ["g++", "-shared", *map(str, objects), f"-L{TORCH / 'lib'}", "-ltorch", "-ltorch_cpu", "-lc10"]
    return compiled("link", [*link, f"-Wl,-rpath,{TORCH / 'lib'}"], folder / "libhybridkern_emulated.so")
