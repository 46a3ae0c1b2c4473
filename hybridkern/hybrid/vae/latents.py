"""Gaussian latents of an encoder: drawn with gradients, and their densities."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from hybridkern import ops
from hybridkern._autocast import has_autocast
from hybridkern._tensors import drawn, shape_text, total_dtype

# a posterior no narrower and no wider than this: exp(10) is beyond anything that training asks for
_LEAST, _MOST = -10.0, 10.0


class Posterior(NamedTuple):
    """``q(z|x)``: mean and log of the standard deviation, ``(B, L)`` each."""

    mean: Tensor
    log_scale: Tensor

    def draw(self, generator: torch.Generator | None = None, temperature: float = 1.0) -> Tensor:
        """One ``z`` ``(B, L)`` per row, its deviation times ``temperature``, with gradients to both."""
        noise = drawn(torch.randn, self.mean.shape, self.mean.dtype, self.mean.device, generator)
        scale = self.log_scale.exp()
        return self.mean + (scale if temperature == 1 else temperature * scale) * noise

    def log_prob(self, z: Tensor) -> Tensor:
        """``log q(z|x)`` in nats, ``(B,)``."""
        return ops.gaussian_log_prob(z, self.mean, self.log_scale)

    def kl(self, mean: Tensor | None = None, log_scale: Tensor | None = None) -> Tensor:
        """``KL(q || p)`` in nats, ``(B,)``, to the Gaussian ``p`` of that mean and log-scale, broadcast; else standard.

        Source: Kingma and Welling 2014 (arXiv:1312.6114), appendix B.
        """
        own_mean, own_scale = (value.to(total_dtype(value)) for value in self)
        shift = own_mean if mean is None else own_mean - mean
        own = own_scale if log_scale is None else own_scale - log_scale
        scale = 1.0 if log_scale is None else torch.exp(-2 * log_scale)
        each = 0.5 * (torch.exp(2 * own) + shift.square() * scale - 1) - own
        return each.sum(1)


def encode(encoder: nn.Module, *inputs: Tensor, latent: int | None = None) -> Posterior:
    """The posterior that an encoder's output ``(B, 2L)`` holds: means, then log-scales, held to -10 .. 10.

    At least float32 under autocast.

    Raises:
        ValueError: an output of another shape.
    """
    joined = torch.cat([value.flatten(1) for value in inputs], 1) if len(inputs) > 1 else inputs[0]
    return as_posterior(encoder(joined), latent)


def as_posterior(out: object, latent: int | None = None) -> Posterior:
    """The posterior in an encoder's output; see :func:`encode`."""
    expected = "(B, 2L)" if latent is None else f"(B, {2 * latent}): means and log-scales of {latent} latents"
    if not isinstance(out, Tensor) or out.ndim != 2 or out.shape[1] % 2 or (latent and out.shape[1] != 2 * latent):
        got = shape_text(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise ValueError(f"encoder: gave {got}, expected {expected}")
    if has_autocast(out.device):  # a latent rounded to bfloat16 lies far out in a narrow posterior: no bound holds then
        out = out.to(total_dtype(out))
    mean, log_scale = out.chunk(2, 1)
    return Posterior(mean, log_scale.clamp(_LEAST, _MOST))
