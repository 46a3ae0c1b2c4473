"""Every benchmark of this machine: ``python -m benchmarks``, or ``make bench``, or some of them by name.

Each suite runs in a process of its own and writes its file in ``benchmarks/results``; then the pictures are drawn and
tables of the documentation written. A suite that fails leaves its published results as they were, and the others still
run.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence

from benchmarks._environment import ALLOCATOR
from benchmarks._results import ROOT

SUITES: Mapping[str, tuple[str, ...]] = {
    "operators": ("-m", "pytest", "benchmarks"),
    "glow-step": ("-m", "benchmarks.glow_step"),
    "glow-memory": ("-m", "benchmarks.glow_memory"),
    "integrations": ("-m", "benchmarks.integrations"),
    "residual-step": ("-m", "benchmarks.residual_step"),
    "sizes": ("-m", "benchmarks.integrations.sizes"),
}
_AFTERWARDS = {"pictures": ("-m", "benchmarks.plot"), "tables": ("-m", "benchmarks.table", "--update")}


def run_all(commands: Mapping[str, Sequence[str]]) -> list[str]:
    """Runs the interpreter with each of the arguments, one after the other; the names of those that failed."""
    failed = []
    for name, arguments in commands.items():
        print(f"== {name}", flush=True)
        done = subprocess.run([sys.executable, *arguments], cwd=ROOT, env=ALLOCATOR | dict(os.environ), check=False)
        if done.returncode:
            failed.append(name)
    return failed


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("suites", nargs="*", help=f"some of: {', '.join(SUITES)} (default: all)")
    parser.add_argument("-k", metavar="WORDS", help="of the operators only those that pytest selects by these words")
    options = parser.parse_args(arguments)
    if unknown := set(options.suites) - set(SUITES):
        parser.error(f"suites: got {', '.join(sorted(unknown))}, expected some of {', '.join(SUITES)}")
    chosen = {name: SUITES[name] for name in options.suites or SUITES}
    if options.k and "operators" in chosen:
        chosen["operators"] = (*chosen["operators"], "-k", options.k)
    failed = run_all(chosen) + run_all(_AFTERWARDS)
    print(f"failed: {', '.join(failed)}" if failed else "every suite held")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
