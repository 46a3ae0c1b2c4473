"""What an earlier ``make wheel`` was made of: what is still so is used again, and a run that was ended goes on."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

# what a wheel is made of, and what of it the compiled objects are
OF_A_WHEEL = (
    "buildtools/hybridkern_build.py",
    "buildtools/torch_here.py",
    "csrc",
    "hybridkern",
    "hybridkern_command",
    "LICENSE",
    "MANIFEST.in",
    "README.md",
    "pyproject.toml",
    "setup.py",
)
OF_OBJECTS = ("csrc", "setup.py")
CHOSEN = ("HYBRIDKERN_CUDA", "CUDA_HOME", "CUDA_PATH", "CXX", "CXXFLAGS", "CFLAGS")  # variables that a build reads
_KEY = "made-of"


def tools() -> list[str]:
    """The compilers, as they name themselves."""
    said = []
    for tool in (os.environ.get("CXX", "c++").split()[0], "nvcc"):
        path = shutil.which(tool)
        said.append(subprocess.run([path, "--version"], capture_output=True, text=True).stdout if path else "none")
    return said


def digest(source: Path, parts: Iterable[str], others: Iterable[str] = ()) -> str:
    """Of the files below ``source`` that lie in one of ``parts``, by name and content, and of other facts.

    Args:
        source: a folder of sources alone.
        parts: names of files and folders there.
        others: whatever else decides what is made.
    """
    found = hashlib.sha256(repr((sorted(os.environ.get(name, "") for name in CHOSEN), list(others))).encode())
    for part in sorted(parts):
        place = source / part
        for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if path.is_file():
                content = hashlib.sha256(path.read_bytes()).hexdigest()
                found.update(f"{path.relative_to(source)} {content}\n".encode())
    return found.hexdigest()


def is_of(folder: Path, key: str) -> bool:
    """Whether what lies there was made of this."""
    file = folder / _KEY
    return file.exists() and file.read_text() == key


def mark(folder: Path, key: str) -> None:
    """Says what it was made of."""
    (folder / _KEY).write_text(key)


def keep(objects: Path, folder: Path, key: str) -> Path:
    """A copy of compiled objects, in place of those of other sources."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(objects, folder)
    mark(folder, key)  # last: a copy that was ended is none
    return folder
