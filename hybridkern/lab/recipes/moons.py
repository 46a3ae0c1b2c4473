"""Recipe ``moons``: two classes in the plane, of which a few points are labelled.

A RealNVP with a small perceptron on its latents. Unlabelled points teach the flow what data look like; low entropy of
``p(y|x)`` on them moves the boundary to where there are none. Source: Nalisnick et al. 2019 (arXiv:1902.02767).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.datasets import make_moons
from torch import Tensor

from hybridkern.hybrid import objectives
from hybridkern.lab.data import DataSet, Split
from hybridkern.lab.recipes.errors import RecipeError
from hybridkern.lab.recipes.recipe import DataShape, Recipe
from hybridkern.lab.recipes.vectors import results
from hybridkern.lab.recipes.vectors.config import VectorConfig
from hybridkern.lab.recipes.vectors.model import build_model
from hybridkern.lab.recipes.vectors.task import Classification
from hybridkern.lab.recipes.vectors.training import fit

_TEST = 2000
_CENTERS = ((0.0, 0.0), (1.0, 0.5))  # of the half circles of classes 0 and 1


@dataclass(frozen=True)
class MoonsConfig(VectorConfig):
    """Settings of data and model.

    Attributes:
        size: training points; as many are for the curves alone: their labels must choose nothing.
        labelled: how many of them have a label, half of each class, evenly spread along its half circle.
        unlabelled: 0: the others are left out.
        spread: standard deviation of the noise around the half circles, whose radius is 1.
        entropy_weight: of the entropy of ``p(y|x)`` of unlabelled points.
        jitter: standard deviation of the noise that moves the training points anew in each step.
    """

    epochs: int = 800
    batch_size: int = 1000
    lr: float = 5e-3
    schedule: str = "cosine"
    clip: float | None = 10.0
    patience: int = 800
    layers: int = 8
    hidden: int = 64
    head: str = "categorical"
    head_hidden: int = 64
    keep: str = "last"
    size: int = 1000
    labelled: int = 6
    unlabelled: int = 1
    spread: float = 0.1
    entropy_weight: float = 1.0
    jitter: float = 0.12

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_one_of("unlabelled", (0, 1))
        self._require("labelled", 2 <= self.labelled <= self.size, f"2 to the {self.size} training points")
        self._require("jitter", 0 <= self.jitter < math.inf, "a finite number that is not negative")
        self._require("size", self.size >= 10, "a whole number from 10 on")
        if self.data is not None:
            raise RecipeError("--data: the recipe 'moons' draws its own")


def draw(size: int, spread: float, seed: int) -> Split:
    """``size`` points, ``x (size, 2)`` float32 and classes ``y (size,)``."""
    x, y = make_moons(size, noise=spread, random_state=seed)
    return Split(torch.tensor(x, dtype=torch.float32), torch.tensor(y, dtype=torch.int64))


def spread_along(points: Split, label: int, count: int) -> Tensor:
    """Indices ``(count,)`` of points of a class, evenly spread from one end of its half circle to the other."""
    (members,) = torch.nonzero(points.y == label, as_tuple=True)
    x, y = (points.x[members] - torch.tensor(_CENTERS[label])).unbind(1)
    along = torch.atan2(y if label == 0 else -y, x).argsort()
    places = (torch.arange(count) + 0.5) / count * len(members)
    return members[along[places.long()]]


def _load(config: MoonsConfig) -> DataSet:
    seeds = np.random.SeedSequence(config.data_seed).generate_state(3)
    train, validation, test = (
        draw(size, config.spread, int(seed))
        for size, seed in zip((config.size, config.size, _TEST), seeds, strict=True)
    )
    half = config.labelled // 2
    known = torch.cat([spread_along(train, 0, config.labelled - half), spread_along(train, 1, half)])
    if config.unlabelled:
        y = torch.full_like(train.y, -1)
        y[known] = train.y[known]
        train = Split(train.x, y)
    else:
        train = Split(train.x[known], train.y[known])
    return DataSet(train, validation, test, (2,), classes=2, grey_levels=0, source="drawn, two half moons")


def _build(config: MoonsConfig, data: DataShape) -> Classification:
    lam = config.weight(data.dim)
    objective = objectives.SemiSupervised(objectives.Weighted(lam), config.entropy_weight, balanced=True)
    return Classification(build_model(config, data), objective, lam, jitter=config.jitter)


RECIPE = Recipe(
    name="moons",
    summary="RealNVP and a classifier on two half moons, few points labelled",
    config=MoonsConfig(),
    load=_load,
    build=_build,
    fit=fit,
    evaluate=results.evaluate,
    draw=results.draw_run,
)
