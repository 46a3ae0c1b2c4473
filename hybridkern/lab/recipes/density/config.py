"""Settings of the recipes that learn the density of a table."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from typing import Any

from hybridkern.lab.recipes.config import Config
from hybridkern.lab.recipes.errors import RecipeError

FLOWS = ("nsf", "maf", "realnvp", "residual")
NETS = ("mlp", "dense")
ACTIVATIONS = ("lipswish", "clipswish")
NOISES = ("auto", "none")


@dataclass(frozen=True)
class DensityConfig(Config):
    """Settings of data, model and training; the loss is ``-log p(x)``, and has no weight ``lam``.

    Attributes:
        test_data: a file whose rows are the test part; those of ``data`` are then all for training and validation.
        drop: names of columns to leave out, separated by commas; a name with a comma in quotes.
        noise: ``"auto"``: columns whose values repeat and lie on a grid get uniform noise as wide as its step, since
            such values have no density; ``"none"``: no noise.
        flow: ``"nsf"``, ``"maf"``, ``"realnvp"`` or ``"residual"``.
        layers: number of layers of the flow.
        hidden: units of the two hidden layers of each network; for ``net="dense"`` its growth.
        bins, bound: of ``"nsf"``, see :class:`hybridkern.flows.NSF`.
        net, activation, depth: of ``"residual"``, see :class:`hybridkern.flows.Residual`; depth: hidden layers.
        minutes: wall time after which training ends, at the end of an epoch.
    """

    epochs: int = 1000
    batch_size: int = 256
    patience: int = 30
    optimizer: str = "adamw"
    lr: float = 1e-3
    weight_decay: float = 1e-3
    clip: float | None = 5.0
    test_data: str | None = None
    drop: str = ""
    noise: str = "auto"
    flow: str = "nsf"
    layers: int = 5
    hidden: int = 64
    bins: int = 8
    bound: float = 5.0
    net: str = "mlp"
    activation: str = "lipswish"
    depth: int = 2
    minutes: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, choices in (("flow", FLOWS), ("net", NETS), ("activation", ACTIVATIONS), ("noise", NOISES)):
            self.require_one_of(name, choices)
        for name in ("layers", "hidden", "depth"):
            self._require(name, getattr(self, name) >= 1, "a whole number from 1 on")
        self._require("bins", self.bins >= 2, "a whole number from 2 on")
        self._require("bound", 0 < self.bound < math.inf, "a positive number")
        timed = self.minutes is None or (math.isfinite(self.minutes) and self.minutes > 0)
        self._require("minutes", timed, "a positive number")
        if self.lam is not None:
            raise RecipeError(f"--lam: got {self.lam}, expected none: nothing is weighed against log p(x)")

    def weight(self, dim: int) -> float:
        return 1.0

    def lam_record(self, dim: int) -> dict[str, Any]:
        return {}

    @property
    def dropped(self) -> list[str]:
        """Names of columns to leave out."""
        names = next(csv.reader([self.drop], skipinitialspace=True), [])
        return [name.strip() for name in names if name.strip() or '""' in self.drop]
