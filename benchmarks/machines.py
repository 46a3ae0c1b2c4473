"""The page of benchmarks on other machines, ``docs/results/machines.md``, from the results that were kept of them.

docs/benchmarks.md shows ``benchmarks/results/*.csv``, one machine per table; another one replaces them. To keep both,
the files are moved to ``benchmarks/results/machines/NAME``; ``python -m benchmarks.machines --update`` writes the page.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks._results import RESULTS, ROOT, write_text
from benchmarks.table import TABLES

KEPT = RESULTS / "machines"
PAGE = ROOT / "docs" / "results" / "machines.md"
_HEAD = """# Benchmarks on other machines

The [benchmarks](../benchmarks.md) on other machines, as they were then: a table may be older than the code. The targets
are the same; they were set for a Xeon with AMX."""


def render(kept: Path = KEPT) -> str:
    """The page: for every machine its tables, in the order of docs/benchmarks.md."""
    return "\n\n".join([_HEAD, *_sections(kept)]) + "\n"


def _sections(kept: Path) -> Iterator[str]:
    for folder in sorted(path for path in kept.iterdir() if path.is_dir()):
        yield f"## {folder.name}"
        for table in TABLES:
            if (folder / table.file).exists():
                yield f"### {table.name.replace('-', ' ').capitalize()}\n\n{table.text(folder)}"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.machines", description=__doc__)
    parser.add_argument("--update", action="store_true", help="write the page")
    options = parser.parse_args(arguments)
    text = render()
    print(text)
    if options.update:
        write_text(PAGE, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
