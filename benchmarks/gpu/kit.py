"""``python -m benchmarks.gpu.kit``: packs what a bare GPU machine needs to run ``python -m benchmarks.gpu``.

Into one folder, of at most 40 MB: the sources; the compiled libraries for the Python and torch of that machine; the
libraries that are compared with; Python's headers, which Triton compiles its launchers with. The folder is copied to
the machine, and the command is run in it: there is no network there, no pip, no virtual environment and no make.

The variable ``PIP_FLAGS`` is told to pip, such as an index of CPU builds of torch, which serve as well. With
``HYBRIDKERN_OBJECTS=build/wheels/objects`` the kernels are those that ``make wheel`` compiled, of the same sources.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from buildtools.environments import BUILD_TOOLS, CommandError, folder_of, prepare, version_of
from buildtools.make_wheels import compiling, interpreter

ROOT = Path(__file__).resolve().parents[2]
MOST_BYTES = 40_000_000
PEERS = ("normflows", "FrEIA")
_EXTRA = ".kit"  # beside the sources: site/ for packages, include/ for headers
_LEFT_OUT = ("docs/", ".ci/", "benchmarks/results/")
_INCLUDE = "import sysconfig; print(sysconfig.get_path('include'))"


def enter(root: Path = ROOT) -> None:
    """Makes what the kit brought known to this process and the compilers that it starts; nothing without a kit.

    The machine's own packages come first.
    """
    site, include = root / _EXTRA / "site", root / _EXTRA / "include"
    if site.is_dir() and str(site) not in sys.path:
        sys.path.append(str(site))
    if include.is_dir():
        known = os.environ.get("C_INCLUDE_PATH", "").split(":")
        os.environ["C_INCLUDE_PATH"] = ":".join(dict.fromkeys([*filter(None, known), str(include)]))


def sources(root: Path = ROOT) -> list[str]:
    """The files that the command, its tests and a build need: those that git tracks, and new ones."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    return [name for name in listed.splitlines() if not name.startswith(_LEFT_OUT)]


def copy_sources(out: Path, root: Path = ROOT) -> None:
    """Copies them as they lie in the working tree."""
    for name in sources(root):
        if (root / name).is_file():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, out / name)


def copy_headers(out: Path, python: str) -> None:
    """Copies Python.h and what it includes."""
    include = _run([python, "-c", _INCLUDE]).strip()
    if not (Path(include) / "Python.h").exists():
        raise SystemExit(f"--python: {python} has no Python.h in {include}, expected one with headers")
    shutil.copytree(include, out / _EXTRA / "include", dirs_exist_ok=True)


def build(out: Path, python: str, torch: str) -> None:
    """Compiles the libraries in the kit, for that Python and torch; the peers come beside them.

    Raises:
        CommandError: a command ends with an error.
    """
    venv = prepare(folder_of(torch, python), torch, BUILD_TOOLS, python)
    venv.pip("install", "--no-deps", "--no-compile", "--upgrade", f"--target={out / _EXTRA / 'site'}", *PEERS)
    objects = os.environ.get("HYBRIDKERN_OBJECTS", "").strip()
    given = {"HYBRIDKERN_OBJECTS": str(Path(objects).resolve())} if objects else {}
    venv.run("setup.py", "build_ext", "--inplace", cwd=out, **compiling(venv, **given))
    for library in (out / "hybridkern").glob("*.so"):
        _run(["strip", "--strip-unneeded", str(library)])
    shutil.rmtree(out / "build", ignore_errors=True)


def size_of(folder: Path) -> int:
    """Bytes of all files.

    Raises:
        SystemExit: they are too many.
    """
    sizes = {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    total = sum(sizes.values())
    if total > MOST_BYTES:
        largest = sorted(sizes, key=lambda path: -sizes[path])[:5]
        names = ", ".join(f"{path.relative_to(folder)} ({sizes[path]} bytes)" for path in largest)
        raise SystemExit(f"the kit: got {total} bytes, expected at most {MOST_BYTES}; the largest are {names}")
    return total


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu.kit", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "gpu-kit", help="folder (default build/gpu-kit)")
    parser.add_argument("--python", default="python3.12", help="of the machine's version, with headers")
    parser.add_argument("--torch", default="torch==2.11.0", help="of the machine, for pip")
    options = parser.parse_args(arguments)
    # a command on the path may be a shim that refuses to run
    python = options.python if version_of(options.python) else interpreter(options.python.removeprefix("python"))
    if python is None:
        raise SystemExit(f"--python: got {options.python}, expected an interpreter that runs, of the machine's version")
    if options.out.exists():
        shutil.rmtree(options.out)
    options.out.mkdir(parents=True)
    copy_sources(options.out)
    copy_headers(options.out, python)
    try:
        build(options.out, python, options.torch)
    except CommandError as error:
        raise SystemExit(f"the kit was not made: {error}") from None
    for cache in options.out.rglob("__pycache__"):
        shutil.rmtree(cache)
    total = size_of(options.out)
    print(f"{options.out}: {total / 1e6:.1f} MB. On the machine, in this folder: python3 -m benchmarks.gpu --out DIR")
    return 0


def _run(command: Sequence[str], **options: object) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}")
    return str(done.stdout)


if __name__ == "__main__":
    sys.exit(main())
