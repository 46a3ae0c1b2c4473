"""The package beside another torch: ``python -m tests.packaging.other_torch --torch torch==2.11.0``.

Installs torch into a folder of its own, which is kept (``buildtools/environments.py``), takes the extension as it was
built for this checkout, and runs the tests that another torch may break: loading, registration, choice, compilation,
derivatives, flows.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from buildtools.environments import ROOT, CommandError, folder_of, prepare

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


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch", default="torch", help="what pip installs; without a version the newest")
    parser.add_argument("--triton", default="auto", help="likewise; auto: the one that torch asks for; empty: none")
    parser.add_argument("--folder", type=Path, help="of the environment (default: by Python and torch, under build)")
    parser.add_argument("--patience", type=float, default=300.0, help="seconds that pip may take")
    parser.add_argument("--quick", action="store_true", help="fewer tests")
    parser.add_argument("--test-flags", default="", help="of pytest")
    options = parser.parse_args(arguments)
    folder: Path = (options.folder or folder_of(options.torch)).resolve()
    began = time.monotonic()
    try:
        environment = prepare(folder, options.torch, TOOLS, triton=options.triton, patience=options.patience)
    except CommandError as error:
        print(f"not tested: {options.torch} could not be installed ({error})", file=sys.stderr)
        return NOT_INSTALLED
    print(f"installed in {time.monotonic() - began:.0f} s", flush=True)
    variables = environment.variables(PYTHONPATH=str(ROOT))
    subprocess.run([environment.python, "-m", "hybridkern.report"], cwd=ROOT, env=variables, check=True)
    tests = [*(QUICK if options.quick else FULL), *options.test_flags.split()]
    command = [environment.python, "-m", "pytest", "-q", *tests]
    return subprocess.run(command, cwd=ROOT, env=variables, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
