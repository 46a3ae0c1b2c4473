"""The package as users install it: installed and tested in clean environments. ``make wheel-test`` runs it.

Takes sdist and wheels of ``make wheel``. For each case: installs, in an environment of its own and far from the source
tree, runs a selection of the tests, and holds ``python -m hybridkern.report`` to what is true there.

- ``no-compiler``: the sdist, on a machine without a C++ compiler; the result is plain Python.
- ``no-nvcc``: the sdist, with a compiler and without nvcc; the result has the CPU kernels.
- ``wheel-3.11`` and so on: the wheel of each Python that is here, with the torch it was built with and no compiler.
- ``torch-2.10.0`` and so on: the wheel of this Python with other versions of torch (``--torches``); where it has no
  autograd nodes for one, the report must say so; torch 2.9 runs Python and Triton alone.
- ``wheel-3.10-torch-2.10.0`` and so on: another Python with another torch (``--corners``).

Not part of the test suite: it takes minutes, and installs torch once a case (a CUDA build of it without NVIDIA's 5 GB).
A case that held with the same package and tests is not run again, unless ``--again`` says so.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from zipfile import ZipFile

from buildtools.environments import BUILD_TOOLS, ROOT, CommandError, Environment, folder_of, prepare
from buildtools.make_wheels import interpreter
from tests.packaging.held import Held, key_of

TEST_TOOLS = ("numpy", "pytest>=8.3", "pytest-xdist>=3.6", "hypothesis>=6.100", "mpmath>=1.3")
COMPILERS = ("c++", "g++", "clang++", "gcc", "cc", "clang")
SELECTION = (
    "tests/test_packaging.py",
    *(f"tests/ops/test_{name}.py" for name in ("registration", "backends", "nodes", "gradients", "accuracy_coupling")),
    "tests/flows/test_laws.py",
    "tests/flows/test_compile.py::test_compiles_as_one_graph[{}-glow-context]",
    "tests/flows/test_compile.py::test_compiles_as_one_graph[{}-realnvp-2]",
    "tests/codec/test_coder.py",
    "tests/saving/test_files.py",
    "tests/saving/test_saving.py",
)
QUICK = (
    "tests/test_packaging.py",
    *(f"tests/ops/test_{name}.py" for name in ("registration", "backends", "nodes")),
    "tests/saving/test_files.py",
    "tests/saving/test_saving.py",
)

PYTEST_INI = """\
[pytest]
addopts = --import-mode=importlib -ra
pythonpath = .
markers = slow
"""


@dataclass(frozen=True)
class Case:
    """How to install, and what must be true afterwards.

    Attributes:
        name: of the case.
        path: ``PATH`` of the installation and of the tests.
        compiled: whether there must be CPU kernels.
        cuda: whether the CUDA library must be built in.
        nodes: whether there must be autograd nodes in C++, if they were built for the torch that is there.
        variables: others of the installation.
        reason: why there are no CPU kernels, where there are none.
    """

    name: str
    path: str
    compiled: bool
    cuda: bool
    nodes: bool
    variables: dict[str, str] = field(default_factory=dict)
    reason: str = "the extension was not built"


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


def check(
    environment: Environment,
    case: Case,
    nodes: Sequence[str],
    tests: Path,
    test_flags: Sequence[str],
    quick: bool = False,
) -> str:
    """Runs the selection of tests on what is installed; returns pytest's last line.

    Raises:
        CommandError: a test fails, or the report says something that is not so.
    """
    where = environment.run("-c", "import hybridkern; print(hybridkern.__file__)", cwd=tests).strip()
    if not Path(where).is_relative_to(environment.folder):
        raise CommandError(f"the tests would run on {where}, not on the installation")
    report = environment.run("-m", "hybridkern.report", cwd=tests, PATH=case.path)
    print(report)
    version = environment.run("-c", "import torch; print(torch.__version__)").strip()
    if missing := falsehoods(
        report, replace(case, nodes=case.compiled and case.nodes and version.split("+")[0] in nodes), version
    ):
        raise CommandError(f"the report should say: {'; '.join(missing)}")
    required = {"HYBRIDKERN_TEST_REQUIRE_CPP": "1"} if case.compiled else {}
    selection = [test.format("cpp" if case.compiled else "reference") for test in (QUICK if quick else SELECTION)]
    # torch.compile needs a compiler of its own
    arguments = ("-m", "pytest", "-q", "--numprocesses=2", *selection, *test_flags)
    done = environment.run(*arguments, cwd=tests, **required)
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
        checks[case.reason] = line("cpp").startswith(f"not available: {case.reason}")
    autograd = "C++ autograd nodes" if case.nodes else "Python functions: "
    checks[f"autograd runs on {autograd}"] = line("autograd").startswith(autograd)
    built = "sm_" in line("architectures built in")
    checks[f"CUDA architectures are {'' if case.cuda else 'not '}built in"] = built == case.cuda
    return [truth for truth, holds in checks.items() if not holds]


@dataclass(frozen=True)
class Work:
    """A case, what it installs, and where.

    Attributes:
        case: its name and what must be true.
        package: sdist or wheel.
        python: the interpreter.
        torch: what pip installs.
        nodes: releases of torch that there are autograd nodes for.
    """

    case: Case
    package: Path
    python: str
    torch: str
    nodes: tuple[str, ...]


def contents(wheel: Path) -> tuple[bool, list[str]]:
    """Whether there is a CUDA library in a wheel, and the releases of torch that there are more nodes for."""
    names = ZipFile(wheel).namelist()
    more = [found[1] for name in names if (found := re.match(r"hybridkern/nodes_for/([^/]+)/_nodes", name))]
    return any(name.startswith("hybridkern/_cuda") for name in names), more


def number(torch: str) -> str:
    """``2.13.0`` of ``torch==2.13.0``; empty for the newest."""
    return torch.partition("==")[2]


def works_of(dist: Path, folder: Path, torch: str, others: Sequence[str], corners: Sequence[str]) -> list[Work]:
    """The cases, with a ``PATH`` for each made below ``folder``.

    Args:
        dist: holds sdist and wheels.
        folder: for the paths.
        torch: what the wheels were built with.
        others: what the wheel of this Python must run with too.
        corners: what others must run with too, such as ``3.10:torch==2.10.0``.
    """
    here = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    bare, no_nvcc = path_without(folder / "bare", *COMPILERS, "nvcc"), path_without(folder / "no-nvcc", "nvcc")
    nowhere = {"CUDA_HOME": str(folder / "nowhere")}  # a toolkit beside the path must not be found either
    works = []
    for sdist in dist.glob("hybridkern-*.tar.gz"):
        for name, path, compiled in (("no-compiler", bare, False), ("no-nvcc", no_nvcc, True)):
            case = Case(name, path, compiled=compiled, cuda=False, nodes=compiled, variables=nowhere)
            works.append(Work(case, sdist, sys.executable, torch, (number(torch),)))
    for wheel in sorted(dist.glob("hybridkern-*.whl")):
        tag = wheel.name.split("-")[2]
        version = f"{tag[2]}.{tag[3:]}"
        python = sys.executable if tag == here else interpreter(version)
        if python is None:
            print(f"left out wheel-{version}: there is no such Python")
            continue
        cuda, more = contents(wheel)
        nodes = (number(torch), *more)
        works.append(Work(Case(f"wheel-{version}", bare, True, cuda, True), wheel, python, torch, nodes))
        own = [corner.partition(":")[2] for corner in corners if corner.startswith(f"{version}:")]
        for other in others if tag == here else own:
            compiled = not number(other).startswith("2.9.")
            reason = "the extension needs torch 2.10 or newer"
            name = f"{'' if tag == here else f'wheel-{version}-'}torch-{number(other) or 'newest'}"
            case = Case(name, bare, compiled, cuda and compiled, True, reason=reason)
            works.append(Work(case, wheel, python, other, nodes))
    return works


def run_case(work: Work, tests: Path, test_flags: Sequence[str], quick: bool) -> bool:
    """Installs, checks, prints; whether the case holds."""
    case, began = work.case, time.monotonic()
    print(f"\n== {case.name}", flush=True)
    try:
        tools = (*BUILD_TOOLS, *TEST_TOOLS)
        environment = prepare(folder_of(work.torch, work.python), work.torch, tools, work.python)
        ready = time.monotonic()
        flags = ["--force-reinstall", "--no-deps", "--no-cache-dir", "--no-build-isolation"]
        path = f"{environment.folder / 'bin'}{os.pathsep}{case.path}"
        environment.pip("install", *flags, str(work.package), PATH=path, **case.variables)
        print(f"torch in {ready - began:.0f} s, the package in {time.monotonic() - ready:.1f} s", flush=True)
        print(check(environment, case, work.nodes, tests, test_flags, quick))
    except CommandError as error:
        print(f"FAILED: {error}")
        return False
    finally:
        print(f"== {case.name}: {time.monotonic() - began:.0f} s", flush=True)
    return True


def tests_alone(folder: Path) -> Path:
    """The tests that git tracks, far from the source tree."""
    shutil.rmtree(folder, ignore_errors=True)
    command = ["git", "ls-files", "-z", "tests"]
    for name in subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / "pytest.ini").write_text(PYTEST_INI)
    return folder


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dist", type=Path, default=ROOT / "dist", help="holds sdist and wheels, by make wheel")
    parser.add_argument("--torch", default="torch==2.13.0", help="what the wheels were built with")
    parser.add_argument("--torches", default="torch==2.9.1 torch==2.10.0 torch", help="others; `torch`: the newest")
    parser.add_argument("--corners", default="3.10:torch==2.10.0 3.14:torch", help="other Pythons, and a torch of each")
    parser.add_argument("--cases", default="", help="only these, separated by commas")
    parser.add_argument("--again", action="store_true", help="also those that held with the same package and tests")
    parser.add_argument("--quick", action="store_true", help="fewer tests")
    parser.add_argument("--test-flags", default="", help="of pytest")
    options = parser.parse_args(arguments)
    folder = ROOT / "build" / "wheel-test"
    works = works_of(options.dist, folder, options.torch, options.torches.split(), options.corners.split())
    names = [work.case.name for work in works]
    wanted = options.cases.split(",") if options.cases else names
    if not works or (unknown := sorted(set(wanted) - set(names))):
        found = ", ".join(names) or "none; run `make wheel` first"
        raise SystemExit(f"--cases: got {', '.join(unknown) if works else wanted}, expected some of {found}")
    tests, held, flags = tests_alone(folder / "tests-alone"), Held(folder / "held.json"), options.test_flags.split()
    failed = []
    for work in (work for work in works if work.case.name in wanted):
        name = work.case.name
        key = key_of(work.package, tests, [work.python, work.torch, str(options.quick), *flags])
        if held(name, key) and not options.again:
            print(f"\n== {name}: held before, with the same package and tests; --again runs it", flush=True)
            continue
        holds = run_case(work, tests, flags, options.quick)
        held.note(name, key if holds else None)
        failed += [] if holds else [name]
    print(f"\nfailed: {', '.join(failed)}" if failed else f"\nholds: {', '.join(wanted)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
