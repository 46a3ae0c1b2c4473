"""Tables of numbers from ``.csv`` and ``.npz`` files; what cannot be read is named by file, column and line."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hybridkern.lab.archive import DataError, array_names, listed, read_arrays
from hybridkern.lab.recipes.density.csv_file import (
    dropping,
    is_missing,
    is_number,
    is_whole,
    number_in,
    read_csv,
    require_different,
)

_KEYS = ("x", "X", "data")
_PARTS = ("X_train", "X_test")
_NAMES = "feature_names"
_DECIMAL_COMMA = re.compile(r"\s*[+-]?\d+,\d+(e[+-]?\d+)?\s*", re.IGNORECASE)
_LARGEST_WHOLE = 2.0**53  # float64 holds all whole numbers up to it


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

    A first line that alone has all of its cells in quotes is one of names, with a note where they are numbers. A first
    line of different whole numbers is one of names, with a note, where the columns below hold fractions, or
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


def holds_test(path: Path) -> bool:
    """Whether a file sets rows aside for the test; raises DataError where it cannot be read."""
    return path.suffix.lower() == ".npz" and set(_PARTS) <= set(array_names(path))


def _kept(path: Path, names: Sequence[str], drop: Sequence[str]) -> list[int]:
    for name in drop:
        if name not in names:
            raise DataError(f"{path}: --set drop: got '{name}', expected some of {listed(names)}")
    kept = [index for index, name in enumerate(names) if name not in drop]
    if not kept:
        raise DataError(f"{path}: --set drop: no column is left")
    return kept


def _read_csv(path: Path, drop: Sequence[str]) -> Table:
    names, lines = read_csv(path)
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


def _numbers_rows(cells: list[str]) -> bool:
    """Whether a column holds different whole numbers, as the row numbers that pandas and R write beside a table."""
    return all(map(is_whole, cells)) and len(set(cells)) == len(cells)


def _column(path: Path, name: str, cells: list[tuple[int, str]]) -> np.ndarray:
    try:
        values = np.array([number_in(cell) for _, cell in cells])
    except ValueError:
        values = np.full(len(cells), np.nan)
    if np.isfinite(values).all():
        for index in np.flatnonzero(np.abs(values) >= _LARGEST_WHOLE):
            number, cell = cells[index]
            if is_whole(cell) and int(cell) != int(values[index]):
                raise _not_held(f"{path}: column '{name}'", cell.strip(), f"line {number}")
        return values
    text = next(((n, cell) for n, cell in cells if not (is_number(cell) or is_missing(cell))), None)
    if text is not None:
        expected = "numbers with a decimal point and no other marks" if _DECIMAL_COMMA.fullmatch(text[1]) else "numbers"
        raise DataError(
            f"{path}: column '{name}': got text ('{text[1].strip()[:40]}' in line {text[0]}), expected {expected}; "
            f"leave the column out with {dropping(name)}"
        )
    missing = [number for number, cell in cells if is_missing(cell)]
    if missing:
        raise lacks(path, name, len(missing), f"line {missing[0]}")
    number, cell = next((n, cell) for n, cell in cells if not np.isfinite(float(cell)))
    raise DataError(f"{path}: column '{name}': got {cell.strip()} in line {number}, expected finite numbers")


def lacks(path: Path, name: str, count: int, first: str) -> DataError:
    """The error for a column with missing values."""
    values = "value is" if count == 1 else "values are"
    return DataError(
        f"{path}: column '{name}': {count} {values} missing (the first in {first}), expected none; leave the column "
        f"out with {dropping(name)}, or those rows out of the file"
    )


def _not_held(where: str, value: object, row: str) -> DataError:
    return DataError(f"{where}: got {value} in {row}, which float64 cannot hold; expected whole numbers up to 2^53")


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
    for key, rows in zip(wanted, found, strict=True):
        if not len(rows):
            raise DataError(f"{path}: {key}: holds no row")
    given = [f"x{i + 1}" for i in range(columns)] if names is None else _given(path, names, columns)
    kept = _kept(path, given, drop)
    values, *test = [values[:, kept] for values in found]
    return Table(path, tuple(given[index] for index in kept), values, test[0] if test else None)


def _given(path: Path, names: np.ndarray, columns: int) -> list[str]:
    if names.shape != (columns,) or names.dtype.kind not in "US":
        raise DataError(
            f"{path}: {_NAMES}: got {names.dtype} of shape {names.shape}, expected text of shape ({columns},)"
        )
    given = [name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name) for name in names.tolist()]
    require_different(path, given)
    return given


def _numbers(path: Path, key: str, values: np.ndarray) -> np.ndarray:
    if values.dtype.kind not in "iufb":
        what = "text" if values.dtype.kind in "US" else f"{values.dtype} values"
        raise DataError(f"{path}: {key}: got {what}, expected numbers")
    if values.ndim != 2 or values.shape[1] == 0:
        raise DataError(f"{path}: {key}: got shape {values.shape}, expected (N, D)")
    held = values.astype(np.float64)
    if values.dtype.kind in "iu":
        for row, column in np.argwhere(np.abs(held) >= _LARGEST_WHOLE):
            if int(held[row, column]) != int(values[row, column]):
                raise _not_held(f"{path}: {key}", values[row, column], f"row {row + 1}, column {column + 1}")
    return held
