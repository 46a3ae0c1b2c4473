"""The package beside another torch: ``python -m tests.packaging.other_torch --torch torch==2.11.0``.

PyPI's torch for Linux is the build with CUDA, whose libraries take 5 GB more. Here empty libraries stand in for them,
with the symbols that torch wants of each, and NVIDIA's own runtime, which torch calls while it is imported, comes from
the toolkit or from PyPI. Such a torch sees no device; its CPU part is whole, and tensors that are fake lie on CUDA.

Installs into a folder of its own (kept from run to run), takes the extension as it was built for this checkout, and
runs the tests that another torch may break: loading, registration, choice, compilation, derivatives, flows.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
import venv
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BESIDE = ("numpy", "filelock", "fsspec", "jinja2", "networkx", "sympy", "typing_extensions", "setuptools")
TOOLS = ("pytest>=8.3", "hypothesis>=6.100", "mpmath>=1.3")
QUICK = (
    "tests/test_packaging.py",
    "tests/ops/test_registration.py",
    "tests/ops/test_backends.py",
    "tests/triton/test_registration.py",
    "tests/flows/test_initialized.py",
    *(f"tests/flows/test_compile.py::test_compiles_as_one_graph[cpp-{flow}]" for flow in ("glow-context", "realnvp-2")),
)
FULL = (
    *(test for test in QUICK if "::" not in test),
    *(f"tests/ops/test_{name}.py" for name in ("shapes", "compile", "choice", "gradients")),
    "tests/flows/test_compile.py",
)

NOT_INSTALLED = 3  # the exit status where there is nothing to test
_LONGEST_INSTALLATION = 300  # seconds, of one call of pip

NVIDIA = re.compile(r"lib(cu|nccl|nv)")
# which library a symbol without a version is of
HOMES = {
    "cudnn": "libcudnn",
    "nccl": "libnccl",
    "cublasLt": "libcublasLt",
    "cublas": "libcublas",
    "cufft": "libcufft",
    "curand": "libcurand",
    "cusparseLt": "libcusparseLt",
    "cusparse": "libcusparse",
    "cusolver": "libcusolver",
    "cuFile": "libcufile",
    "cupti": "libcupti",
    "nvrtc": "libnvrtc",
    "nvJitLink": "libnvJitLink",
    "nvshmem": "libnvshmem_host",
    "nvtx": "libnvToolsExt",
    "cuda": "libcudart",
    "__cuda": "libcudart",
}
Symbols = dict[str, set[tuple[str, str]]]  # names and kinds, by version


def readelf(path: Path, *flags: str) -> str:
    command = ["readelf", "-W", *flags, str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def undefined(path: Path) -> Iterator[tuple[str, str, str]]:
    """Name, version and kind of every symbol that a library takes from others."""
    for line in readelf(path, "--dyn-syms").splitlines():
        part = line.split()
        if len(part) >= 8 and part[6] == "UND":
            name, _, version = part[7].partition("@")
            yield name, version.strip("@"), part[3]


def home_of(name: str, libraries: Iterable[str]) -> str | None:
    """The library of a symbol, by the longest prefix."""
    prefix = max((prefix for prefix in HOMES if name.startswith(prefix)), key=len, default=None)
    return None if prefix is None else next((n for n in libraries if n.startswith(f"{HOMES[prefix]}.so")), None)


def wanted(libraries: Sequence[Path]) -> dict[str, Symbols]:
    """What these need of each library that nobody has."""
    needed = {name for path in libraries for name in re.findall(r"\(NEEDED\).*\[(.+?)\]", readelf(path, "-d"))}
    missing = needed - {path.name for path in libraries}
    found: dict[str, Symbols] = {name: defaultdict(set) for name in sorted(missing) if NVIDIA.match(name)}
    for path in libraries:
        for name, version, kind in undefined(path):
            home = version if version in found else home_of(name, found)
            if home:
                found[home][version].add((name, kind))
    return found


def stand_in(library: str, symbols: Symbols, folder: Path) -> None:
    """An empty library with these symbols: functions return 0."""
    lines = ["int hk_stand_in;"]
    for name, kind in sorted(set().union(*symbols.values())):
        function = f'__asm__(".globl {name}\\n.type {name},@function\\n{name}:\\nxor %eax,%eax\\nret\\n");'
        lines.append(f"char {name}[64];" if kind == "OBJECT" else function)
    code, versions = folder / f"{library}.c", folder / f"{library}.map"
    code.write_text("\n".join(lines))
    named = {version: sorted(name for name, _ in names) for version, names in symbols.items() if version}
    versions.write_text("".join(f"{version} {{ global: {'; '.join(names)}; }};\n" for version, names in named.items()))
    flags = [f"-Wl,-soname,{library}", *([f"-Wl,--version-script={versions}"] if named else [])]
    subprocess.run(["gcc", "-shared", "-fPIC", "-w", *flags, "-o", str(folder / library), str(code)], check=True)


def runtimes(site: Path) -> dict[str, Path]:
    """NVIDIA's own libraries, by name: those of the environment, then those of the toolkit."""
    home = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda"))
    folders = [*site.glob("nvidia/*/lib"), home / "lib64", home / "lib", *home.glob("targets/*/lib")]
    return {path.name: path for folder in reversed(folders) for path in folder.glob("lib*.so.*")}


def make_importable(site: Path, folder: Path, install: Callable[[str], None]) -> None:
    """Fills ``folder`` with what torch needs and does not bring."""
    folder.mkdir(parents=True, exist_ok=True)
    for library, symbols in wanted(sorted((site / "torch" / "lib").glob("*.so*"))).items():
        if not library.startswith("libcudart"):
            stand_in(library, symbols, folder)
            continue
        if library not in runtimes(site):
            install("nvidia-cuda-runtime-cu12" if library.endswith(".12") else "nvidia-cuda-runtime")
        (folder / library).unlink(missing_ok=True)
        (folder / library).symlink_to(runtimes(site)[library].resolve())


def prepare(folder: Path, torch: str, triton: str) -> dict[str, str]:
    """The environment in ``folder``, made where it is not there; variables for its interpreter."""

    def install(*packages: str) -> None:
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--no-compile", *packages], check=True, timeout=_LONGEST_INSTALLATION)

    if not (folder / "ready").exists():
        venv.create(folder, with_pip=True, clear=True)
        install("--no-deps", torch, *filter(None, [triton]))
        install(*BESIDE, *TOOLS)
        (site,) = folder.glob("lib/python*/site-packages")
        make_importable(site, folder / "stand-ins", partial(install, "--no-deps"))
        (folder / "ready").touch()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HYBRIDKERN_")}
    return kept | {"LD_LIBRARY_PATH": str(folder / "stand-ins"), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch", default="torch", help="what pip installs; without a version the newest")
    parser.add_argument("--triton", default="triton", help="likewise; empty: none")
    parser.add_argument("--folder", type=Path, help="of the environment (default build/other-torch/NAME)")
    parser.add_argument("--quick", action="store_true", help="fewer tests")
    parser.add_argument("--test-flags", default="", help="of pytest")
    options = parser.parse_args(arguments)
    name = re.sub(r"[^\w.]+", "-", options.torch)
    folder = (options.folder or ROOT / "build" / "other-torch" / name).resolve()
    began = time.monotonic()
    try:
        environment = prepare(folder, options.torch, options.triton)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        print(f"not tested: {options.torch} could not be installed ({error})", file=sys.stderr)
        return NOT_INSTALLED
    print(f"installed in {time.monotonic() - began:.0f} s", flush=True)
    python = str(folder / "bin" / "python")
    subprocess.run([python, "-m", "hybridkern.report"], cwd=ROOT, env=environment, check=True)
    tests = [*(QUICK if options.quick else FULL), *options.test_flags.split()]
    return subprocess.run([python, "-m", "pytest", "-q", *tests], cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
