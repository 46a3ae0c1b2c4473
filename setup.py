"""Builds the extension ``hybridkern._C`` where there is a C++ compiler; installs pure Python where there is none.

``HYBRIDKERN_NO_EXT=1`` skips the extension; ``HYBRIDKERN_REQUIRE_EXT=1`` makes a failed build an error.
"""

import os
import platform
import shutil
import sys
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent
STABLE_ABI = "-DTORCH_TARGET_VERSION=0x020d000000000000"  # libtorch stable ABI of torch 2.13
WANTED = os.environ.get("HYBRIDKERN_NO_EXT", "").strip() in ("", "0")
REQUIRED = os.environ.get("HYBRIDKERN_REQUIRE_EXT", "").strip() not in ("", "0")


def say(message: str) -> None:
    print(f"hybridkern: {message}", file=sys.stderr)


def compiler() -> str | None:
    """The C++ compiler that would be used, or None."""
    return shutil.which(os.environ.get("CXX", "c++").split()[0]) or shutil.which("g++") or shutil.which("clang++")


def extension_options() -> dict[str, object]:
    """Arguments of setup() that build the extension."""
    import pybind11
    from torch.utils.cpp_extension import BuildExtension, CppExtension

    class OptionalBuild(BuildExtension):
        """Keeps a failed build from failing the installation, unless the extension is required."""

        def run(self) -> None:
            try:
                super().run()
            except Exception as error:
                if REQUIRED:
                    raise
                say(f"the extension was not built, the reference backend will be used: {error}")
                self.extensions = []  # nothing to copy, nothing to list

    sources = sorted(str(p.relative_to(ROOT)) for p in (ROOT / "csrc").glob("*.cpp"))
    sources += sorted(str(p.relative_to(ROOT)) for p in (ROOT / "csrc" / "cpu").rglob("*.cpp"))
    headers = sorted(str(p.relative_to(ROOT)) for p in (ROOT / "csrc").rglob("*.h"))
    flags = ["-std=c++20", "-O3", "-fvisibility=hidden", "-Wno-psabi", STABLE_ABI]
    if platform.machine() in ("x86_64", "AMD64"):
        flags += ["-Wno-maybe-uninitialized", "-Wno-uninitialized"]  # GCC's own intrinsics headers
    extension = CppExtension(
        "hybridkern._C",
        sources,
        depends=headers,
        include_dirs=[pybind11.get_include()],
        extra_compile_args={"cxx": flags},
    )
    return {"ext_modules": [extension], "cmdclass": {"build_ext": OptionalBuild}}


options: dict[str, object] = {}
if not WANTED:
    say("HYBRIDKERN_NO_EXT is set: installing without the compiled extension")
elif compiler() is None:
    if REQUIRED:
        raise SystemExit("hybridkern: HYBRIDKERN_REQUIRE_EXT is set, but there is no C++ compiler on PATH")
    say("no C++ compiler on PATH: installing without the compiled extension (reference backend only)")
else:
    options = extension_options()

setup(**options)
