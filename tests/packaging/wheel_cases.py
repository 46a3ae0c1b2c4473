"""The package as users install it: built, installed and tested in clean environments. ``make wheel-test`` runs it.

Builds the sdist, and the wheel from the sdist. Then, in virtual environments of its own and far from the source tree,
for each case: installs, runs the operator tests, and holds ``python -m hybridkern.report`` to what is true there.

- ``no-compiler``: the sdist, on a machine without a C++ compiler; the result is plain Python.
- ``no-nvcc``: the sdist, with a compiler and without nvcc; the result has the CPU kernels.
- ``nvcc-without-gpu``: the wheel built here, with nvcc on the path and no GPU. Skipped, and said so, without nvcc.
- ``newer-torch``: the wheel built here, with a later torch than it was built with (``--newer-torch VERSION``).

Not part of the test suite: it takes minutes and installs torch twice (the later one is a CUDA build, about 5 GB).
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD_TOOLS = ("setuptools>=77.0.3", "ninja", "pybind11>=2.13")
TEST_TOOLS = ("numpy", "pytest>=8.3", "pytest-xdist>=3.6", "hypothesis>=6.100", "mpmath>=1.3")
COMPILERS = ("c++", "g++", "clang++", "gcc", "cc", "clang")

PYTEST_INI = """\
[pytest]
addopts = --import-mode=importlib -ra
pythonpath = .
markers = slow
"""


class Failed(Exception):
    """A case does not hold; the message says what."""


@dataclass(frozen=True)
class Environment:
    """A virtual environment, used through its interpreter."""

    folder: Path

    @classmethod
    def create(cls, folder: Path, *packages: str) -> Environment:
        venv.create(folder, with_pip=True, clear=True)
        made = cls(folder)
        made.pip("install", *packages)
        return made

    @property
    def python(self) -> str:
        return str(self.folder / "bin" / "python")

    def pip(self, *arguments: str, **variables: str) -> None:
        self.run("-m", "pip", "--quiet", "--disable-pip-version-check", *arguments, **variables)

    def run(self, *arguments: str, cwd: Path | None = None, **variables: str) -> str:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HYBRIDKERN_", "CUDA_HOME"))}
        kept.pop("PYTHONPATH", None)
        done = subprocess.run(
            [self.python, *arguments],
            cwd=cwd or self.folder,
            env=kept | variables,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise Failed(f"{' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
        return done.stdout


@dataclass(frozen=True)
class Case:
    """How to install, and what must be true afterwards.

    Attributes:
        name: of the case.
        path: ``PATH`` of the installation and of the tests.
        compiled: whether there must be CPU kernels.
        cuda: whether the CUDA library must be built in; ``None`` where this version has none.
        nodes: whether there must be autograd nodes in C++, which are for the torch they were built with alone.
        variables: others of the installation.
    """

    name: str
    path: str
    compiled: bool
    cuda: bool | None
    nodes: bool
    variables: dict[str, str] = field(default_factory=dict)


def path_without(folder: Path, *programs: str) -> str:
    """A ``PATH`` of one folder that holds links to every program found now, but for those and their variants."""
    folder.mkdir(parents=True, exist_ok=True)
    for place in map(Path, os.environ["PATH"].split(os.pathsep)):
        for program in place.iterdir() if place.is_dir() else ():
            hidden = any(name == program.name or program.name.startswith(f"{name}-") for name in programs)
            link = folder / program.name
            if not hidden and not link.exists() and os.access(program, os.X_OK) and program.is_file():
                link.symlink_to(program)
    return str(folder)


def build(tool: Environment, folder: Path) -> tuple[Path, Path]:
    """The sdist of the source tree, and the wheel of that sdist."""
    source = folder / "source"
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, tracked.split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, source / name)
    script = f"from setuptools import build_meta; print(build_meta.build_sdist({str(folder)!r}))"
    tool.run("-c", script, cwd=source)
    (sdist,) = folder.glob("hybridkern-*.tar.gz")
    tools = f"{tool.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    tool.pip("wheel", "--no-deps", "--no-build-isolation", f"--wheel-dir={folder}", str(sdist), PATH=tools,
             HYBRIDKERN_REQUIRE_EXT="1", MAX_JOBS="2")  # fmt: skip
    (wheel,) = folder.glob("hybridkern-*.whl")
    return sdist, wheel


def check(environment: Environment, case: Case, tests: Path, test_flags: Sequence[str]) -> str:
    """Runs the operator tests on what is installed; returns pytest's last line.

    Raises:
        Failed: a test fails, or the report says something that is not so.
    """
    where = environment.run("-c", "import hybridkern; print(hybridkern.__file__)", cwd=tests).strip()
    if not Path(where).is_relative_to(environment.folder):
        raise Failed(f"the tests would run on {where}, not on the installation")
    report = environment.run("-m", "hybridkern.report", cwd=tests, PATH=case.path)
    print(report)
    version = environment.run("-c", "import torch; print(torch.__version__)").strip()
    if missing := falsehoods(report, case, version):
        raise Failed(f"the report should say: {'; '.join(missing)}")
    required = {"HYBRIDKERN_TEST_REQUIRE_CPP": "1"} if case.compiled else {}
    arguments = ("-m", "pytest", "-q", "--numprocesses=2", "tests/ops", *test_flags)
    done = environment.run(*arguments, cwd=tests, PATH=case.path, OMP_NUM_THREADS="1", **required)
    return done.splitlines()[-1]


def falsehoods(report: str, case: Case, torch: str) -> list[str]:
    """What the report should say and does not.

    Args:
        report: as ``python -m hybridkern.report`` prints it.
        case: what is true.
        torch: the version that is installed.
    """

    def line(start: str) -> str:
        found = (text.strip() for text in report.splitlines() if text.strip().startswith(f"{start} "))
        return next(found, "").removeprefix(start).strip()

    checks = {
        f"torch {torch}": line("torch") == torch,
        "torch sees no GPU": line("devices that torch sees").startswith("none"),
        "the backend cuda is not available": line("cuda").startswith("not available: "),
        "the backend triton is not available": line("triton").startswith("not available: "),
    }
    if case.compiled:
        checks["the backend cpp is available"] = line("cpp").startswith("available: ")
    else:
        checks["the extension was not built"] = line("cpp").startswith("not available: the extension was not built")
    autograd = "C++ autograd nodes" if case.nodes else "Python functions: "
    checks[f"autograd runs on {autograd}"] = line("autograd").startswith(autograd)
    if case.cuda is not None:
        built = "sm_" in line("architectures built in")
        checks[f"CUDA architectures are {'' if case.cuda else 'not '}built in"] = built == case.cuda
    return [truth for truth, holds in checks.items() if not holds]


def cases_of(folder: Path) -> list[Case]:
    """The cases of the wheel's own torch, with a ``PATH`` for each made below ``folder``."""
    has_cuda_sources = any((ROOT / "csrc").glob("*/cuda.cu"))
    tools = f"{folder / 'venv' / 'bin'}{os.pathsep}"
    bare, no_nvcc = path_without(folder / "bare", *COMPILERS, "nvcc"), path_without(folder / "no-nvcc", "nvcc")
    built, not_built = (True, False) if has_cuda_sources else (None, None)
    nowhere = {"CUDA_HOME": str(folder / "nowhere")}  # a toolkit beside the path must not be found either
    cases = [
        Case("no-compiler", tools + bare, compiled=False, cuda=not_built, nodes=False, variables=nowhere),
        Case("no-nvcc", tools + no_nvcc, compiled=True, cuda=not_built, nodes=True, variables=nowhere),
    ]
    if shutil.which("nvcc") is None:
        print("left out nvcc-without-gpu: there is no nvcc on the path")
        return cases
    return [*cases, Case("nvcc-without-gpu", tools + os.environ["PATH"], compiled=True, cuda=built, nodes=True)]


def prepare(folder: Path, torch: str) -> None:
    """Fills ``folder``: the environment ``venv``, sdist and wheel, and the tests far from the source tree."""
    shutil.rmtree(folder, ignore_errors=True)
    build(Environment.create(folder / "venv", torch, *BUILD_TOOLS, *TEST_TOOLS), folder)
    tests = folder / "tests-alone"
    shutil.copytree(folder / "source" / "tests", tests / "tests")
    (tests / "pytest.ini").write_text(PYTEST_INI)


def run_case(environment: Environment, package: Path, case: Case, folder: Path, test_flags: Sequence[str]) -> bool:
    """Installs, checks, prints; whether the case holds."""
    began = time.monotonic()
    print(f"\n== {case.name}", flush=True)
    try:
        flags = ["--no-deps", "--force-reinstall", "--no-cache-dir", "--no-build-isolation"]
        environment.pip("install", *flags, str(package), PATH=case.path, MAX_JOBS="2", **case.variables)
        print(check(environment, case, folder / "tests-alone", test_flags))
    except Failed as error:
        print(f"FAILED: {error}")
        return False
    finally:
        print(f"== {case.name}: {time.monotonic() - began:.0f} s", flush=True)
    return True


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "wheel-test", help="for everything; made anew")
    parser.add_argument("--keep", action="store_true", help="use what an earlier run has built in --folder")
    parser.add_argument("--torch", default="torch==2.13.0", help="what the wheel is built with")
    parser.add_argument("--newer-torch", default="", metavar="VERSION", help="also run newer-torch, e.g. 2.14.1")
    parser.add_argument("--cases", default="", help="only these, separated by commas")
    parser.add_argument("--test-flags", default="", help="of pytest")
    options = parser.parse_args(arguments)
    folder: Path = options.folder.resolve()
    if not options.keep:
        began = time.monotonic()
        prepare(folder, options.torch)
        print(f"sdist and wheel: {time.monotonic() - began:.0f} s", flush=True)
    (sdist,), (wheel,) = folder.glob("hybridkern-*.tar.gz"), folder.glob("hybridkern-*.whl")
    work = [(Environment(folder / "venv"), wheel if case.cuda else sdist, case) for case in cases_of(folder)]
    if options.newer_torch:
        newer = Environment(folder / "venv-newer")
        built = work[-1][2]  # the wheel was built with all that is on the path
        work.append((newer, wheel, replace(built, name="newer-torch", path=os.environ["PATH"], nodes=False)))
    else:
        print("left out newer-torch: name one with --newer-torch VERSION")
    wanted = options.cases.split(",") if options.cases else [case.name for _, _, case in work]
    failed = []
    for environment, package, case in work:
        if case.name in wanted:
            if not Path(environment.python).exists():
                Environment.create(environment.folder, f"torch=={options.newer_torch}", *TEST_TOOLS)
            if not run_case(environment, package, case, folder, options.test_flags.split()):
                failed.append(case.name)
    print(f"\nfailed: {', '.join(failed)}" if failed else f"\nholds: {', '.join(wanted)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
