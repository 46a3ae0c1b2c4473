"""The flow of a configuration."""

from __future__ import annotations

from torch import nn

from hybridkern import flows
from hybridkern.lab.recipes.density.config import DensityConfig
from hybridkern.lab.recipes.errors import RecipeError

_FORM = "realnvp"  # named, so that a run means the same whatever form a flow has by itself


def build_flow(config: DensityConfig, dim: int) -> flows.Flow:
    """The flow on ``dim`` numbers of about unit width, with torch's global generator.

    Raises:
        RecipeError: a setting that the flow does not take.
    """
    hidden = (config.hidden,) * 2
    try:
        if config.flow == "nsf":
            return flows.NSF(dim, layers=config.layers, bins=config.bins, bound=config.bound, hidden=hidden)
        if config.flow == "maf":
            return flows.MAF(dim, layers=config.layers, hidden=hidden, form=_FORM)
        if config.flow == "realnvp":
            return flows.RealNVP(dim, config.layers, hidden, form=_FORM, activation=nn.ReLU)
        return flows.Residual(
            dim,
            blocks=config.layers,
            net=config.net,
            activation=config.activation,
            hidden=(config.hidden,) * config.depth,
        )
    except ValueError as error:
        raise RecipeError(f"the flow cannot be built: {error}") from error
