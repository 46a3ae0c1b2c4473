"""Training on images of which few have labels."""

from __future__ import annotations

import torch
from torch import Tensor

from hybridkern.hybrid import HybridModel, HybridOutput, objectives
from hybridkern.hybrid._labels import UNLABELLED
from hybridkern.hybrid.objectives import FlowPass
from hybridkern.recipes.images.task import ImageTask
from hybridkern.recipes.task import Terms


class SemiSupervisedTask(ImageTask):
    """An :class:`~hybridkern.recipes.images.task.ImageTask` that also takes images without label, whose ``y`` is -1.

    They are trained by :class:`hybridkern.hybrid.objectives.SemiSupervised`, on ``log p(x)`` and on low entropy of
    ``p(y|x)``.

    Args:
        model, lam, shape, levels: of an ``ImageTask``.
        entropy_weight: of the entropy, in nats, of images without label.
    """

    def __init__(
        self, model: HybridModel, lam: float, shape: tuple[int, ...], levels: int, entropy_weight: float
    ) -> None:
        super().__init__(model, lam, shape, levels)
        self.semi_supervised = objectives.SemiSupervised(self.objective, entropy_weight)

    def loss_and_terms(self, x: Tensor, y: Tensor) -> tuple[Tensor, Terms]:
        model = self.model
        z, log_det = model.flow(self.images(x))
        latents = FlowPass(z, model.flow.base(z), log_det)
        loss = self.semi_supervised.loss(latents, model.head, y).mean()
        with torch.no_grad():
            terms = self._terms(HybridOutput(z, latents.log_px, model.head(z)), y)
        return loss, Terms(*(part.detach() for part in terms))

    def _terms(self, out: HybridOutput, y: Tensor) -> Terms:
        unlabelled = y == UNLABELLED
        terms = super()._terms(out, torch.where(unlabelled, 0, y))
        return terms._replace(class_nll=torch.where(unlabelled, 0.0, terms.class_nll))
