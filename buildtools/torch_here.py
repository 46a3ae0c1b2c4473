"""Which torch the extension is built with: that of the environment in which the package will run, where it has one.

pip builds in an environment of its own. A torch put in there may be another one than that beside which the package then
lies, and the autograd nodes serve the very torch that they were built with; and a torch with CUDA takes gigabytes.
"""

from __future__ import annotations

import sys
import sysconfig
from importlib import metadata, util
from pathlib import Path

LEAST = (2, 9)  # what the Python code needs
LEAST_TO_BUILD = (2, 10)  # what has the stable ABI that the extension uses
REQUIREMENT = f"torch>={LEAST[0]}.{LEAST[1]}"


def folders() -> list[str]:
    """Where the interpreter keeps its packages: pip's isolation hides them, and runs the same interpreter."""
    return list(dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib")))


def release(version: str) -> tuple[int, ...]:
    """``(2, 11)`` of ``"2.11.0+cu130"``, and of its pre-releases."""
    return tuple(int(part) for part in version.split("+")[0].split(".")[:2])


def installed() -> str | None:
    """Version of the torch there, or None."""
    for found in metadata.distributions(name="torch", path=folders()):
        return found.version
    return None


def stays() -> bool:
    """Whether there is a torch beside which the package can run."""
    here = installed()
    return here is not None and release(here) >= LEAST


def required_to_build() -> list[str]:
    """What must be put into an isolated environment."""
    if stays():  # it is built with that one, or, where that is too old for the extension, without
        return []
    return [f"torch>={LEAST_TO_BUILD[0]}.{LEAST_TO_BUILD[1]}"]


def make_importable() -> str | None:
    """The version of the torch to build with, after which ``import torch`` finds it; None where there is none."""
    if util.find_spec("torch") is None and stays():
        sys.path.extend(folders())
    try:
        return metadata.version("torch") if util.find_spec("torch") is not None else None
    except metadata.PackageNotFoundError:  # one that was built from its sources
        import torch

        return str(torch.__version__)


def required_to_run(built_with: str | None) -> str:
    """What the package asks for: a torch that was fetched for the build alone is the one that must come next."""
    spec = util.find_spec("torch")
    if built_with is None or spec is None or spec.origin is None or stays():
        return REQUIREMENT
    fetched = not any(Path(spec.origin).is_relative_to(folder) for folder in folders())
    is_pips = any("pip-build-env" in part for part in Path(spec.origin).parts)
    return f"torch=={built_with.split('+')[0]}" if fetched and is_pips else REQUIREMENT
