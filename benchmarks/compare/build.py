"""The compiled extensions of a folder of sources, built once for the same C++ sources, compiler and torch."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from benchmarks._results import UNVERIFIED

CACHE = UNVERIFIED / "extensions"
_PATTERN = "_*.so"  # the operators, and the C++ autograd nodes where a revision has them


def provide(source: Path, cache: Path = CACHE) -> None:
    """Puts the extension into ``source/hybridkern``, from the cache or from a build there.

    Raises:
        RuntimeError: the build failed; the message ends with the end of its output.
    """
    kept = cache / key_of(source)
    if not kept.is_dir():
        _build(source)
        cache.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(dir=cache))
        for file in (source / "hybridkern").glob(_PATTERN):
            shutil.copy2(file, part)
        try:
            part.rename(kept)
        except OSError:  # another process was faster
            shutil.rmtree(part)
    for file in kept.glob(_PATTERN):
        shutil.copy2(file, source / "hybridkern")


def key_of(source: Path) -> str:
    """Hash of everything that the extension's code comes from."""
    compiler = shlex.split(os.environ.get("CXX", "c++"))
    version = subprocess.run([*compiler, "--version"], capture_output=True, check=False).stdout
    hashed = hashlib.sha256(repr((sys.version, torch.__version__, compiler, _PATTERN)).encode() + version)
    files = [source / "setup.py", *sorted(path for path in (source / "csrc").rglob("*") if path.is_file())]
    for file in files:
        content = file.read_bytes()
        hashed.update(f"{file.relative_to(source)} {len(content)}\n".encode() + content)
    return hashed.hexdigest()[:24]


def _build(source: Path) -> None:
    settings = {"HYBRIDKERN_REQUIRE_EXT": "1", "HYBRIDKERN_CUDA": "0", "HYBRIDKERN_NO_EXT": ""}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])  # ninja lies beside python
    done = subprocess.run(
        [sys.executable, "setup.py", "build_ext", "--inplace"],
        cwd=source,
        env=os.environ | settings | {"PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode or not list((source / "hybridkern").glob(_PATTERN)):
        raise RuntimeError(f"the extension of {source} could not be built:\n{done.stdout[-3000:]}")
