"""Recipe ``cubic``: one-dimensional regression on drawn data, with a density of three modes.

``x`` is from N(-4, 0.4), N(0, 0.6) and N(4, 0.4) in equal parts (mean, standard deviation), ``y = x**3 + e`` with ``e``
from N(0, 3) in the outer parts and N(0, 20) in the middle one. A flow of three planar maps, and Bayesian linear
regression on its latent. Source: Nalisnick et al. 2019 (arXiv:1902.02767), section on simulated data.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from hybridkern.hybrid import objectives
from hybridkern.lab.data import DataSet, Split
from hybridkern.lab.recipes.errors import RecipeError
from hybridkern.lab.recipes.recipe import DataShape, Recipe
from hybridkern.lab.recipes.vectors import results
from hybridkern.lab.recipes.vectors.config import VectorConfig
from hybridkern.lab.recipes.vectors.model import build_model
from hybridkern.lab.recipes.vectors.task import Regression
from hybridkern.lab.recipes.vectors.training import fit

MEANS, DEVIATIONS, NOISES = (-4.0, 0.0, 4.0), (0.4, 0.6, 0.4), (3.0, 20.0, 3.0)
_TEST = 2000


@dataclass(frozen=True)
class CubicConfig(VectorConfig):
    """Settings of data and model.

    Attributes:
        size: training points; as many are for the curves alone.
    """

    epochs: int = 1000
    batch_size: int = 250
    lr: float = 0.02
    schedule: str = "cosine"
    patience: int = 1000
    flow: str = "planar"
    layers: int = 3
    head: str = "bayesian"
    keep: str = "last"
    starts: int = 32
    size: int = 250

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("size", self.size >= 10, "a whole number from 10 on")
        if self.data is not None:
            raise RecipeError("--data: the recipe 'cubic' draws its own")


def draw(size: int, rng: np.random.Generator) -> Split:
    """``size`` points, ``x (size, 1)`` and ``y (size,)`` float32."""
    part = rng.integers(0, 3, size)
    x = rng.normal(np.take(MEANS, part), np.take(DEVIATIONS, part))
    y = x**3 + rng.normal(0.0, np.take(NOISES, part))
    return Split(torch.tensor(x[:, None], dtype=torch.float32), torch.tensor(y, dtype=torch.float32))


def _load(config: CubicConfig) -> DataSet:
    rng = np.random.default_rng(config.data_seed)
    train, validation, test = (draw(size, rng) for size in (config.size, config.size, _TEST))
    return DataSet(train, validation, test, (1,), classes=0, grey_levels=0, source="drawn, y = x^3 + noise")


def _build(config: CubicConfig, data: DataShape) -> Regression:
    lam = config.weight(data.dim)
    return Regression(build_model(config, data), objectives.Weighted(lam), lam)


RECIPE = Recipe(
    name="cubic",
    summary="planar flow and Bayesian linear regression on y = x^3 + noise",
    config=CubicConfig(),
    load=_load,
    build=_build,
    fit=fit,
    evaluate=results.evaluate,
    draw=results.draw_run,
)
