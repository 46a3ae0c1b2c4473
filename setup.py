"""Builds the extension ``hybridkern._C`` where there is a C++ compiler; installs pure Python where there is none.

Beside it ``hybridkern._nodes``, the operators' autograd nodes in C++, which serve the torch that they are built with.

``HYBRIDKERN_NO_EXT=1`` skips the extension; ``HYBRIDKERN_REQUIRE_EXT=1`` makes a failed build an error.
``HYBRIDKERN_CUDA`` says whether the CUDA library ``hybridkern._cuda`` is built beside it: ``auto`` (the default) where
nvcc is found, whether or not a GPU is visible; ``0`` never; ``1`` always, and a failure is an error.

For ``make wheel``: ``HYBRIDKERN_BUILD=nodes`` builds the nodes alone, for one more torch; ``HYBRIDKERN_OBJECTS`` names
the folder of objects that were compiled for another Python: all that does not know of Python is used again.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup

ROOT = Path(__file__).parent
sys.path.insert(0, str(ROOT / "buildtools"))  # pip does so by itself
import torch_here  # noqa: E402

OTHERS = ("numpy", "safetensors>=0.4.5")  # what the package needs beside torch
STABLE_ABI = "-DTORCH_TARGET_VERSION=0x020a000000000000"  # libtorch stable ABI of torch 2.10
WANTED = os.environ.get("HYBRIDKERN_NO_EXT", "").strip() in ("", "0")
CUDA_WANTED = os.environ.get("HYBRIDKERN_CUDA", "").strip()
CUDA_ARCHITECTURES = ("80", "90", "100")  # A100, H100, B200
CUDA_PTX = "compute_80"  # translated at build time for those, and by the driver for whatever comes later
NODES_ALONE = os.environ.get("HYBRIDKERN_BUILD", "").strip() == "nodes"
OBJECTS = os.environ.get("HYBRIDKERN_OBJECTS", "").strip()
REQUIRED = os.environ.get("HYBRIDKERN_REQUIRE_EXT", "").strip() not in ("", "0")


def say(message: str) -> None:
    print(f"hybridkern: {message}", file=sys.stderr)


def compiler() -> str | None:
    """The C++ compiler that would be used, or None."""
    return shutil.which(os.environ.get("CXX", "c++").split()[0]) or shutil.which("g++") or shutil.which("clang++")


def cuda_home() -> str | None:
    """Root of the CUDA toolkit whose nvcc would be used, or None."""
    for name in ("CUDA_HOME", "CUDA_PATH"):
        root = os.environ.get(name, "").strip()
        if root:
            return root if os.access(os.path.join(root, "bin", "nvcc"), os.X_OK) else None
    found = shutil.which("nvcc")
    roots = [Path(found).resolve().parents[1]] if found else []
    for root in (*roots, Path("/usr/local/cuda")):  # nvcc on PATH may be a wrapper that lies elsewhere
        if (root / "bin" / "nvcc").exists() and (root / "include" / "cuda_runtime.h").exists():
            return str(root)
    return None


def cuda_decision(wanted: str, home: str | None) -> bool:
    """Whether to build the CUDA library.

    Raises:
        SystemExit: ``wanted`` is no choice, or "1" without a toolkit.
    """
    choice = wanted.strip().lower() or "auto"
    if choice not in ("auto", "0", "1"):
        raise SystemExit(f"hybridkern: HYBRIDKERN_CUDA: got {wanted!r}, expected auto, 0 or 1")
    if choice == "1" and home is None:
        raise SystemExit("hybridkern: HYBRIDKERN_CUDA=1, but no CUDA toolkit was found; set CUDA_HOME to its root")
    return choice != "0" and home is not None


def cuda_extension(home: str) -> Extension:
    """The CUDA library: no Python module, but operators that are registered when it is loaded.

    CppExtension, because CUDAExtension links libraries that a CPU-only torch does not have; torch's stable ABI gives
    streams and devices through libtorch_cpu, and the CUDA runtime is linked statically.
    """
    import torch.utils.cpp_extension as cpp_extension

    cpp_extension.CUDA_HOME = home  # None on a CPU-only torch, whatever the environment says
    # The library shares no code with torch's own CUDA part, so that any toolkit will do, and not torch's alone.
    cpp_extension._check_cuda_version = lambda *_: None
    code = ",".join([*(f"sm_{arch}" for arch in CUDA_ARCHITECTURES), CUDA_PTX])
    architectures = [f"-gencode=arch={CUDA_PTX},code=[{code}]"]
    nvcc = ["-std=c++20", "-O3", "-DUSE_CUDA", "--expt-relaxed-constexpr", "-Xcompiler", "-fvisibility=hidden"]
    to_compile, objects = compiled_before(["csrc/layout.cpp", *sources("*/cuda.cu")])
    return cpp_extension.CppExtension(
        "hybridkern._cuda",
        ["csrc/check.cpp", *to_compile],
        extra_objects=objects,
        depends=headers(),
        include_dirs=[f"{home}/include"],
        extra_compile_args={
            "cxx": ["-std=c++20", "-O3", "-g0", "-fvisibility=hidden", STABLE_ABI],
            "nvcc": [*nvcc, STABLE_ABI, *architectures],
        },
        extra_link_args=[
            *(f"-L{home}/{folder}" for folder in ("lib64", "lib", "targets/x86_64-linux/lib")),
            "-l:libcudart_static.a",
            *("-ldl", "-lrt", "-lpthread"),
        ],
    )


def nodes_extension() -> Extension:
    """The autograd nodes: the only part that uses more of torch than its stable interface."""
    from torch.utils.cpp_extension import CppExtension

    return CppExtension(
        "hybridkern._nodes",
        [together("nodes", ["csrc/autograd/module.cpp", *sources("*/node.cpp")])],
        depends=[*headers(), "csrc/autograd/module.cpp", *sources("*/node.cpp")],
        include_dirs=[pybind11_headers()],
        extra_compile_args={"cxx": ["-std=c++20", "-O2", "-g0", "-fvisibility=hidden"]},
    )


def built_for(name: str) -> list[str]:
    """The definitions by which ``hybridkern._C`` knows of another extension and what that one was built for."""
    import torch

    if name == "hybridkern._cuda":
        architectures = ",".join([*(f"sm_{arch}" for arch in CUDA_ARCHITECTURES), CUDA_PTX])
        return [f"-DHK_CUDA_ARCHITECTURES={architectures}", f"-DHK_CUDA_TOOLKIT={toolkit_version(cuda_home())}"]
    return [f"-DHK_AUTOGRAD_NODES={torch.__version__}"]


def toolkit_version(home: str | None) -> str:
    """Such as ``13.0``; ``none`` where nvcc does not say."""
    try:
        said = subprocess.run([f"{home}/bin/nvcc", "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return "none"
    found = re.search(r"release (\d+\.\d+)", said)
    return found[1] if found else "none"


def sources(*patterns: str) -> list[str]:
    """Files under csrc, each once."""
    return sorted({str(p.relative_to(ROOT)) for pattern in patterns for p in (ROOT / "csrc").glob(pattern)})


def compiled_before(files: list[str]) -> tuple[list[str], list[str]]:
    """What is to be compiled, and the objects of the others: those that know nothing of Python."""
    if not OBJECTS:
        return files, []
    of_python = [file for file in files if "pybind11" in (ROOT / file).read_text()]
    return of_python, [str((Path(OBJECTS) / file).with_suffix(".o")) for file in files if file not in of_python]


def pybind11_headers() -> str:
    """A folder of pybind11's headers that stays: pip's isolated environment has another name at each installation.

    ninja compiles anew where a command has changed, if only in the name of a folder.
    """
    import pybind11

    place = ROOT / "build" / f"pybind11-{pybind11.__version__}"
    if not place.exists():
        part = place.with_name(f"{place.name}.part")
        shutil.copytree(pybind11.get_include(), part, dirs_exist_ok=True)
        part.rename(place)
    return str(place.resolve())


def together(name: str, files: list[str]) -> str:
    """One source that includes others: torch's headers take twenty seconds a source, their code one."""
    path = ROOT / "build" / f"{name}.cpp"
    path.parent.mkdir(exist_ok=True)
    text = "".join(f'#include "../{file}"\n' for file in files)
    if not path.exists() or path.read_text() != text:
        path.write_text(text)
    return str(path.relative_to(ROOT))


def headers() -> list[str]:
    return sources("**/*.h", "**/*.cuh")


def extension_options() -> dict[str, object]:
    """Arguments of setup() that build the extension."""
    from torch.utils.cpp_extension import BuildExtension, CppExtension

    if NODES_ALONE:
        return {"ext_modules": [nodes_extension()], "cmdclass": {"build_ext": BuildExtension}}

    class OptionalBuild(BuildExtension):
        """Keeps a failed build from failing the installation, unless the extension is required."""

        def run(self) -> None:
            try:
                super().run()
            except Exception as error:
                if REQUIRED or CUDA_WANTED == "1":
                    raise
                say(f"the extension was not built, the reference backend will be used: {error}")
                self.extensions = []  # nothing to copy, nothing to list

        def build_extensions(self) -> None:
            """What may be missing first: the other extension is then told what it was built for."""
            main = next(e for e in self.extensions if e.name == "hybridkern._C")
            built = []
            for extension in (e for e in self.extensions if e is not main):
                self.extensions = [extension]
                try:
                    super().build_extensions()
                    main.extra_compile_args["cxx"] += built_for(extension.name)
                    built.append(extension)
                except Exception as error:
                    if CUDA_WANTED == "1" if extension.name == "hybridkern._cuda" else REQUIRED:
                        raise
                    say(f"{extension.name} was not built, the package works without it: {error}")
            self.extensions = [main]
            super().build_extensions()
            self.extensions = [main, *built]

    # Where NaN is carried along beside a place in fixed point, sums of such places wrap: that is meant to be defined.
    flags = ["-std=c++20", "-O3", "-g0", "-fvisibility=hidden", "-fwrapv", "-Wno-psabi", STABLE_ABI]
    if platform.machine() in ("x86_64", "AMD64"):
        flags += ["-Wno-maybe-uninitialized", "-Wno-uninitialized"]  # GCC's own intrinsics headers
    of_library = sources("*.cpp", "cpu/*.cpp", "*/cpu.cpp", "*/checks.cpp", "codec/*.cpp", "coupling_network/*.cpp")
    to_compile, objects = compiled_before([file for file in of_library if not file.endswith("/node.cpp")])
    extension = CppExtension(
        "hybridkern._C",
        to_compile,
        extra_objects=objects,
        depends=headers(),
        include_dirs=[pybind11_headers()],
        extra_compile_args={"cxx": flags},
    )
    extensions = [extension, nodes_extension()]
    home = cuda_home()
    if cuda_decision(CUDA_WANTED, home):
        extensions.append(cuda_extension(str(home)))
    return {"ext_modules": extensions, "cmdclass": {"build_ext": OptionalBuild}}


def obstacle(torch: str | None) -> str | None:
    """Why the extension cannot be built, or None.

    Args:
        torch: the version to build with.
    """
    if compiler() is None:
        return "no C++ compiler on PATH"
    if torch is None:
        return "no torch to build with"
    if torch_here.release(torch) < torch_here.LEAST_TO_BUILD:
        return f"torch {torch} is older than {'.'.join(map(str, torch_here.LEAST_TO_BUILD))}"
    return None


def options() -> dict[str, object]:
    """Arguments of setup(): with the extensions, where they are wanted and can be built."""
    plain: dict[str, object] = {"install_requires": [torch_here.REQUIREMENT, *OTHERS]}
    if not WANTED:
        say("HYBRIDKERN_NO_EXT is set: installing without the compiled extension")
        return plain
    torch = torch_here.make_importable()
    why = obstacle(torch)
    if why is None:
        return {**extension_options(), "install_requires": [torch_here.required_to_run(torch), *OTHERS]}
    if REQUIRED and "sdist" not in sys.argv:  # sources hold nothing that is compiled
        raise SystemExit(f"hybridkern: HYBRIDKERN_REQUIRE_EXT is set, but the extension cannot be built: {why}")
    say(f"{why}: installing without the compiled extension (plain PyTorch, and Triton where it is installed)")
    return plain


if __name__ == "__main__":  # so too under pip; the tests import this file
    setup(**options())
