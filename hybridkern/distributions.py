"""Base distributions of the flows: ``log_prob`` sums over each example, ``sample`` takes an optional generator.

``forward`` is ``log_prob``, so that forward hooks (:func:`hybridkern.flows.check_finite`) see it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from hybridkern import ops
from hybridkern.reference._dtype import wide


def standard_logistic(shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Samples of the standard logistic on the device of ``like``, in float64 where the device has it."""
    dtype = wide(like).dtype
    u = torch.rand(shape, dtype=dtype, device=like.device, generator=generator)
    # rand can return 0, whose logit is minus infinity
    return torch.logit(u.clamp(min=torch.finfo(dtype).eps / 4))


class Distribution(nn.Module, ABC):
    """A distribution over vectors ``(dim,)`` whose dtype and device are those of its parameters or buffers."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """Dtype of samples and parameters."""

    @abstractmethod
    def log_prob(self, x: Tensor) -> Tensor:
        """Log-probability of ``x`` ``(B, dim)`` in nats, ``(B,)``, at least float32."""

    @abstractmethod
    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """``n`` samples, ``(n, dim)``, without gradient; ``generator`` must live on the distribution's device."""

    def forward(self, x: Tensor) -> Tensor:
        """:meth:`log_prob`."""
        return self.log_prob(x)


class DiagonalGaussian(Distribution):
    """Independent Gaussians: standard by default, with learnt ``mean`` and ``log_scale`` ``(dim,)`` if ``trainable``.

    Source: the density of the normal distribution; see :func:`hybridkern.ops.gaussian_log_prob`.
    """

    _like: Tensor
    mean: Tensor | None
    log_scale: Tensor | None

    def __init__(self, dim: int, *, trainable: bool = False) -> None:
        super().__init__(dim)
        # follows the module to its device and dtype; not part of state_dict
        self.register_buffer("_like", torch.empty(0), persistent=False)
        for name in ("mean", "log_scale"):
            self.register_parameter(name, nn.Parameter(torch.zeros(dim)) if trainable else None)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of samples and parameters."""
        return self._like.dtype

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-probability of ``x`` ``(B, dim)`` in nats, ``(B,)``, at least float32."""
        return ops.gaussian_log_prob(x, self.mean, self.log_scale)

    @torch.no_grad()
    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """``n`` samples, ``(n, dim)``, without gradient."""
        x = torch.randn(n, self.dim, dtype=self.dtype, device=self._like.device, generator=generator)
        if self.mean is None or self.log_scale is None:
            return x
        return x * self.log_scale.exp() + self.mean


class DiscretizedLogistic(Distribution):
    """Independent logistics, each integer having the mass of the unit interval around it.

    Parameters ``mean`` (starts at 0) and ``log_scale`` (starts at 1, as the tutorial's), ``(dim,)`` each.

    Source: see :func:`hybridkern.ops.discretized_logistic_log_prob`.
    """

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.mean = nn.Parameter(torch.zeros(dim))
        self.log_scale = nn.Parameter(torch.ones(dim))

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of samples and parameters."""
        return self.mean.dtype

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-probability of ``x`` ``(B, dim)`` in nats, ``(B,)``, at least float32."""
        return ops.discretized_logistic_log_prob(x, self.mean, self.log_scale, reduction="sum")

    @torch.no_grad()
    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """``n`` integer samples, ``(n, dim)``, without gradient."""
        noise = standard_logistic((n, self.dim), self.mean, generator)
        return torch.round(wide(self.log_scale).exp() * noise + wide(self.mean)).to(self.dtype)


class DiscretizedLogisticMixture(Distribution):
    """Independent mixtures of ``components`` discretized logistics.

    Parameters ``logits``, ``mean`` and ``log_scale``, ``(1, components, dim)`` each. The means start apart, over two
    scales around 0: components that start equal would get equal gradients and stay equal.

    Raises:
        ValueError: ``components`` is not a positive integer.

    Source: see :func:`hybridkern.ops.discretized_logistic_mixture_log_prob`.
    """

    def __init__(self, dim: int, components: int = 5) -> None:
        super().__init__(dim)
        if not isinstance(components, int) or components < 1:
            raise ValueError(f"components: got {components!r}, expected a positive integer")
        shape = (1, components, dim)
        spread = torch.linspace(-1.0, 1.0, components) if components > 1 else torch.zeros(1)
        self.logits = nn.Parameter(torch.zeros(shape))
        self.mean = nn.Parameter((2 * math.e * spread).view(1, -1, 1).repeat(1, 1, dim))
        self.log_scale = nn.Parameter(torch.ones(shape))

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of samples and parameters."""
        return self.mean.dtype

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-probability of ``x`` ``(B, dim)`` in nats, ``(B,)``, at least float32."""
        return ops.discretized_logistic_mixture_log_prob(x, self.logits, self.mean, self.log_scale, reduction="sum")

    @torch.no_grad()
    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """``n`` integer samples, ``(n, dim)``, without gradient."""
        # inverse of the cumulative weights: as many uniforms as samples, whatever the number of components
        weights = torch.softmax(wide(self.logits), 1)
        u = torch.rand((n, 1, self.dim), dtype=weights.dtype, device=weights.device, generator=generator)
        chosen = (u > weights.cumsum(1)[:, :-1]).sum(1, keepdim=True)
        mean, log_scale = (wide(p).expand(n, -1, -1).gather(1, chosen).squeeze(1) for p in (self.mean, self.log_scale))
        noise = standard_logistic((n, self.dim), self.mean, generator)
        return torch.round(log_scale.exp() * noise + mean).to(self.dtype)
