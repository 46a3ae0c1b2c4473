"""Recipe ``density``: the density of a table of numbers, by a flow.

Rows are divided 8 : 1 : 1 into training, validation and test part by a fixed shuffle; the weights of the lowest
validation loss are kept. All figures are in nats of the data's own units: the density of the standardized rows times
the Jacobian of the standardization. The protocol is that of Papamakarios et al. 2017 (arXiv:1705.07057) and Durkan et
al. 2019 (arXiv:1906.04032) for the UCI sets, but for rounded columns: there they are left out, here they get noise.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch

from hybridkern.lab.archive import DataError
from hybridkern.lab.data import Split
from hybridkern.lab.recipes.density import results
from hybridkern.lab.recipes.density.checks import cells, check_constant, check_table
from hybridkern.lab.recipes.density.config import DensityConfig
from hybridkern.lab.recipes.density.model import build_flow
from hybridkern.lab.recipes.density.results import TableSet
from hybridkern.lab.recipes.density.table import Table, holds_test, read_table
from hybridkern.lab.recipes.density.task import DensityTask
from hybridkern.lab.recipes.density.training import fit
from hybridkern.lab.recipes.errors import RecipeError
from hybridkern.lab.recipes.recipe import DataShape, Recipe

_SPLIT_SEED = 0  # the split belongs to the data, not to the run
_SHARE = 10


def load_table(config: DensityConfig) -> TableSet:
    """The parts of a configuration's table.

    Raises:
        RecipeError: no file is given.
        DataError: a file cannot be read, or its table has no density that can be learnt.
    """
    if config.data is None:
        raise RecipeError("--data: the recipe 'density' needs a table, FILE.csv or FILE.npz")
    table = read_table(Path(config.data), config.dropped)
    if config.test_data is not None:
        table = _with_test(table, read_table(Path(config.test_data), config.dropped))
    check_table(table)
    train, validation, test = _parts(table)
    check_constant(table, train, " of the training part")
    if config.noise == "auto":
        _note_repeated(table, train)
    return table_set((train, validation, test), table.names, table.path.name)


def table_set(parts: tuple[np.ndarray, np.ndarray, np.ndarray], names: tuple[str, ...], source: str) -> TableSet:
    """Training, validation and test rows ``(N, D)`` as a data set without targets."""
    train, validation, test = (Split(torch.from_numpy(x), torch.zeros(len(x), dtype=torch.int64)) for x in parts)
    return TableSet(train, validation, test, (len(names),), classes=0, grey_levels=0, source=source, names=names)


def check_files(config: DensityConfig) -> None:
    """One test part, which is no part of the training.

    Older versions took two, and left those in the files out; runs of theirs are evaluated as they were.

    Raises:
        RecipeError: ``test_data`` is the file of ``data``.
        DataError: one of the two files holds a test part, or cannot be read.
    """
    if config.data is None or config.test_data is None:
        return
    data, test = Path(config.data), Path(config.test_data)
    if data.exists() and test.exists() and data.samefile(test):
        raise RecipeError(
            f"--test-data: got {test}, the file of --data, all of which is trained on; expected another one, or none: "
            "then a part of the file is the test"
        )

    for path in (data, test):
        if holds_test(path):  # either would be left out
            raise DataError(f"{path}: holds X_test, a test part of its own; expected none beside --test-data")


def _with_test(table: Table, other: Table) -> Table:
    if other.names != table.names:
        raise DataError(f"{other.path}: got the columns {', '.join(other.names)}, expected {', '.join(table.names)}")
    if len(other.values) == 0:
        raise DataError(f"{other.path}: holds no row")
    return Table(table.path, table.names, table.values, other.values)


def _parts(table: Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(table.values))
    held = -(-len(order) // _SHARE)
    if table.test is not None:
        return table.values[order[held:]], table.values[order[:held]], table.test
    return table.values[order[2 * held :]], table.values[order[held : 2 * held]], table.values[order[:held]]


def _note_repeated(table: Table, train: np.ndarray) -> None:
    loose = [name for name, repeated in zip(table.names, cells(train)[1], strict=True) if repeated]
    if loose:
        logging.getLogger("hybridkern").warning(
            "%s: values repeat without a grid in: %s; a flow may put peaks on them, and its NLL then means little",
            table.path, ", ".join(loose),
        )  # fmt: skip


def build(config: DensityConfig, data: DataShape) -> DensityTask:
    """The task of a configuration."""
    return DensityTask(build_flow(config, data.dim), noise=config.noise == "auto")


RECIPE = Recipe(
    name="density",
    summary="density of a table of numbers",
    config=DensityConfig(),
    load=load_table,
    build=build,
    check=check_files,
    files=lambda config: [Path(path) for path in (config.data, config.test_data) if path is not None],
    fit=fit,
    evaluate=results.evaluate,
    draw=results.draw_run,
    sampled="csv",
)
