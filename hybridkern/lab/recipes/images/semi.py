"""Training on images of which few have labels."""

from __future__ import annotations

import torch
from torch import Tensor

from hybridkern.flows import FlowPass
from hybridkern.hybrid import HybridModel, HybridOutput, objectives
from hybridkern.hybrid._labels import UNLABELLED
from hybridkern.hybrid.heads import Classifier
from hybridkern.lab.recipes.images.task import ImageTask
from hybridkern.lab.recipes.task import Terms

_SURE = 0.95


class SemiSupervisedTask(ImageTask):
    """An :class:`~hybridkern.lab.recipes.images.task.ImageTask` that takes images without label too (``y`` is -1).

    They are trained by :class:`hybridkern.hybrid.objectives.SemiSupervised`, on ``log p(x)`` and on low entropy of
    ``p(y|x)``. With ``consistency`` a batch holds two views of each, all first ones before all second ones, and where
    the model is sure of the first view its answer is the label of the second.

    Args:
        model, lam, shape, grey_levels: of an ``ImageTask``.
        entropy_weight: of the entropy, in nats, of images without label.
        consistency: of the cross-entropy of second views, in nats.

    Source: of the consistency, Sohn et al. 2020 (arXiv:2001.07685), with moves as the only augmentation.
    """

    def __init__(
        self,
        model: HybridModel,
        lam: float,
        shape: tuple[int, ...],
        grey_levels: int,
        entropy_weight: float,
        consistency: float = 0.0,
    ) -> None:
        super().__init__(model, lam, shape, grey_levels)
        self.consistency = consistency
        self.entropy_weight = entropy_weight

    def objective(self) -> objectives.Objective:
        return objectives.SemiSupervised(super().objective(), self.entropy_weight, balanced=False)

    def _loss(self, latents: FlowPass, y: Tensor) -> Tensor:
        loss = super()._loss(latents, y)
        if self.consistency and self.training:
            loss = loss + self.consistency * self._inconsistency(latents.z[y == UNLABELLED]) / len(y)
        return loss

    def _inconsistency(self, z: Tensor) -> Tensor:
        """Sum over the second views of their cross-entropy to the answers to the first, ``()`` in nats."""
        head = self.model.head
        assert isinstance(head, Classifier)
        first, second = z.chunk(2)
        with torch.no_grad():
            confidence, answers = head.probabilities(head(first)).max(1)
        return -(head.log_prob(head(second), answers) * (confidence >= _SURE)).sum()

    def _terms(self, out: HybridOutput, y: Tensor) -> Terms:
        unlabelled = y == UNLABELLED
        terms = super()._terms(out, torch.where(unlabelled, 0, y))
        return terms._replace(class_nll=torch.where(unlabelled, 0.0, terms.class_nll))
