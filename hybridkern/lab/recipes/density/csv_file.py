"""The text of ``.csv`` files: what separates cells, which line holds names, and what is a number."""

from __future__ import annotations

import csv
import logging
import re
import shlex
from collections.abc import Iterable
from pathlib import Path

from hybridkern.lab.archive import DataError, listed, one_line, size_of

Lines = list[tuple[int, list[str]]]
"""The cells of each line, and the number that its end has in the file."""

_MISSING = frozenset(("", "na", "n/a", "nan", "null", "none", "?", "-"))
_DELIMITERS = ",;\t"
_FEW_WHOLE = 0.1  # share of cells without a fraction in a column of fractions
_MANY = 4  # columns, whose first row will hardly count from 0 or 1 by chance
_QUOTED = re.compile('"[^"]*"')


def read_csv(path: Path) -> tuple[list[str], Lines]:
    """The names of the columns, and the lines below them, each as long as there are names.

    Raises:
        DataError: the file is missing, empty or no CSV in UTF-8; a name stands twice, or a line has another length.
    """
    size_of(path)
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            first = _next_line(file)
            delimiter = _delimiter(first)
            # quotes say nothing where rows are written in them too
            quoted = _in_quotes(first, delimiter) and not any(_in_quotes(line, delimiter) for line in file)
            file.seek(0)
            # strict: a quote that nothing closes would make one cell of many lines
            reader = csv.reader(file, delimiter=delimiter, skipinitialspace=True, strict=True)
            lines = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is no text in UTF-8") from error
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num}: cannot be read as CSV ({one_line(error)})") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({one_line(error)})") from error
    if not lines:
        raise DataError(f"{path}: is empty, expected rows of numbers")
    _cut_empty_columns([row for _, row in lines])
    names = _header(path, lines, quoted)
    for number, row in lines:
        if len(row) != len(names):
            raise DataError(f"{path}: line {number}: got {len(row)} values, expected {len(names)}")
    return names, lines


def _next_line(file: Iterable[str]) -> str:
    """The next line that holds something, as it stands in the file; empty where there is none."""
    return next((line for line in file if line.strip()), "")


def _in_quotes(line: str, delimiter: str) -> bool:
    """Whether all cells of a line are in quotes, as programs write text, and do not write numbers."""
    return '"' in line and all(set(cell.strip()) <= {'"'} for cell in _QUOTED.sub('"', line).split(delimiter))


def _delimiter(first: str) -> str:
    """What separates the cells of a first line: names in quotes may hold any, and numbers a decimal comma."""
    counts = {one: _QUOTED.sub("", first).count(one) for one in _DELIMITERS}
    if first.strip(" \t\r\n,;.+-0123456789eE") == "" and (counts[";"] or counts["\t"]):
        counts[","] = 0
    return max(counts, key=counts.__getitem__)


def _cut_empty_columns(rows: list[list[str]]) -> None:
    """Takes away the last columns where they hold nothing at all, as behind a delimiter at the end of every line."""
    if any(len(row) != len(rows[0]) for row in rows):
        return
    while len(rows[0]) > 1 and not any(row[-1].strip() for row in rows):
        for row in rows:
            row.pop()


def _header(path: Path, lines: Lines, quoted: bool) -> list[str]:
    """Names of the columns; a first line that has any, or alone is in quotes, takes leave of ``lines``."""
    _, first = lines[0]
    names = [cell.strip() for cell in first]
    if all(is_number(cell) or is_missing(cell) for cell in first):
        if not quoted and not _are_names(names, lines):
            return [f"x{index + 1}" for index in range(len(first))]
        logging.getLogger("hybridkern").warning(
            "%s: line %d (%s) is read as names of columns: %s", path, lines[0][0], listed(names),
            "numbers in quotes above numbers without" if quoted else "whole numbers above others",
        )  # fmt: skip
    require_different(path, names)
    del lines[0]
    return names


def _are_names(first: list[str], lines: Lines) -> bool:
    """Whether a first line of numbers names the columns, as years do, and the 0, 1, 2 of a data frame without names."""
    if len(lines) < 2 or len(set(first)) < len(first) or not all(map(is_whole, first)):
        return False
    below = [[row[i] for _, row in lines[1:] if i < len(row)] for i in range(len(first))]
    fractions = [sum(map(is_whole, cells)) < _FEW_WHOLE * len(cells) for cells in below]
    counted = any(first == [str(i + start) for i in range(len(first))] for start in (0, 1))
    return all(fractions) or (counted and (any(fractions) or len(first) >= _MANY))


def is_whole(cell: str) -> bool:
    """Whether a cell is a whole number without point or exponent."""
    return cell.strip().removeprefix("-").isdecimal()


def number_in(cell: str) -> float:
    """The number in a cell; Python would take ``1_2`` for 12."""
    if "_" in cell:
        raise ValueError(cell)
    return float(cell)


def is_number(cell: str) -> bool:
    """Whether a cell is a number, and no word for a missing one."""
    try:
        number_in(cell)
    except ValueError:
        return False
    return not is_missing(cell)


def is_missing(cell: str) -> bool:
    """Whether a cell is empty or says that its value is missing."""
    return cell.strip().lower() in _MISSING


def require_different(path: Path, names: list[str]) -> None:
    """Raises DataError where two columns have one name."""
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise DataError(f"{path}: two columns are named '{twice[0]}'")


def dropping(name: str) -> str:
    """The option that leaves a column out, as it is typed."""
    quoted = '"' + name.replace('"', '""') + '"' if not name or set(name) & set(',"') or name != name.strip() else name
    return f"--set {shlex.quote(f'drop={quoted}')}"
