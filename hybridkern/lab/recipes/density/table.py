"""Tables of numbers from ``.csv`` and ``.npz`` files; what cannot be read is named by file, column and line."""

from __future__ import annotations

import csv
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hybridkern.lab.archive import DataError, array_names, listed, one_line, read_arrays, size_of

_MISSING = frozenset(("", "na", "n/a", "nan", "null", "none", "?", "-"))
_DELIMITERS = ",;\t"
_KEYS = ("x", "X", "data")
_PARTS = ("X_train", "X_test")
_NAMES = "feature_names"
_FEW_WHOLE = 0.1  # share of cells without a fraction in a column of fractions
_MANY = 4  # columns, whose first row will hardly count from 0 or 1 by chance


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        path: of its file.
        names: of the columns.
        values: ``(N, D)`` float64.
        test: rows ``(M, D)`` that the file itself sets aside for the test.
    """

    path: Path
    names: tuple[str, ...]
    values: np.ndarray
    test: np.ndarray | None = None


def read_table(path: Path, drop: Sequence[str] = ()) -> Table:
    """The table in a ``.csv`` file (comma, semicolon or tab; with or without a line of names) or an ``.npz`` file.

    A first line of different whole numbers is one of names, with a note, where the columns below hold fractions, or
    where it counts the columns from 0 or 1 and some hold fractions or they are four or more. A first column that has no
    name where others have, and holds different whole numbers, is left out, with a note: it numbers the rows.

    An ``.npz`` file holds ``X_train`` and ``X_test``, or one of ``x``, ``X`` and ``data``, or one array ``(N, D)`` at
    all; ``feature_names`` names the columns.

    Args:
        path: of the file.
        drop: names of columns to leave out.

    Raises:
        DataError: the file is missing or damaged, holds text or lacks values in a column that is not left out, or no
            such column.
    """
    readers = {".csv": _read_csv, ".npz": _read_npz}
    if path.suffix.lower() not in readers:
        raise DataError(f"{path}: expected a file ending in .csv or .npz")
    return readers[path.suffix.lower()](path, drop)


def _kept(path: Path, names: Sequence[str], drop: Sequence[str]) -> list[int]:
    for name in drop:
        if name not in names:
            raise DataError(f"{path}: --set drop: got '{name}', expected some of {listed(names)}")
    kept = [index for index, name in enumerate(names) if name not in drop]
    if not kept:
        raise DataError(f"{path}: --set drop: no column is left")
    return kept


def _read_csv(path: Path, drop: Sequence[str]) -> Table:
    size_of(path)
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            first = file.readline()
            file.seek(0)
            reader = csv.reader(file, delimiter=max(_DELIMITERS, key=first.count))
            lines = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is no text in UTF-8") from error
    except (OSError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read ({one_line(error)})") from error
    if not lines:
        raise DataError(f"{path}: is empty, expected rows of numbers")
    names = _header(path, lines)
    for number, row in lines:
        if len(row) != len(names):
            raise DataError(f"{path}: line {number}: got {len(row)} values, expected {len(names)}")
    kept = _kept(path, names, drop)
    if not lines:
        raise DataError(f"{path}: holds names alone, expected rows of numbers")
    if len(kept) > 1 and kept[0] == 0 and not names[0] and _numbers_rows([row[0] for _, row in lines]):
        logging.getLogger("hybridkern").warning(
            "%s: the first column is left out: it has no name and numbers the rows; give it a name to keep it", path
        )
        del kept[0]
    columns = [_column(path, names[index], [(number, row[index]) for number, row in lines]) for index in kept]
    return Table(path, tuple(names[index] for index in kept), np.stack(columns, 1))


def _header(path: Path, lines: list[tuple[int, list[str]]]) -> list[str]:
    """Names of the columns; a first line that has any takes leave of ``lines``."""
    _, first = lines[0]
    names = [cell.strip() for cell in first]
    if all(_is_number(cell) or _is_missing(cell) for cell in first):
        if not _are_names(names, lines):
            return [f"x{index + 1}" for index in range(len(first))]
        logging.getLogger("hybridkern").warning(
            "%s: line %d (%s) is read as names of columns: whole numbers above others", path, lines[0][0], listed(names)
        )
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise DataError(f"{path}: two columns are named '{twice[0]}'")
    del lines[0]
    return names


def _are_names(first: list[str], lines: list[tuple[int, list[str]]]) -> bool:
    """Whether a first line of numbers names the columns, as years do, and the 0, 1, 2 of a data frame without names."""
    if len(lines) < 2 or len(set(first)) < len(first) or not all(map(_is_whole, first)):
        return False
    below = [[row[i] for _, row in lines[1:] if i < len(row)] for i in range(len(first))]
    fractions = [sum(map(_is_whole, cells)) < _FEW_WHOLE * len(cells) for cells in below]
    counted = any(first == [str(i + start) for i in range(len(first))] for start in (0, 1))
    return all(fractions) or (counted and (any(fractions) or len(first) >= _MANY))


def _numbers_rows(cells: list[str]) -> bool:
    """Whether a column holds different whole numbers, as the row numbers that pandas and R write beside a table."""
    return all(map(_is_whole, cells)) and len(set(cells)) == len(cells)


def _is_whole(cell: str) -> bool:
    return cell.strip().removeprefix("-").isdecimal()


def _column(path: Path, name: str, cells: list[tuple[int, str]]) -> np.ndarray:
    try:
        values = np.array([float(cell) for _, cell in cells])
        if np.isfinite(values).all():
            return values
    except ValueError:
        pass
    text = next(((n, cell) for n, cell in cells if not (_is_number(cell) or _is_missing(cell))), None)
    if text is not None:
        raise DataError(
            f"{path}: column '{name}': got text ('{text[1].strip()[:40]}' in line {text[0]}), expected numbers; "
            f"leave the column out with --set drop={name}"
        )
    missing = [number for number, cell in cells if _is_missing(cell)]
    if missing:
        raise lacks(path, name, len(missing), f"line {missing[0]}")
    number, cell = next((n, cell) for n, cell in cells if not np.isfinite(float(cell)))
    raise DataError(f"{path}: column '{name}': got {cell.strip()} in line {number}, expected finite numbers")


def lacks(path: Path, name: str, count: int, first: str) -> DataError:
    """The error for a column with missing values."""
    values = "value is" if count == 1 else "values are"
    return DataError(
        f"{path}: column '{name}': {count} {values} missing (the first in {first}), expected none; leave the column "
        f"out with --set drop={name}, or those rows out of the file"
    )


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return not _is_missing(cell)


def _is_missing(cell: str) -> bool:
    return cell.strip().lower() in _MISSING


def _read_npz(path: Path, drop: Sequence[str]) -> Table:
    present = array_names(path)
    wanted = [key for key in _PARTS if key in present] if _PARTS[0] in present else []
    wanted = wanted or [key for key in _KEYS if key in present][:1]
    arrays = read_arrays(path, [*(wanted or present), _NAMES])
    names = arrays.pop(_NAMES, None)
    if not wanted:
        wanted = [key for key, values in arrays.items() if values.ndim == 2]
        if len(wanted) != 1:
            raise DataError(f"{path}: found the keys {listed(present)}, expected 'X_train', 'x' or one array (N, D)")
    found = [_numbers(path, key, arrays[key]) for key in wanted]
    columns = found[0].shape[1]
    if any(values.shape[1] != columns for values in found):
        raise DataError(f"{path}: X_test: got {found[1].shape[1]} columns, expected {columns} as in X_train")
    known = names is not None and names.shape == (columns,)
    given = [str(name) for name in names] if known and names is not None else [f"x{i + 1}" for i in range(columns)]
    kept = _kept(path, given, drop)
    values, *test = [values[:, kept] for values in found]
    return Table(path, tuple(given[index] for index in kept), values, test[0] if test else None)


def _numbers(path: Path, key: str, values: np.ndarray) -> np.ndarray:
    if values.dtype.kind not in "iufb":
        what = "text" if values.dtype.kind in "US" else f"{values.dtype} values"
        raise DataError(f"{path}: {key}: got {what}, expected numbers")
    if values.ndim != 2 or values.shape[1] == 0:
        raise DataError(f"{path}: {key}: got shape {values.shape}, expected (N, D)")
    return values.astype(np.float64)
