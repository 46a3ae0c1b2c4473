"""The model of a configuration: Glow, and a classifier on its latents."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from hybridkern import flows
from hybridkern.codec import learn_steps
from hybridkern.flows._latents import latent_shapes
from hybridkern.hybrid import HybridModel
from hybridkern.hybrid.heads import Categorical
from hybridkern.lab.archive import one_line
from hybridkern.lab.recipes.errors import RecipeError
from hybridkern.lab.recipes.images.config import ImagesConfig
from hybridkern.lab.recipes.images.integer_task import IntegerTask
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
    if config.flow == "idf":
        height, width = (-(-side // factor) * factor for side in (height, width))
    if height % factor or width % factor:
        raise RecipeError(
            f"--levels: got {config.levels}, expected one by whose power of two ({factor}) both sides of an image of "
            f"{height} x {width} can be divided"
        )
    try:
        flow = _flow(config, (channels, height, width), data)
    except ValueError as error:
        raise RecipeError(f"the flow cannot be built: {error}") from error
    head = _head(config, flow, data)
    model, lam = HybridModel(flow, head), config.weight(data.dim)
    if isinstance(flow, flows.IDF):
        return IntegerTask(model, lam, data.shape, data.grey_levels)
    if config.semi_supervised:
        weights = config.entropy_weight, config.consistency
        task: ImageTask = SemiSupervisedTask(model, lam, data.shape, data.grey_levels, *weights)
    else:
        task = ImageTask(model, lam, data.shape, data.grey_levels)
    task.whiten = config.flow == "glow" and config.whiten and config.permutation == "conv1x1"
    task.logit = config.logit
    return task


def _flow(
    config: ImagesConfig, shape: tuple[int, int, int], data: DataShape
) -> flows.Glow | flows.Residual | flows.IDF:
    if config.flow == "idf":
        return _integer_flow(config, shape, data.grey_levels)
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


def _integer_flow(config: ImagesConfig, shape: tuple[int, int, int], grey_levels: int) -> flows.IDF:
    if config.semi_supervised or config.logit or config.redrawn:
        name = "logit" if config.logit else "redrawn" if config.redrawn else "labels"
        raise RecipeError(f"--{name}: got {getattr(config, name)}, expected the default with --flow idf")
    half = max(grey_levels - 1, 1) / 2
    flow = flows.IDF(
        shape,
        levels=config.levels,
        layers=config.steps,
        hidden=config.hidden,
        net=config.net,
        coupling=config.coupling,
        prior=config.prior,
        components=config.components,
        slices=config.slices,
        center=half,
        scale=half,
    )
    if config.quantized:
        try:
            learn_steps(flow)
        except TypeError as error:
            raise RecipeError(f"--quantized: got {config.quantized:g}: {one_line(error)}") from error
    return flow


def _head(config: ImagesConfig, flow: Any, data: DataShape) -> Categorical:
    hidden = (config.head_hidden,) if config.head_hidden else ()
    options: dict[str, Any] = {"dropout": config.head_dropout, "input_dropout": config.head_input_dropout}
    if not config.semi_supervised:
        options["label_smoothing"] = config.label_smoothing
    if config.head != "all":
        positions = torch.arange(flow.dim, dtype=torch.float32)[None]
        options["seen"] = _top(flow, positions).flatten().round().long()
    return Categorical(flow.dim, data.classes, hidden, activation=nn.ReLU, **options)


def _top(flow: Any, z: Tensor) -> Tensor:
    """The top level's part of the latents."""
    if isinstance(flow, flows.IDF):
        size = math.prod(latent_shapes(flow.shape, len(flow.couplings.levels))[-1])  # type: ignore[arg-type]
        return z[:, -size:]
    top: Tensor = flow.latents(z)[-1]
    return top
