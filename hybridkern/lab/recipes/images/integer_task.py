"""An integer flow on images with a head on its latents, as a task."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybridkern.codec.learned import calibrate, quantized_nets
from hybridkern.flows import IDF
from hybridkern.hybrid import HybridOutput
from hybridkern.lab.recipes.images.batches import of_first_process
from hybridkern.lab.recipes.images.task import SAMPLE, ImageTask
from hybridkern.lab.recipes.task import samples_of


class IntegerTask(ImageTask):
    """A :class:`hybridkern.hybrid.HybridModel` of an integer flow on images and a head.

    Rows of grey values are rounded down, which undoes dequantization, and the flow sees whole numbers. ``nll`` is
    ``-log P(x)`` of them, in nats. Figures are computed in float32: they need no inverse.

    An image that is smaller than the flow's is made as large by repeating its last row and column. ``P`` of the larger
    image is then at most that of the smaller one, and what a codec stores.
    """

    discrete = True

    def initialize(self, x: Tensor, y: Tensor) -> None:
        images = self.images(x[:: -(-len(x) // SAMPLE)])  # evenly spaced: files may be sorted by class
        self._flow.initialize(images)
        with torch.no_grad():
            self.model.head.initialize(self._latents(images))

    @property
    def log_units(self) -> float:
        """Nothing: the flow's is the probability of the grey values themselves."""
        return 0.0

    def prior_parameters(self) -> list[nn.Parameter]:
        return self._flow.marginal_parameters()

    def images(self, x: Tensor) -> Tensor:
        """Rows of grey values ``(B, D)`` as the flow takes them: whole numbers ``(B, C, H, W)``, channels_last."""
        height, width = self.shape[:2]
        x = x.to(next(self.parameters()).device, torch.float32).floor()
        images = x.view(len(x), height, width, -1).permute(0, 3, 1, 2)
        below, beside = (larger - own for larger, own in zip(self._flow.shape[1:], self.shape, strict=False))
        return F.pad(images, (0, beside, 0, below), mode="replicate") if below or beside else images

    def rows(self, images: Tensor) -> Tensor:
        """The inverse of :meth:`images`."""
        height, width = self.shape[:2]
        return images[:, :, :height, :width].permute(0, 2, 3, 1).reshape(len(images), -1)

    def output(self, x: Tensor) -> HybridOutput:
        """Latents, log-probability of the image and logits, in float32, of rows ``(B, D)``."""
        images = self.images(x)
        with torch.autocast(images.device.type, enabled=False):
            z = self._latents(images)
            return HybridOutput(z, self._flow.base.log_prob(z), self.model.head(z))

    def latent(self, x: Tensor) -> Tensor:
        return self._flow(self.images(x))[0]

    def invert(self, z: Tensor) -> Tensor:
        return self.rows(self._flow.inverse(z.round())[0])

    def sample(self, n: int, temperature: float = 1.0, label: int | None = None) -> Tensor:
        return self.rows(samples_of(self.model, n, temperature, label)).clamp(0, self.grey_levels - 1)

    def seen(self, x: Tensor) -> Tensor:
        return x.floor()

    def convention(self, draws: int) -> str:
        return f"-log2 P(x) / D of grey values 0..{self.grey_levels - 1}, whole numbers; D = {self.dim}"

    def learn_steps(self, x: Tensor) -> bool:
        """Has the networks learn steps from now on, begun with rows ``(B, D)``; False where they do so already."""
        nets = quantized_nets(self._flow)
        if not nets or all(net.on for net in nets):
            return False
        calibrate(self._flow, self.images(x))
        # each process has seen its own part of the batch
        of_first_process(value for net in nets for value in (net.bits, net.activation_steps))
        return True

    def _latents(self, images: Tensor) -> Tensor:
        z: Tensor = self._flow.couplings(images)
        return z

    @property
    def _flow(self) -> IDF:
        assert isinstance(self.model.flow, IDF)
        return self.model.flow
