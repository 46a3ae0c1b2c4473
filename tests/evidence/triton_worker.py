"""Compiles Triton kernels without a GPU, in a process where kernels are not interpreted.

Reads one JSON object a line from its input, answers one a line. A request holds the kernel (``module:name``), its
arguments (numbers as they are; a tensor as ``{"pointer": dtype, "aligned": bool}``), compiler options and a target;
the answer holds the names of the run-time parameters, the metadata and the path of each artifact.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver


class _NoDevice:
    """What triton asks a device for while it compiles; launching is not among it."""

    def __init__(self, target: GPUTarget) -> None:
        self._target = target
        self.utils = SimpleNamespace()

    def get_current_target(self) -> GPUTarget:
        return self._target

    def get_current_device(self) -> str:
        return f"{self._target.backend}{self._target.arch}"

    def get_current_stream(self, device: object) -> int:
        return 0


class _Pointer:
    """Stands for a tensor: its dtype and whether its address is a multiple of 16 are all that compilation sees."""

    def __init__(self, dtype: str, aligned: bool) -> None:
        self.dtype = getattr(torch, dtype)
        self._address = 1 << 20 if aligned else (1 << 20) + self.dtype.itemsize

    def data_ptr(self) -> int:
        return self._address


def _target(name: str) -> GPUTarget:
    return (
        GPUTarget("hip", name, 64) if name.startswith("gfx") else GPUTarget("cuda", int(name.removeprefix("sm_")), 32)
    )


def _argument(value: Any) -> Any:
    if isinstance(value, dict) and "pointer" in value:
        return _Pointer(value["pointer"], value["aligned"])
    if isinstance(value, dict) and "dtype" in value:
        return triton.language.dtype(value["dtype"])
    return value


def _compile(request: dict[str, Any], folder: Path, number: int) -> dict[str, Any]:
    module, name = request["kernel"].split(":")
    kernel = getattr(importlib.import_module(module), name)
    driver.set_active(_NoDevice(_target(request["target"])))
    arguments = {key: _argument(value) for key, value in request["arguments"].items()}
    compiled = kernel.warmup(grid=(1,), **arguments, **request["options"])
    files = {}
    for kind in ("ptx", "cubin", "amdgcn"):
        if kind in compiled.asm:
            content = compiled.asm[kind]
            path = folder / f"{number}.{kind}"
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
            files[kind] = str(path)
    constant = {kernel.arg_names[path[0]] for path in compiled.src.constants}
    return {
        "parameters": [name for name in kernel.arg_names if name not in constant],
        "shared": compiled.metadata.shared,
        "num_warps": compiled.metadata.num_warps,
        "files": files,
    }


def main() -> None:
    folder = Path(sys.argv[1])
    for number, line in enumerate(sys.stdin):
        try:
            answer = _compile(json.loads(line), folder, number)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
