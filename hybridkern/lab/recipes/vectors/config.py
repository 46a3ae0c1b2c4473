"""Settings of the recipes on vectors."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, TypeVar

from hybridkern.lab.recipes.config import Config

FLOWS = ("realnvp", "planar")
HEADS = ("gaussian", "bayesian", "categorical")
NOISES = ("shared", "input")
KEPT = ("best", "last")
_C = TypeVar("_C", bound="VectorConfig")


@dataclass(frozen=True)
class VectorConfig(Config):
    """Settings of model and training; the weight of ``-log p(x)`` is ``lam``, in nats of the data's own units.

    Attributes:
        flow: ``"realnvp"`` or ``"planar"``.
        layers: number of couplings or maps. hidden: units of the two hidden layers of a coupling network.
        dropout: dropout probability in the coupling networks.
        head: ``"gaussian"`` or ``"bayesian"`` (linear) for numbers, ``"categorical"`` for classes.
        head_hidden: units of the two hidden layers of the head; 0 makes it linear.
        noise: of the Gaussian head: ``"shared"``, or ``"input"`` where it depends on ``x``.
        minutes: wall time after which training ends, at the end of an epoch.
        keep: ``"best"``: the weights of the lowest validation loss; ``"last"``: validation chooses nothing.
        starts: number of initial weights that are tried; the worse half is dropped again and again (planar flow).
        data_seed: random seed of generated data.
    """

    lam: float | None = 1.0
    optimizer: str = "adam"
    flow: str = "realnvp"
    layers: int = 8
    hidden: int = 64
    dropout: float = 0.0
    head: str = "gaussian"
    head_hidden: int = 0
    noise: str = "shared"
    minutes: float | None = None
    keep: str = "best"
    starts: int = 1
    data_seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, choices in (("flow", FLOWS), ("head", HEADS), ("noise", NOISES), ("keep", KEPT)):
            self.require_one_of(name, choices)
        for name in ("layers", "hidden", "starts"):
            self._require(name, getattr(self, name) >= 1, "a whole number from 1 on")
        for name in ("head_hidden", "data_seed"):
            self._require(name, getattr(self, name) >= 0, "a whole number from 0 on")
        self._require("dropout", 0 <= self.dropout < 1, "a share from 0 to below 1")
        timed = self.minutes is None or (math.isfinite(self.minutes) and self.minutes > 0)
        self._require("minutes", timed, "a positive number")

    def _check_options(self, given: Collection[str]) -> None:
        super()._check_options(given)
        self._require("starts", self.starts == 1 or self.flow == "planar", "1 without --flow planar")

    def updated(self: _C, recipe: str, options: dict[str, Any]) -> _C:
        """As the base class; a recipe's own number of starts is for its planar flow only."""
        flow = options.get("flow") or self.flow
        if flow != "planar" and options.get("starts") is None:
            options = options | {"starts": 1}
        return super().updated(recipe, options)
