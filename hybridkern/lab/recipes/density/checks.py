"""Whether a table has a density that can be learnt: what is wrong is said before anything is trained."""

from __future__ import annotations

import numpy as np

from hybridkern.lab.archive import DataError
from hybridkern.lab.recipes.density.csv_file import dropping
from hybridkern.lab.recipes.density.table import Table, lacks

FEWEST = 50
_ROWS_A_COLUMN = 3
_LARGEST = 1e100  # squares of it are well inside float64
_DEPENDENT = 1e-10  # of the smallest eigenvalue of the correlations
_REPEATED = 2  # so often, on average, values occur in a column that is taken as rounded
_CELLS = 1e6
_OFF_GRID = 0.01


def check_table(table: Table) -> None:
    """Raises DataError where a column is constant, lacks values or follows from others, or there are too few rows."""
    rows = table.values if table.test is None else np.concatenate([table.values, table.test])
    for name, column in zip(table.names, rows.T, strict=True):
        _check_column(table, name, column)
    least = max(FEWEST, _ROWS_A_COLUMN * len(table.names))
    if len(table.values) < least:
        raise DataError(
            f"{table.path}: got {len(table.values)} rows, expected at least {least} for {len(table.names)} columns"
        )
    distinct = len(np.unique(table.values, axis=0))
    if distinct < least:
        raise DataError(f"{table.path}: only {distinct} of {len(table.values)} rows differ, expected at least {least}")
    check_constant(table, table.values)
    _check_dependence(table)


def _check_column(table: Table, name: str, column: np.ndarray) -> None:
    absent = np.flatnonzero(np.isnan(column))
    if len(absent):
        raise lacks(table.path, name, len(absent), f"row {absent[0] + 1}")
    if len(column) and not np.abs(column).max() <= _LARGEST:
        largest = np.abs(column).max()
        raise DataError(f"{table.path}: column '{name}': got the magnitude {largest:g}, expected at most {_LARGEST:g}")
    width = np.ptp(column) if len(column) else 1.0
    if 0 < width < 1 / _LARGEST:
        raise DataError(f"{table.path}: column '{name}': got a width of {width:g}, expected at least {1 / _LARGEST:g}")


def check_constant(table: Table, rows: np.ndarray, part: str = "") -> None:
    """Raises DataError where a column holds one value only; ``part`` says in which rows."""
    for name, column in zip(table.names, rows.T, strict=True):
        if column.min() == column.max():
            raise DataError(
                f"{table.path}: column '{name}': every value{part} is {column[0]:g}, expected at least two; leave the "
                f"column out with {dropping(name)}"
            )


def _check_dependence(table: Table) -> None:
    """A column that others determine leaves the rows on a surface, where a density has no bound."""
    standard = (table.values - table.values.mean(0)) / table.values.std(0)
    correlations = standard.T @ standard / len(standard)
    for second in range(len(table.names)):
        for first in range(second):
            if abs(correlations[first, second]) > 1 - _DEPENDENT:
                raise _follows(table, second, f"'{table.names[first]}'")
    values, vectors = np.linalg.eigh(correlations)
    if values[0] < _DEPENDENT:
        raise _follows(table, int(np.abs(vectors[:, 0]).argmax()), "others")


def _follows(table: Table, column: int, others: str) -> DataError:
    name = table.names[column]
    return DataError(
        f"{table.path}: column '{name}': is a linear function of {others}, so that the table has no density; leave it "
        f"out with {dropping(name)}"
    )


def cells(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each column of ``rows`` ``(N, D)``: the step of the grid on which its values lie, or 0.

    Only columns whose values repeat are looked at, for the values of others may be taken as real numbers.

    Returns:
        The steps ``(D,)``, and whether values repeat without a grid ``(D,)``.
    """
    found = [_cell(column) for column in rows.T]
    return np.array([step for step, _ in found]), np.array([loose for _, loose in found])


def _cell(column: np.ndarray) -> tuple[float, bool]:
    values = np.unique(column)
    if len(values) * _REPEATED > len(column):
        return 0.0, False
    steps = np.diff(values)
    step = float(steps.min())
    if (values[-1] - values[0]) / step > _CELLS:
        return 0.0, True
    counts = np.round(steps / step)
    if np.abs(steps / step - counts).max() >= _OFF_GRID:
        return 0.0, True
    # of the whole range: the smallest difference is off by the roundings of two values, and so are, many steps on,
    # samples that are put on such a grid
    return float((values[-1] - values[0]) / counts.sum()), False
