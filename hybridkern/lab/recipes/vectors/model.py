"""The model of a configuration for vectors."""

from __future__ import annotations

from typing import Any

from torch import nn

from hybridkern import flows
from hybridkern.hybrid import HybridModel, heads
from hybridkern.lab.recipes.errors import RecipeError
from hybridkern.lab.recipes.recipe import DataShape
from hybridkern.lab.recipes.vectors.config import VectorConfig

_FORM = "realnvp"  # named, so that a run means the same whatever form a flow has by itself


def build_model(config: VectorConfig, data: DataShape) -> HybridModel:
    """Flow and head of a configuration, with torch's global generator.

    Raises:
        RecipeError: the head is not one for these targets, or the flow cannot be built.
    """
    if (config.head == "categorical") != (data.classes > 0):
        kind = "classes" if data.classes else "numbers"
        raise RecipeError(f"--set head: got '{config.head}', expected another one: the targets are {kind}")
    try:
        if config.flow == "planar":
            flow: flows.Flow = flows.Planar(data.dim, config.layers)
        else:
            flow = flows.RealNVP(
                data.dim,
                config.layers,
                (config.hidden,) * 2,
                form=_FORM,
                activation=nn.SiLU,
                dropout=config.dropout,
            )
    except ValueError as error:
        raise RecipeError(f"the flow cannot be built: {error}") from error
    return HybridModel(flow, _head(config, data))


def _head(config: VectorConfig, data: DataShape) -> heads.Head:
    if config.head == "bayesian":
        # about targets of standard deviation 1; both numbers are learned
        return heads.BayesianLinear(data.dim, prior_precision=1.0, noise=0.5, bias=True, trainable=True)
    hidden = (config.head_hidden,) * 2 if config.head_hidden else ()
    options: dict[str, Any] = {"activation": nn.SiLU, "dropout": config.dropout}
    if config.head == "gaussian":
        return heads.Gaussian(data.dim, hidden, noise=config.noise, **options)
    return heads.Categorical(data.dim, data.classes, hidden, **options)
