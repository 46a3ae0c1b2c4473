"""A hybrid model of vectors as a task: regression, and classification with or without all of the labels."""

from __future__ import annotations

import torch
from torch import Tensor

from hybridkern.flows import Planar
from hybridkern.hybrid import HybridModel, HybridOutput, objectives
from hybridkern.hybrid.heads import BayesianLinear, Regressor
from hybridkern.lab.data import Split
from hybridkern.lab.recipes.evaluation import evaluating
from hybridkern.lab.recipes.task import Task, Terms, samples_of, uniform

_BATCH = 8192
# the head's normalization starts from so many rows at most
_SAMPLE = 10_000


class VectorTask(Task):
    """A :class:`hybridkern.hybrid.HybridModel` that sees standardized vectors; all figures are in the data's units.

    Args:
        model: flow and head.
        objective: of a batch, for standardized data.
        lam: weight of the likelihood in that objective.
        cell: width of the cells that rounded data stand for, or 0: uniform noise in ``[0, cell)`` is added to each
            number in training and where ``log p(x)`` is measured; the head reads the middle of the cell, and samples
            are whole multiples of ``cell`` as the data are.
    """

    center: Tensor
    scale: Tensor

    def __init__(self, model: HybridModel, objective: objectives.Objective, lam: float, *, cell: float = 0.0) -> None:
        super().__init__(lam)
        self.model = model
        self.objective = objective
        self.cell = cell
        self.register_buffer("center", torch.zeros(model.flow.dim))
        self.register_buffer("scale", torch.ones(model.flow.dim))

    def initialize(self, x: Tensor, y: Tensor) -> None:
        self.center.copy_(x.double().mean(0) + self.cell / 2)
        spread = x.double().std(0, correction=0)
        self.scale.copy_(torch.where(spread > 0, spread, 1.0))
        sample = self.standardized(x[:: -(-len(x) // _SAMPLE)] + self.cell / 2)
        if isinstance(self.model.flow, Planar):
            self.model.flow.initialize(sample, generator=torch.Generator().manual_seed(0))
        with evaluating(self):
            self.model.head.initialize(self.model.flow(sample)[0])

    def standardized(self, x: Tensor) -> Tensor:
        """``x`` ``(B, D)`` as the flow takes it."""
        return (x - self.center) / self.scale

    def output(self, x: Tensor) -> HybridOutput:
        """Latents, ``log p(x)`` in nats of the data's units, and prediction for ``x`` ``(B, D)``, of the head."""
        out = self.model(self.standardized(x))
        return HybridOutput(out.z, out.log_px - self.scale.log().sum(), out.prediction)

    def targets(self, y: Tensor) -> Tensor:
        """``y`` as the head takes it."""
        return y

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        if self.cell:
            x = x + self.cell * torch.rand_like(x)
        return self.model.loss(self.standardized(x), self.targets(y), self.objective)

    def log_px(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """``log p(x)`` ``(B,)`` in nats of the data's units; rounded data get noise."""
        if self.cell:
            x = x + self.cell * uniform(x, generator)
        return self.model.log_prob(self.standardized(x)) - self.scale.log().sum()

    def latent(self, x: Tensor) -> Tensor:
        return self.model.flow(self.standardized(x))[0]

    def invert(self, z: Tensor) -> Tensor:
        return self.model.flow.inverse(z)[0] * self.scale + self.center

    def sample(self, n: int, temperature: float = 1.0, label: int | None = None) -> Tensor:
        x = samples_of(self.model, n, temperature, label) * self.scale + self.center
        return (x / self.cell).floor() * self.cell if self.cell else x  # a cell's value is its lower end

    def _middle(self, x: Tensor) -> HybridOutput:
        return self.output(x + self.cell / 2)


class Regression(VectorTask):
    """Numbers as targets. ``val_error`` is the mean squared error; targets are standardized for the head.

    A Bayesian head trains on each batch's evidence, and is given the training rows at every validation.
    """

    target_center: Tensor
    target_scale: Tensor

    def __init__(self, model: HybridModel, objective: objectives.Objective, lam: float, *, cell: float = 0.0) -> None:
        super().__init__(model, objective, lam, cell=cell)
        self.register_buffer("target_center", torch.zeros(()))
        self.register_buffer("target_scale", torch.ones(()))
        self._rows: Split | None = None

    def initialize(self, x: Tensor, y: Tensor) -> None:
        super().initialize(x, y)
        self.target_center.copy_(y.double().mean())
        self.target_scale.copy_(y.double().std(correction=0))
        self._rows = Split(x, y)

    def targets(self, y: Tensor) -> Tensor:
        return (y - self.target_center) / self.target_scale

    def refit(self) -> None:
        head = self.model.head
        if not isinstance(head, BayesianLinear) or self._rows is None:
            return
        head.forget()
        with evaluating(self):
            for x, y in zip(self._rows.x.split(_BATCH), self._rows.y.split(_BATCH), strict=True):
                head.observe(self.latent(x + self.cell / 2), self.targets(y))

    def moments(self, prediction: Tensor) -> tuple[Tensor, Tensor]:
        """Predictive mean and standard deviation ``(B,)``, noise included, in the units of ``y``."""
        head = self.model.head
        assert isinstance(head, Regressor)
        return head.mean(prediction) * self.target_scale + self.target_center, head.std(prediction) * self.target_scale

    def terms(self, x: Tensor, y: Tensor) -> Terms:
        out = self._middle(x)
        log_py = self.model.head.log_prob(out.prediction, self.targets(y)) - self.target_scale.log()
        return Terms(-log_py, -(self.log_px(x) if self.cell else out.log_px), self.moments(out.prediction)[0])

    def errors(self, predicted: Tensor, y: Tensor) -> Tensor:
        return (predicted - y).square()

    def error_text(self, mean: float) -> str:
        return f"RMSE {mean**0.5:.2f}"


class Classification(VectorTask):
    """Classes as targets, -1 in training rows whose class is unknown.

    Args:
        model, objective, lam: of a :class:`VectorTask`.
        jitter: standard deviation, in the data's units, of Gaussian noise that moves training rows anew each time: few
            rows otherwise become peaks of the density, and the boundary between classes winds around them.
    """

    def __init__(self, model: HybridModel, objective: objectives.Objective, lam: float, *, jitter: float = 0.0) -> None:
        super().__init__(model, objective, lam)
        self.jitter = jitter

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        if self.jitter:
            x = x + self.jitter * torch.randn_like(x)
        return super().loss(x, y)

    def terms(self, x: Tensor, y: Tensor) -> Terms:
        out = self._middle(x)
        head = self.model.head
        return Terms(-head.log_prob(out.prediction, y), -out.log_px, head.predict(out.prediction))
