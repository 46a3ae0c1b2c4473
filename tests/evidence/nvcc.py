"""CUDA sources to PTX and cubins, without a GPU."""

from __future__ import annotations

import subprocess
import tempfile
from functools import cache
from pathlib import Path

from tests.evidence.toolchain import ROOT, require_nvcc

_OPTIONS = ("-std=c++20", "-O3")


@cache
def compile_cuda(source: str, target: str, kind: str = "ptx", flags: tuple[str, ...] = ()) -> bytes:
    """PTX or cubin (``kind``) of a source, given relative to the repository's root.

    Raises:
        RuntimeError: nvcc failed; the message holds its output.
    """
    missing = [option for option in _OPTIONS if option not in flags]
    return _nvcc([f"-arch={target}", f"-{kind}", *missing, *flags, source], kind)


@cache
def assemble(ptx: bytes, target: str) -> bytes:
    """The cubin that PTX is translated to.

    Raises:
        RuntimeError: it is not valid for this target; the message holds the output of nvcc.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "in.ptx"
        path.write_bytes(ptx)
        return _nvcc([f"-arch={target}", "-cubin", "-Xptxas", "-O3", str(path)], "cubin")


@cache
def nvcc_version() -> str:
    """What nvcc says of itself."""
    return subprocess.run([require_nvcc(), "--version"], capture_output=True, text=True, check=True).stdout


def _nvcc(arguments: list[str], kind: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / f"out.{kind}"
        command = [require_nvcc(), *arguments, "-o", str(output)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
        return output.read_bytes()
