"""Recipe ``flights``: the delay of a flight from eight numbers about it, and their density.

An ``.npz`` file holds ``X_train, y_train, X_test, y_test`` float32, the rows in order of time: age of the plane in
years, distance in miles, minutes in the air, departure and arrival in minutes after midnight, weekday, day, month;
``y`` is the delay in minutes. The last tenth of the training rows validates, and a row's clock times are turned,
one-to-one and without changing volumes, into what varies smoothly: see :func:`clocks`. Source of the task: Hensman et
al. 2013 (arXiv:1309.6835); of the hybrid model: Nalisnick et al. 2019 (arXiv:1902.02767).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from hybridkern.hybrid import objectives
from hybridkern.lab.archive import DataError, array_names, listed, read_arrays
from hybridkern.lab.data import DataSet, Split
from hybridkern.lab.recipes.errors import RecipeError
from hybridkern.lab.recipes.recipe import DataShape, Published, Recipe
from hybridkern.lab.recipes.vectors import results
from hybridkern.lab.recipes.vectors.config import VectorConfig
from hybridkern.lab.recipes.vectors.model import build_model
from hybridkern.lab.recipes.vectors.task import Regression
from hybridkern.lab.recipes.vectors.training import fit

FEATURES = ("plane age", "distance", "air time", "departure", "arrival", "weekday", "day", "month")
_TURNED = {
    "departure": "departure, minutes after 4 a.m.",
    "arrival": "minutes not in the air, plus 300",
    "month": "month, July is 0",
}
KEYS = ("X_train", "y_train", "X_test", "y_test")
_DAY = 1440
_NIGHT = 240  # hardly a flight leaves at four: a day begins there
_EARLY = 300  # arrival is in another time zone, up to five hours behind
_MIDYEAR = 5  # a year begins in July, so that December lies between November and January
_HELD_OUT = 10
_LARGEST = 1e12  # squares of it are well inside float32


@dataclass(frozen=True)
class FlightsConfig(VectorConfig):
    """Settings of the model.

    Attributes:
        clock: 1: clock times are turned into what varies smoothly.
    """

    epochs: int = 60
    batch_size: int = 1024
    lr: float = 2e-3
    ema: float | None = 0.999
    clip: float | None = 50.0
    patience: int = 12
    layers: int = 6
    hidden: int = 96
    dropout: float = 0.05
    noise: str = "input"
    clock: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_one_of("clock", (0, 1))


def clocks(x: np.ndarray) -> np.ndarray:
    """Rows ``(N, 8)``: departure counted from four at night, months from July, arrival as time not spent in the air.

    All are additions modulo a day or a year, so that the map is one-to-one on clocks and calendars and keeps volumes:
    ``p(x)`` is the same number before and after it. A December to be predicted then lies between months that are known.
    """
    turned = x.copy()
    turned[:, 3] = (x[:, 3] - _NIGHT) % _DAY
    turned[:, 4] = (x[:, 4] - x[:, 3] - x[:, 2] + _EARLY) % _DAY
    turned[:, 7] = (x[:, 7] + _MIDYEAR) % 12
    return turned


def load_flights(path: str | Path, clock: bool) -> DataSet:
    """Training rows, their last tenth for validation, and test rows.

    Raises:
        DataError: the file is missing or damaged, lacks a key, or holds another shape or values that are not finite.
    """
    path = Path(path)
    arrays = read_arrays(path, KEYS)
    if any(key not in arrays for key in KEYS):
        raise DataError(f"{path}: found the keys {listed(array_names(path))}, expected {', '.join(map(repr, KEYS))}")
    parts = {name: _part(path, arrays, name, clock) for name in ("train", "test")}
    rows = len(parts["train"])
    if rows < _HELD_OUT:
        raise DataError(f"{path}: X_train: got {rows} rows, expected {_HELD_OUT} or more")
    cut = rows - rows // _HELD_OUT
    for key, values in (("X_train", parts["train"].x[:cut]), ("y_train", parts["train"].y[:cut])):
        if (values == values[0]).all():
            raise DataError(f"{path}: {key}: every row of the training part is the same, expected at least two")
    train, held_out = (Split(parts["train"].x[part], parts["train"].y[part]) for part in (slice(cut), slice(cut, None)))
    return DataSet(train, held_out, parts["test"], (len(FEATURES),), classes=0, grey_levels=0, source=path.name)


def _part(path: Path, arrays: dict[str, np.ndarray], name: str, clock: bool) -> Split:
    x, y = arrays[f"X_{name}"], arrays[f"y_{name}"]
    if x.ndim != 2 or x.shape[1] != len(FEATURES) or len(x) == 0:
        raise DataError(f"{path}: X_{name}: got shape {x.shape}, expected (N, {len(FEATURES)}) with at least one row")
    if y.shape != (len(x),):
        raise DataError(f"{path}: y_{name}: got shape {y.shape}, expected ({len(x)},)")
    for key, values in ((f"X_{name}", x), (f"y_{name}", y)):
        if values.dtype.kind not in "iuf" or not np.isfinite(values).all():
            raise DataError(f"{path}: {key}: got {values.dtype} values, expected finite numbers only")
        largest = float(max(values.max(), -float(values.min())))
        if largest > _LARGEST:
            raise DataError(f"{path}: {key}: got the magnitude {largest:g}, expected at most {_LARGEST:g}")
    x = x.astype(np.float64)
    return Split(
        torch.from_numpy((clocks(x) if clock else x).astype(np.float32)), torch.from_numpy(y.astype(np.float32))
    )


def _load(config: FlightsConfig) -> DataSet:
    if config.data is None:
        raise RecipeError("--data: the recipe 'flights' needs an .npz file")
    return load_flights(config.data, bool(config.clock))


def columns(clock: bool) -> list[str]:
    """What the columns of ``x`` and of samples hold: those of the file, or of :func:`clocks`."""
    return [_TURNED.get(name, name) if clock else name for name in FEATURES]


def _evaluate(task: Regression, data: DataSet, config: FlightsConfig) -> results.Results:
    found = results.evaluate(task, data, config)
    return dataclasses.replace(found, metrics=found.metrics | {"columns": columns(bool(config.clock))})


def _build(config: FlightsConfig, data: DataShape) -> Regression:
    lam = config.weight(data.dim)
    return Regression(build_model(config, data), objectives.Weighted(lam), lam, cell=1.0)


RECIPE = Recipe(
    name="flights",
    summary="RealNVP and regression on delays of flights",
    config=FlightsConfig(),
    load=_load,
    build=_build,
    published=lambda config: Published("Nalisnick et al. 2019", {"test_rmse": "40.46", "test_class_nll_nats": "5.07"}),
    fit=fit,
    evaluate=_evaluate,
    draw=results.draw_run,
)
