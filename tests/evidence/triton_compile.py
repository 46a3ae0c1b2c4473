"""The code that a recorded launch would run on a GPU, for any target, compiled in a process of its own."""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from tests.evidence.launches import Launch
from tests.evidence.toolchain import ROOT

NVIDIA_TARGETS = ("sm_80", "sm_90", "sm_100")
AMD_TARGETS = ("gfx942",)


@dataclass(frozen=True)
class Compiled:
    """A kernel for one target: parameters that are left at run time, in order, and what was made of it."""

    target: str
    parameters: tuple[str, ...]
    shared: int
    threads: int
    files: dict[str, Path]

    def text(self, kind: str) -> str:
        """The artifact ``ptx`` or ``amdgcn``."""
        return self.files[kind].read_text(encoding="utf-8")


class _Worker:
    """The compiling process, started once."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="hybridkern-evidence-")
        environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
        environment.setdefault("TRITON_DEFAULT_FP_FUSION", "1")  # as triton 3.9 does, without its warning
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.evidence.triton_worker", self._folder.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment,
        )
        atexit.register(self.close)

    def ask(self, request: str) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(request + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the compiling process ended with status {self._process.wait()}")
        return json.loads(line)

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._folder.cleanup()


_worker = cache(_Worker)


@cache
def _compiled(request: str) -> Compiled:
    answer = _worker().ask(request)
    if "error" in answer:
        raise RuntimeError(f"{request}\ndid not compile: {answer['error']}")
    target = json.loads(request)["target"]
    return Compiled(
        target=target,
        parameters=tuple(answer["parameters"]),
        shared=answer["shared"],
        threads=answer["num_warps"] * (64 if target.startswith("gfx") else 32),
        files={kind: Path(path) for kind, path in answer["files"].items()},
    )


def compile_launch(launch: Launch, target: str) -> Compiled:
    """The specialization that triton's launcher would pick for these arguments.

    Raises:
        RuntimeError: it does not compile.
    """
    request = {
        "kernel": launch.kernel,
        "arguments": {name: _described(value) for name, value in launch.arguments.items()},
        "options": dict(launch.options),
        "target": target,
    }
    return _compiled(json.dumps(request, sort_keys=True))


def _described(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return {"pointer": str(value.dtype).removeprefix("torch."), "aligned": value.data_ptr() % 16 == 0}
    if hasattr(value, "value"):  # a constexpr
        value = value.value
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return {"dtype": str(value)}  # a dtype of triton
