"""The README's table of measurements, from the file of results.

``python -m benchmarks.table`` prints it; with ``--update`` it is also written into README.md.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks._measure import SELF_TOLERANCE, self_check
from benchmarks._results import (
    AGAIN,
    COMPILED,
    EAGER,
    FLOOR,
    OURS,
    RESULTS,
    ROOT,
    Row,
    by_benchmark,
    missed,
    publish,
    read_rows,
)

README = ROOT / "README.md"
_BLOCK = re.compile(r"(?<=<!-- bench:begin -->\n).*?(?=<!-- bench:end -->)", re.DOTALL)
_HEADER = ("work", "hybridkern", "against eager", "against `torch.compile`", "share of `torch.add`'s bytes/s")


def render(rows: Sequence[Row]) -> str:
    """The table in Markdown, and under it the conditions."""
    grouped = by_benchmark(rows)
    lines = ["| " + " | ".join(_HEADER) + " |", "|" + "---|" * len(_HEADER)]
    for name, sides in grouped.items():
        cells = [name, _time(sides[OURS]), *(_ratio(sides.get(side)) for side in (EAGER, COMPILED, FLOOR))]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *_conditions(rows)])


def block_of(readme: str) -> str:
    """What stands between the two markers.

    Raises:
        ValueError: the markers are missing.
    """
    found = _BLOCK.search(readme)
    if found is None:
        raise ValueError("README.md: found no lines '<!-- bench:begin -->' and '<!-- bench:end -->'")
    return found.group().strip()


def update(readme: Path, table: str) -> None:
    """Replaces what stands between the markers."""
    text = readme.read_text(encoding="utf-8")
    block_of(text)
    new = _BLOCK.sub(lambda _: table + "\n", text, count=1)
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", dir=readme.parent, prefix=readme.name, delete=False
    ) as file:
        file.write(new)
    publish(Path(file.name), readme)


def _time(row: Row) -> str:
    microseconds = float(row.median_us)
    return f"{microseconds / 1000:.3g} ms" if microseconds >= 1000 else f"{microseconds:.3g} us"


def _ratio(row: Row | None) -> str:
    if row is None:
        return ""
    unit = "" if row.side == FLOOR else "x"
    text = f"{float(row.ratio_to_ours):.2f}{unit}"
    if not row.target:
        return text
    return f"{text} (target {row.target}{unit}{', **missed**' if missed(row) else ''})"


def _conditions(rows: Sequence[Row]) -> list[str]:
    first = rows[0]
    own = [float(row.ratio_to_ours) for row in rows if row.side == AGAIN]
    disturbed = [row.benchmark for row in rows if row.side == AGAIN and not self_check(float(row.ratio_to_ours))]
    targets = [row for row in rows if row.target]
    span = f"{min(own):.2f} to {max(own):.2f} (must be 1 +- {SELF_TOLERANCE:.2f})"
    lines = [
        f"{first.cpu}, {first.threads} threads, kernels in {first.instruction_set}, torch {first.torch}, {first.date}.",
        f"Medians of {first.rounds} rounds in one process, the sides in turn; a ratio above 1 says that hybridkern is",
        f"faster. The same function against itself: {span}.",
        f"Targets met: {sum(not missed(row) for row in targets)} of {len(targets)}.",
    ]
    if disturbed:
        lines.append(f"DISTURBED, not to be used: {'; '.join(disturbed)}.")
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.table", description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, help="file of results")
    parser.add_argument("--update", action="store_true", help="write the table into README.md")
    options = parser.parse_args(arguments)
    if not options.results.exists():
        print(f"no table: nothing has been measured in full yet ({options.results} does not exist)", file=sys.stderr)
        return 0
    table = render(read_rows(options.results))
    print(table)
    if options.update:
        update(README, table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
