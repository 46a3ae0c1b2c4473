"""The model of a configuration: Glow, and a classifier on its latents."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from hybridkern import flows
from hybridkern.hybrid import HybridModel
from hybridkern.hybrid.heads import Categorical
from hybridkern.lab.recipes.errors import RecipeError
from hybridkern.lab.recipes.images.config import ImagesConfig
from hybridkern.lab.recipes.images.semi import SemiSupervisedTask
from hybridkern.lab.recipes.images.task import ImageTask
from hybridkern.lab.recipes.recipe import DataShape
from hybridkern.transforms.residual import Series

# of a residual flow's log-determinant that are taken always: the rest is drawn, so that means have no bias, and the
# mean over a test part is certain enough with fewer than the flow's own 20
_TERMS = 4


def build(config: ImagesConfig, data: DataShape) -> ImageTask:
    """The model of a configuration for images of this shape, with torch's global generator.

    Raises:
        RecipeError: the images cannot be halved ``levels`` times, or a setting of the flow is unknown to it.
    """
    height, width, *colours = data.shape
    channels = colours[0] if colours else 1
    factor = 2**config.levels
    if height % factor or width % factor:
        raise RecipeError(
            f"--levels: got {config.levels}, expected one by whose power of two ({factor}) both sides of an image of "
            f"{height} x {width} can be divided"
        )
    try:
        flow = _flow(config, (channels, height, width))
    except ValueError as error:
        raise RecipeError(f"the flow cannot be built: {error}") from error
    head = _head(config, flow, data)
    model, lam = HybridModel(flow, head), config.weight(data.dim)
    if config.semi_supervised:
        weights = config.entropy_weight, config.consistency
        task: ImageTask = SemiSupervisedTask(model, lam, data.shape, data.grey_levels, *weights)
    else:
        task = ImageTask(model, lam, data.shape, data.grey_levels)
    task.whiten = config.flow == "glow" and config.whiten and config.permutation == "conv1x1"
    task.logit = config.logit
    return task


def _flow(config: ImagesConfig, shape: tuple[int, int, int]) -> flows.Glow | flows.Residual:
    if config.flow == "glow":
        return flows.Glow(
            shape,
            levels=config.levels,
            steps=config.steps,
            hidden=config.hidden,
            form=config.form,
            net=config.net,
            norm=config.norm,
            permutation=config.permutation,
            memory=config.memory,
        )
    flow = flows.Residual(
        shape,
        blocks=(config.steps,) * config.levels,
        net=config.net,
        activation=config.activation,
        hidden=(config.hidden,) * (3 if config.net == "dense" else 2),
    )
    own = flow.evaluation_series
    flow.evaluation_series = Series(_TERMS, own.proposal, own.rate, own.vectors)
    return flow


def _head(config: ImagesConfig, flow: Any, data: DataShape) -> Categorical:
    hidden = (config.head_hidden,) if config.head_hidden else ()
    options: dict[str, Any] = {"dropout": config.head_dropout, "input_dropout": config.head_input_dropout}
    if not config.semi_supervised:
        options["label_smoothing"] = config.label_smoothing
    if config.head != "all":
        positions = torch.arange(data.dim, dtype=torch.float32)[None]
        options["seen"] = flow.latents(positions)[-1].flatten().round().long()
    return Categorical(data.dim, data.classes, hidden, activation=nn.ReLU, **options)
