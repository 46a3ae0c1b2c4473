"""Models as the documentation of normflows, nflows and FrEIA builds them, and how to run each in both directions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Latents = list[Tensor]


@dataclass(frozen=True)
class Case:
    """A model of a library.

    Attributes:
        build: makes it, in float32.
        shape: of one example.
        to_latent: ``(model, x) -> (latents, log_det)``.
        to_data: ``(model, latents) -> (x, log_det)``.
        log_prob: ``(model, x) -> (B,)``, ``None`` for libraries that leave it to the user.
        sample: ``(model, count) -> tensors``.
        context: features of the context, 0 for none.
    """

    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    to_latent: Callable[..., tuple[Latents, Tensor]]
    to_data: Callable[..., tuple[Tensor, Tensor]]
    log_prob: Callable[..., Tensor] | None = None
    sample: Callable[..., Sequence[Tensor]] | None = None
    context: int = 0

    def loss(self, model: nn.Module, x: Tensor, *context: Tensor) -> Tensor:
        """What a user minimizes; here the mean negative log-probability, standard normal where there is no base."""
        if self.log_prob is not None:
            return -self.log_prob(model, x, *context).mean()
        latents, log_det = self.to_latent(model, x, *context)
        return (sum(0.5 * z.square().flatten(1).sum(1) for z in latents) - log_det).mean()


def inputs(case: Case, dtype: torch.dtype, count: int = 6, seed: int = 7) -> list[Tensor]:
    """A batch, and its context if the model takes one."""
    generator = torch.Generator().manual_seed(seed)
    values = [torch.randn(count, *case.shape, generator=generator, dtype=torch.float64)]
    if case.context:
        values.append(torch.randn(count, case.context, generator=generator, dtype=torch.float64))
    return [value.to(dtype) for value in values]


def mlp(inputs: int, outputs: int) -> nn.Sequential:
    """FrEIA's ``subnet_fc``."""
    return nn.Sequential(nn.Linear(inputs, 24), nn.ReLU(), nn.Linear(24, outputs))


def conv(inputs: int, outputs: int) -> nn.Sequential:
    """A convolutional network with Glow's shape."""
    return nn.Sequential(
        nn.Conv2d(inputs, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 16, 1),
        nn.ReLU(),
        nn.Conv2d(16, outputs, 3, padding=1),
    )
