"""Recipe ``toy-density``: densities in the plane that are drawn, on which flows are compared.

``checkerboard``: eight squares of side 2 in [-4, 4]^2; ``pinwheel``: five bent arms; ``rings``: two circles of radius 2
and 1, half of the points on each; ``spirals``: two arms of one and a half turns. Of the checkerboard the entropy is
known: ``ln 32`` nats, which no model's NLL can be below.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hybridkern.lab.recipes.density import results
from hybridkern.lab.recipes.density.config import DensityConfig
from hybridkern.lab.recipes.density.recipe import build, table_set
from hybridkern.lab.recipes.density.results import TableSet
from hybridkern.lab.recipes.density.training import fit
from hybridkern.lab.recipes.errors import RecipeError
from hybridkern.lab.recipes.recipe import Recipe

HELD_OUT = 5000


def _checkerboard(n: int, rng: np.random.Generator) -> np.ndarray:
    column, row = rng.integers(0, 4, n), rng.integers(0, 2, n)
    corner = np.stack([column, 2 * row + column % 2], 1)
    return 2 * (corner + rng.random((n, 2))) - 4


def _pinwheel(n: int, rng: np.random.Generator) -> np.ndarray:
    along, across = 2 + 0.6 * rng.normal(size=n), 0.2 * rng.normal(size=n)
    angle = 2 * math.pi / 5 * rng.integers(0, 5, n) + 0.5 * along
    return np.stack([along * np.cos(angle) - across * np.sin(angle), along * np.sin(angle) + across * np.cos(angle)], 1)


def _rings(n: int, rng: np.random.Generator) -> np.ndarray:
    angle, radius = 2 * math.pi * rng.random(n), rng.integers(1, 3, n)
    return radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1) + 0.08 * rng.normal(size=(n, 2))


def _spirals(n: int, rng: np.random.Generator) -> np.ndarray:
    turned, side = 3 * math.pi * np.sqrt(rng.random(n)), rng.choice((-1.0, 1.0), n)
    arm = (side * turned / 3)[:, None] * np.stack([np.cos(turned), np.sin(turned)], 1)
    return arm + 0.1 * rng.normal(size=(n, 2))


DRAWN: dict[str, Callable[[int, np.random.Generator], np.ndarray]] = {
    "checkerboard": _checkerboard, "pinwheel": _pinwheel, "rings": _rings, "spirals": _spirals,
}  # fmt: skip


@dataclass(frozen=True)
class ToyConfig(DensityConfig):
    """Settings of data and model.

    Attributes:
        density: ``"checkerboard"``, ``"pinwheel"``, ``"rings"`` or ``"spirals"``.
        size: points that train; 5000 more choose the epoch, and 5000 test.
        data_seed: from which all points are drawn.
    """

    epochs: int = 200
    batch_size: int = 500
    schedule: str = "cosine"
    patience: int = 200
    weight_decay: float = 0.0
    density: str = "checkerboard"
    size: int = 20_000
    data_seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_one_of("density", tuple(DRAWN))
        self._require("size", self.size >= 100, "a whole number from 100 on")
        self._require("data_seed", self.data_seed >= 0, "a whole number from 0 on")
        for name in ("data", "test_data"):
            if getattr(self, name) is not None:
                raise RecipeError(f"--{name.replace('_', '-')}: the recipe 'toy-density' draws its own")


def _load(config: ToyConfig) -> TableSet:
    rng = np.random.default_rng(config.data_seed)
    drawn = DRAWN[config.density]
    parts = drawn(config.size, rng), drawn(HELD_OUT, rng), drawn(HELD_OUT, rng)
    return table_set(parts, ("x1", "x2"), f"drawn, {config.density}")


RECIPE = Recipe(
    name="toy-density",
    summary="a density in the plane, drawn: checkerboard, pinwheel, rings or spirals",
    config=ToyConfig(),
    load=_load,
    build=build,
    fit=fit,
    evaluate=results.evaluate,
    draw=results.draw_run,
    sampled="csv",
)
