"""A flow on images with a head on its latents, as a task."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybridkern.flows import FlowPass
from hybridkern.hybrid import HybridModel, HybridOutput, objectives
from hybridkern.lab.recipes.images.batches import dequantized, seeded
from hybridkern.lab.recipes.task import Task, Terms, samples_of

# actnorm starts from so many images
SAMPLE = 512
_SAMPLE_SEED = 0


class ImageTask(Task):
    """A :class:`hybridkern.hybrid.HybridModel` of a flow on images as a task.

    Images are rows of dequantized grey values in ``[0, grey_levels)``, colours last; the flow sees them as
    ``(B, C, H, W)`` scaled to ``[-1/2, 1/2)``. Likelihoods are of the grey values: ``nll`` is ``-log p`` of the scaled
    image plus ``D ln(grey_levels)``, an upper bound of ``-log P(x)`` of the whole numbers in expectation over noise.

    Args:
        model: a flow on images, and a head.
        lam: weight of ``-log p(x)``.
        shape: of an image, ``(H, W)`` or ``(H, W, C)``.
        grey_levels: number of grey values.

    Attributes:
        whiten: whether the flow's 1x1 convolutions start from data.
        logit: number ``a`` of the logits that the flow sees in place of scaled images, or 0.
        boost: factor on ``lam`` at this moment of the training.
        discrete: whether the likelihood is the probability of whole numbers.
    """

    discrete = False
    whiten = False
    logit = 0.0
    boost = 1.0
    brings_inputs = True

    def __init__(self, model: HybridModel, lam: float, shape: tuple[int, ...], grey_levels: int) -> None:
        super().__init__(lam)
        self.dim = math.prod(shape)
        self.model = model
        self.shape = shape
        self.grey_levels = grey_levels

    def initialize(self, x: Tensor, y: Tensor) -> None:
        sample = x[:: -(-len(x) // SAMPLE)]  # evenly spaced: files may be sorted by class
        images = self.images(dequantized(sample, seeded(_SAMPLE_SEED)))
        initialize: Any = getattr(self.model.flow, "initialize", None)
        if initialize is not None:
            initialize(images, whiten=True) if self.whiten else initialize(images)

    @property
    def log_units(self) -> float:
        """What ``-log p`` of an image in grey values is more than that of what the model takes, in nats."""
        return self.dim * math.log(self.grey_levels)

    def images(self, x: Tensor) -> Tensor:
        """Rows of grey values ``(B, D)`` as the flow takes them: ``(B, C, H, W)``, channels_last, about 0."""
        height, width = self.shape[:2]
        x = x.to(next(self.parameters()).device)
        scaled = x / self.grey_levels - 0.5
        if self.logit:
            scaled = (self.logit + (1 - 2 * self.logit) * (scaled + 0.5)).logit()
        return scaled.view(len(x), height, width, -1).permute(0, 3, 1, 2)

    def of_scaled(self, log_px: Tensor, images: Tensor) -> Tensor:
        """``log p`` ``(B,)`` of the scaled images, from that of what the flow saw in their place."""
        if not self.logit:
            return log_px
        seen = images.flatten(1).float()
        log_slope = math.log(1 - 2 * self.logit) - F.logsigmoid(seen) - F.logsigmoid(-seen)
        return log_px + log_slope.sum(1)

    def rows(self, images: Tensor) -> Tensor:
        """The inverse of :meth:`images`, up to rounding."""
        rows = images.permute(0, 2, 3, 1).reshape(len(images), -1)
        if self.logit:
            rows = (rows.sigmoid() - self.logit) / (1 - 2 * self.logit) - 0.5
        return (rows + 0.5) * self.grey_levels

    def seen(self, x: Tensor) -> Tensor:
        """What an inverse gives back of dequantized rows ``(B, D)``: themselves, here."""
        return x

    def convention(self, draws: int) -> str:
        """What bits per dimension are of, averaged over so many dequantizations."""
        return (
            f"-log2 p(x + u) / D, grey values 0..{self.grey_levels - 1} with uniform noise u from [0, 1), mean over "
            f"{draws} draw{'s' if draws > 1 else ''} of u: an upper bound for the whole numbers; D = {self.dim}"
        )

    def objective(self) -> objectives.Objective:
        """What is minimized at this moment of the training."""
        return objectives.Weighted(self.boost * self.lam)

    def loss_and_terms(self, x: Tensor, y: Tensor) -> tuple[Tensor, Terms]:
        """The objective to minimize, and its parts without gradient, from one pass of the flow."""
        images = self.images(x)
        latents = self.model.flow.run(images)
        loss = self._loss(latents, y)
        with torch.no_grad():
            log_px = self.of_scaled(latents.log_px, images)
            return loss, self._terms(HybridOutput(latents.z, log_px, self.model.head(latents.z)), y)

    def _loss(self, latents: FlowPass, y: Tensor) -> Tensor:
        return self.model.loss(latents, y, self.objective())

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        return self.loss_and_terms(x, y)[0]

    def output(self, x: Tensor) -> HybridOutput:
        """Latents, log-density of the scaled image and logits of dequantized rows ``(B, D)``."""
        images = self.images(x)
        out: HybridOutput = self.model(images)
        return out._replace(log_px=self.of_scaled(out.log_px, images))

    def terms(self, x: Tensor, y: Tensor) -> Terms:
        return self._terms(self.output(x), y)

    def _terms(self, out: HybridOutput, y: Tensor) -> Terms:
        head = self.model.head
        nll = self.log_units - out.log_px
        return Terms(-head.log_prob(out.prediction, y), nll, head.predict(out.prediction))

    def latent(self, x: Tensor) -> Tensor:
        return self.model.flow(self.images(x))[0]

    def invert(self, z: Tensor) -> Tensor:
        return self.rows(self.model.flow.inverse(z)[0])

    def sample(self, n: int, temperature: float = 1.0, label: int | None = None) -> Tensor:
        # a cell's value is its lower end
        drawn = samples_of(self.model, n, temperature, label)
        return self.rows(drawn).floor().clamp_(0, self.grey_levels - 1)

    def decays(self, parameter: nn.Parameter) -> bool:
        """Whether weight decay keeps a parameter small: not biases, actnorm and the factors of 1x1 convolutions."""
        return parameter.ndim == 4

    def head_parameters(self) -> list[nn.Parameter]:
        """Parameters of the classifier."""
        return list(self.model.head.parameters())
