"""A flow of a table as a task."""

from __future__ import annotations

import torch
from torch import Tensor

from hybridkern.flows import Flow, Residual
from hybridkern.lab.recipes.density.checks import cells
from hybridkern.lab.recipes.task import Task, Terms, uniform

_SAMPLE = 10_000
_NOISE_SEED = 1
_MOST_EXACT = 64  # dimensions up to which a residual flow's Jacobian is computed where figures are final


class DensityTask(Task):
    """A flow that sees standardized rows; all figures are in nats of the data's own units.

    Rows are float64, for units may be large. Columns of rounded values get uniform noise as wide as their step in
    training and where ``log p(x)`` is measured, and samples are rounded as they are.

    Args:
        flow: on ``D`` numbers.
        noise: whether rounded columns are looked for.
    """

    center: Tensor
    scale: Tensor
    cell: Tensor
    origin: Tensor

    def __init__(self, flow: Flow, noise: bool = True) -> None:
        super().__init__(1.0)
        self.flow = flow
        self.noise = noise
        for name, value in (("center", 0.0), ("scale", 1.0), ("cell", 0.0), ("origin", 0.0)):
            self.register_buffer(name, torch.full((flow.dim,), value, dtype=torch.float64))

    def initialize(self, x: Tensor, y: Tensor) -> None:
        if self.noise:
            self.cell.copy_(torch.from_numpy(cells(x.double().numpy())[0]))
        self.origin.copy_(x.double().min(0).values)
        self.center.copy_(x.double().mean(0) + self.cell / 2)
        self.scale.copy_((x.double().var(0, correction=0) + self.cell.square() / 12).sqrt())
        if isinstance(self.flow, Residual):
            self.flow.initialize(self.standardized(x[:: -(-len(x) // _SAMPLE)] + self.cell / 2))

    def standardized(self, x: Tensor) -> Tensor:
        """``x`` ``(B, D)`` as the flow takes it."""
        return ((x.double() - self.center) / self.scale).float()

    def _noisy(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        if not self.noise:
            return x
        return x + self.cell * uniform(x, generator, torch.float64)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        return -self.flow.log_prob(self.standardized(self._noisy(x))).mean() + self.scale.log().sum().float()

    def log_px(self, x: Tensor, generator: torch.Generator | None = None, exact: bool = False) -> Tensor:
        """``log p(x)`` ``(B,)`` float64 in nats of the data's units.

        Args:
            x: rows ``(B, D)``.
            generator: of the noise of rounded columns, and of the estimates of a residual flow.
            exact: of a residual flow of up to 64 dimensions: by its Jacobian.
        """
        seen = self.standardized(self._noisy(x, generator))
        if isinstance(self.flow, Residual):
            trace = "exact" if exact and self.flow.dim <= _MOST_EXACT else "auto"
            log_p = self.flow.log_prob(seen, trace=trace, generator=generator)
        else:
            log_p = self.flow.log_prob(seen)
        return log_p.double() - self.scale.log().sum()

    def terms(self, x: Tensor, y: Tensor) -> Terms:
        nll = -self.log_px(x, torch.Generator().manual_seed(_NOISE_SEED))
        return Terms(torch.zeros_like(nll), nll, torch.zeros_like(y))

    def error_text(self, mean: float) -> str:
        return ""

    def latent(self, x: Tensor) -> Tensor:
        return self.flow(self.standardized(x))[0]

    def invert(self, z: Tensor) -> Tensor:
        return self.flow.inverse(z)[0].double() * self.scale + self.center

    def sample(self, n: int, temperature: float = 1.0, label: int | None = None) -> Tensor:
        if label is not None:
            raise ValueError(f"label: got {label}, expected None: a table has no classes")
        x = self.flow.sample(n, temperature=temperature).double() * self.scale + self.center
        steps = torch.where(self.cell > 0, self.cell, 1.0)
        return torch.where(self.cell > 0, ((x - self.origin) / steps).floor() * steps + self.origin, x)
