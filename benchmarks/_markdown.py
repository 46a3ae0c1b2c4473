"""Tables in Markdown, and the parts of pages that are generated: what stands between two comments."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks._results import write_text


def table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table; every line has a cell a column."""
    rule = "|" + "---|" * len(header)
    first, *rest = (f"| {' | '.join(cells)} |" for cells in (header, *lines))
    return "\n".join([first, rule, *rest])


def time_cell(microseconds: str) -> str:
    """Microseconds, as the files have them, in a unit for people."""
    value = float(microseconds)
    return f"{value / 1000:.3g} ms" if value >= 1000 else f"{value:.3g} us"


def block_of(text: str, name: str) -> str:
    """What stands between the two comments of ``name``.

    Raises:
        ValueError: they are missing.
    """
    found = _pattern(name).search(text)
    if found is None:
        raise ValueError(f"found no lines '<!-- bench:{name} -->' and '<!-- /bench:{name} -->'")
    return found.group().strip()


def replace_block(readme: Path, name: str, block: str) -> None:
    """Writes ``block`` between the two comments of ``name``; the file is replaced at once.

    Raises:
        ValueError: they are missing.
    """
    text = readme.read_text(encoding="utf-8")
    block_of(text, name)
    write_text(readme, _pattern(name).sub(lambda _: block + "\n", text, count=1))


def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(rf"(?<=<!-- bench:{re.escape(name)} -->\n).*?(?=<!-- /bench:{re.escape(name)} -->)", re.DOTALL)
