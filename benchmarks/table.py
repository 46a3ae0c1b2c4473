"""The tables of measurements in the documentation, from the files of results.

``python -m benchmarks.table`` prints them; with ``--update`` they are also written into ``docs/benchmarks.md``,
without targets, and into ``docs/targets.md``, with them.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import _markdown, headline, operator_table, residual_step
from benchmarks._results import COUPLING_NETWORK, OPERATORS, PARTS, RESULTS, ROOT, read_csv, read_rows
from benchmarks.glow import memory_table, step_table
from benchmarks.integrations import table as integrations_table
from benchmarks.integrations.sizes import table as sizes_table

README = ROOT / "README.md"
PAGE, TARGETS = ROOT / "docs" / "benchmarks.md", ROOT / "docs" / "targets.md"
_TARGET = re.compile(r" \(target [^)]*\)|\nTargets (?:met|missed): .*")


@dataclass(frozen=True)
class Table:
    """One generated part of a page.

    Attributes:
        name: between the comments ``<!-- bench:NAME -->`` and ``<!-- /bench:NAME -->``.
        file: the results, in ``benchmarks/results``.
        render: from the path of the file to Markdown.
        command: what measures it.
    """

    name: str
    file: str
    render: Callable[[Path], str]
    command: str

    def text(self, folder: Path = RESULTS) -> str:
        """What the page of targets must show."""
        path = folder / self.file
        return self.render(path) if path.exists() else f"Not measured yet; `{self.command}` does it."

    def pages(self, folder: Path = RESULTS) -> dict[Path, str]:
        """What each page must show."""
        text = self.text(folder)
        return {PAGE: _TARGET.sub("", text), TARGETS: text}


TABLES = (
    Table("operators", OPERATORS, lambda path: operator_table.render(read_rows(path)), "make bench"),
    Table("coupling-network", COUPLING_NETWORK, lambda path: operator_table.render(read_rows(path)), "make bench"),
    Table("parts", PARTS, lambda path: operator_table.render(read_rows(path)), "make bench"),
    Table("glow-step", step_table.FILE, lambda path: step_table.render(read_csv(path)), "make bench-glow"),
    Table(
        "glow-memory",
        memory_table.FILE,
        lambda path: memory_table.render(read_csv(path)),
        "make bench BENCH_FLAGS=glow-memory",
    ),
    Table(
        "integrations",
        integrations_table.FILE,
        lambda path: integrations_table.render(read_csv(path)),
        "make bench BENCH_FLAGS=integrations",
    ),
    Table(
        "integrations-one-thread",
        integrations_table.ONE_THREAD,
        lambda path: integrations_table.render(read_csv(path)),
        "python -m benchmarks.integrations --threads 1",
    ),
    Table(
        "residual-step",
        residual_step.FILE,
        lambda path: residual_step.render(read_csv(path)),
        "python -m benchmarks.residual_step",
    ),
    Table(
        "integrations-sizes",
        sizes_table.FILE,
        lambda path: sizes_table.render(read_csv(path)),
        "make bench BENCH_FLAGS=sizes",
    ),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.table", description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of results")
    parser.add_argument("--update", action="store_true", help="write the tables into the documentation")
    options = parser.parse_args(arguments)
    for table in TABLES:
        text = table.text(options.results)
        print(f"{table.name}\n\n{text}\n")
        if options.update:
            for page, shown in table.pages(options.results).items():
                _markdown.replace_block(page, table.name, shown)
    if options.update:
        _markdown.replace_block(README, headline.NAME, headline.render(options.results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
