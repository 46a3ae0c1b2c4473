"""Compares the speed of two revisions of this repository: ``python -m benchmarks.compare --base REV``.

Both are copied out, their extensions built (once: builds are kept in ``.bench/extensions``), and timed by processes
that take turns, with the benchmarks of this checkout. A ratio above 1 says that the head is faster. A second process of
the head is the check: it must give 1.00 +- 0.05. Works that wait for memory move by more than that on a shared machine.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks._measure import LEAST_ROUNDS
from benchmarks._results import ROOT, UNVERIFIED, Record, write_csv
from benchmarks.compare.build import provide
from benchmarks.compare.cases import chosen
from benchmarks.compare.revisions import Revision, export, resolve
from benchmarks.compare.session import BASE, HEAD, compare
from benchmarks.compare.summary import disturbed, record_of, render


def parser() -> argparse.ArgumentParser:
    """The options."""
    options = argparse.ArgumentParser(
        prog="python -m benchmarks.compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = options.add_argument
    add("--base", required=True, help="commit, branch or tag to compare with")
    add("--head", help="the other one (default: the working tree as it is, uncommitted changes too)")
    add("-k", metavar="WORDS", default="", help="only the cases that have all of these words in their names")
    add("--starts", type=int, default=3, help="sets of fresh processes (default 3)")
    add("--rounds", type=int, default=9, help=f"rounds a set; starts * rounds is at least {LEAST_ROUNDS} (default 9)")
    add("--out", type=Path, default=UNVERIFIED / "compare.csv", help="CSV (default .bench/compare.csv)")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    command = parser()
    options = command.parse_args(arguments)
    if options.starts < 1 or options.starts * options.rounds < LEAST_ROUNDS:
        command.error(
            f"rounds: got {options.starts} x {options.rounds}, expected at least {LEAST_ROUNDS} in at least one start"
        )
    cases = chosen(options.k)
    if not cases:
        command.error(f"-k: got {options.k!r}, which no case has in its name")
    try:
        sides = {
            BASE: resolve(ROOT, options.base, "--base"),
            HEAD: resolve(ROOT, options.head, "--head"),
        }
    except ValueError as error:
        command.error(str(error))
    for side, revision in sides.items():
        print(f"{side}: {revision}", flush=True)
    try:
        records = measure(sides, cases, options.starts, options.rounds)
    except RuntimeError as error:
        print(f"no comparison: {error}", file=sys.stderr)
        return 2
    write_csv(options.out, records)
    print(f"\n{render(records)}\nresults: {options.out}")
    return 1 if disturbed(records) else 0


def measure(sides: Mapping[str, Revision], cases: Sequence[str], starts: int, rounds: int) -> list[Record]:
    """Both revisions, exported and built in a temporary folder, in turn; a record a case.

    Raises:
        RuntimeError: an extension cannot be built, or a process does not run.
    """
    with tempfile.TemporaryDirectory(prefix="hybridkern-compare-") as folder:
        sources = {side: Path(folder).resolve() / side / "source" for side in sides}
        for side, revision in sides.items():
            export(ROOT, revision, sources[side])
            print(f"extension of the {side}", file=sys.stderr, flush=True)
            provide(sources[side])
        found, conditions = compare(sources, cases, starts, rounds)
    names = {side: str(revision) for side, revision in sides.items()}
    return [record_of(case, result, names | conditions) for case, result in found.items()]


if __name__ == "__main__":
    sys.exit(main())
