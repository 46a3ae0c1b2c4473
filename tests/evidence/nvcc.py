"""CUDA sources to PTX and cubins, without a GPU."""

from __future__ import annotations

import subprocess
import tempfile
from functools import cache
from pathlib import Path

from tests.evidence.toolchain import ROOT, require_nvcc


@cache
def compile_cuda(source: str, target: str, kind: str = "ptx", flags: tuple[str, ...] = ()) -> bytes:
    """PTX or cubin (``kind``) of a source, given relative to the repository's root.

    Raises:
        RuntimeError: nvcc failed; the message holds its output.
    """
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / f"out.{kind}"
        command = [
            require_nvcc(),
            "-std=c++20",
            "-O3",
            f"-arch={target}",
            f"-{kind}",
            *flags,
            source,
            "-o",
            str(output),
        ]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
        return output.read_bytes()
