"""Virtual environments with a given Python and torch, without NVIDIA's 5 GB: for building wheels, and for tests.

They are kept from run to run, in one folder by Python and torch, and used through their interpreter.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path

from buildtools.stand_ins import make_importable

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "build" / "environments"
BUILD_TOOLS = ("setuptools>=77.0.3", "ninja", "pybind11>=2.13")
# what torch asks for beside NVIDIA's, and what the package does
_OF_TORCH = ("filelock", "fsspec", "jinja2", "networkx", "sympy", "typing_extensions", "setuptools")
_BESIDE = ("numpy", "safetensors", *_OF_TORCH)
_VERSION = "import sys; print('{}.{}'.format(*sys.version_info))"


class CommandError(Exception):
    """A command ended with an error; the message says what."""


@dataclass(frozen=True)
class Environment:
    """A virtual environment; its interpreter runs without this checkout on its path."""

    folder: Path
    patience: float = 3600.0  # seconds that all calls of pip may take together with what came before
    began: float = 0.0

    @property
    def python(self) -> str:
        """Its interpreter."""
        return str(self.folder / "bin" / "python")

    @property
    def site(self) -> Path:
        """Where its packages lie."""
        (found,) = self.folder.glob("lib/python*/site-packages")
        return found

    def pip(self, *arguments: str, **variables: str) -> None:
        """Runs pip, with the flags of the variable ``PIP_FLAGS``; raises as :meth:`run` does."""
        command, *rest = arguments
        flags = ("--quiet", "--disable-pip-version-check", *os.environ.get("PIP_FLAGS", "").split())
        self.run("-m", "pip", command, *flags, *rest, **variables)

    def variables(self, **more: str) -> dict[str, str]:
        """Variables of its processes: none of the package's own, nor a path to another one."""
        left_out = ("HYBRIDKERN_", "CUDA_HOME", "PYTHONPATH")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
        own = {
            "LD_LIBRARY_PATH": str(self.folder / "stand-ins"),
            "OMP_NUM_THREADS": "1",
            # compiled once, though the caller may keep none: importing torch from its sources takes four seconds
            "PYTHONDONTWRITEBYTECODE": "",
            "PYTHONPYCACHEPREFIX": str(self.folder / "bytecode"),
        }
        return kept | own | more

    def run(self, *arguments: str, cwd: Path | None = None, **variables: str) -> str:
        """What ``python ARGUMENTS`` prints.

        Raises:
            CommandError: it ends with an error, or pip is out of time.
        """
        limit = None
        if self.began and arguments[:2] == ("-m", "pip"):
            limit = max(1.0, self.began + self.patience - time.monotonic())
        try:
            done = subprocess.run(
                [self.python, *arguments],
                cwd=cwd or self.folder,
                env=self.variables(**variables),
                capture_output=True,
                text=True,
                check=False,
                timeout=limit,
            )
        except subprocess.TimeoutExpired:
            raise CommandError(f"{' '.join(arguments)} was not done in {self.patience:.0f} s") from None
        if done.returncode != 0:
            raise CommandError(f"{' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
        return done.stdout


def version_of(python: str) -> str:
    """Such as ``"3.11"``; empty where the command is no interpreter that runs."""
    try:
        return subprocess.run([python, "-c", _VERSION], capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def folder_of(torch: str, python: str = sys.executable) -> Path:
    """Where the environment lies, unless another place is named."""
    return FOLDER / f"python-{version_of(python)}" / re.sub(r"[^\w.]+", "-", torch)


def triton_of(site: Path) -> str:
    """The triton that the torch there asks for; the newest, where that is a build for the CPU."""
    for torch in metadata.distributions(name="torch", path=[str(site)]):
        for line in torch.requires or ():
            if line.startswith("triton"):
                return line.split(";")[0].strip()
    return "triton"


def prepare(
    folder: Path,
    torch: str,
    packages: Sequence[str] = (),
    python: str = sys.executable,
    triton: str = "",
    patience: float = 3600.0,
) -> Environment:
    """The environment, made where it is not there.

    Args:
        folder: where.
        torch: what pip installs.
        packages: others; those that an earlier call asked for are not asked for again.
        python: the interpreter.
        triton: what pip installs; ``"auto"``: what torch asks for; empty: none.
        patience: seconds that pip may take in all.

    Raises:
        CommandError: pip could not do it.
    """
    made = Environment(folder, patience, time.monotonic())
    there = folder / "packages"
    known = there.read_text().splitlines() if there.exists() else []
    if not known:
        subprocess.run([python, "-m", "venv", "--clear", str(folder)], check=True)
        made.pip("install", "--no-compile", "--no-deps", torch)
        made.pip("install", "--no-compile", *_BESIDE)
        make_importable(made.site, folder / "stand-ins", partial(made.pip, "install", "--no-deps"))
        known = [torch]
    for package in [triton_of(made.site) if triton == "auto" else triton] if triton else []:
        if package not in known:
            made.pip("install", "--no-compile", "--no-deps", package)
            known.append(package)
    if missing := [package for package in packages if package not in known]:
        made.pip("install", "--no-compile", *missing)
    there.write_text("\n".join([*known, *missing]))
    return Environment(folder)
