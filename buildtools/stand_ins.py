"""Stand-ins for NVIDIA's libraries, which a CUDA build of torch loads when it is imported and which take 5 GB.

PyPI's torch for Linux is that build. Empty libraries stand in, with the symbols that torch wants of each; NVIDIA's own
runtime, which torch calls while it is imported, comes from the toolkit or from PyPI. Such a torch sees no device; its
CPU part is whole, and tensors that are fake lie on CUDA.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

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
    """What the command prints."""
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
