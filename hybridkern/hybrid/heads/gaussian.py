"""Regression with learned noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hybridkern._arguments import as_name
from hybridkern._finite import check_finite_values, is_plain
from hybridkern._ranks import rows_over_ranks
from hybridkern._tensors import LOW, check_width
from hybridkern.hybrid._targets import check_targets
from hybridkern.hybrid.heads.base import Regressor, at_least_float32, standardization
from hybridkern.nets import mlp

NOISES = ("shared", "input")
# log-scales from a network are bent to stay within +-7, a factor of 1100 either way in units of the targets' spread:
# one step too far would otherwise give an infinite likelihood
_LOG_SCALE_LIMIT = 7.0


class Gaussian(Regressor):
    """Regression: ``p(y|x) = N(y; head(z), noise**2)`` with learned noise.

    The prediction ``(B, 2)`` holds mean and log standard deviation in the units of ``y``. The network sees
    ``(z - center) / scale`` and gives the mean in units of ``target_scale`` around ``target_center``; these buffers
    start at 0 and 1, and :meth:`initialize` sets them from a sample. Those of the targets stay in float32 at least when
    the module is converted to another dtype.

    Args:
        dim: dimensions of the latents.
        hidden: hidden sizes; empty is a generalized linear model, otherwise a perceptron.
        noise: ``"shared"``, one learned standard deviation for all ``x`` (parameter ``log_noise``, relative to
            ``target_scale``); or ``"input"``, one that the network gives for each ``x``, bounded to a factor of 1100
            either way.
        activation: builds the activations.
        dropout: dropout probability in the hidden layers.
        input_dropout: dropout probability of the latents.

    Raises:
        TypeError, ValueError: a size or probability out of range, an unknown ``noise``, or an argument of the wrong
            type.

    Source: Nalisnick et al. 2019 (arXiv:1902.02767), the regression case of the generalized linear model; noise by
    input: Nix and Weigend 1994, "Estimating the mean and variance of the target probability distribution".

    >>> import torch
    >>> head = Gaussian(3)
    >>> prediction = head(torch.zeros(5, 3))
    >>> head.log_prob(prediction, torch.ones(5)).shape
    torch.Size([5])
    """

    center: Tensor
    scale: Tensor
    target_center: Tensor
    target_scale: Tensor

    def __init__(
        self,
        dim: int,
        hidden: Sequence[int] = (),
        *,
        noise: str = "shared",
        activation: Callable[[], nn.Module] = nn.LeakyReLU,
        dropout: float = 0.0,
        input_dropout: float = 0.0,
    ) -> None:
        super().__init__(dim)
        self.noise = as_name("noise", noise, NOISES)
        outputs = 1 if noise == "shared" else 2
        self.net = mlp(self.dim, outputs, hidden, activation=activation, dropout=dropout, input_dropout=input_dropout)
        self.log_noise = nn.Parameter(torch.zeros(())) if noise == "shared" else None
        self.register_buffer("center", torch.zeros(self.dim))
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("target_center", torch.zeros(()))
        self.register_buffer("target_scale", torch.ones(()))

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Gaussian:
        # in half precision a mean far from 0 would move all predictions, by more than the targets vary
        kept = {name: getattr(self, name) for name in ("target_center", "target_scale")}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, value in kept.items():
            now = getattr(self, name)
            if now.dtype in LOW:
                # from the meta device there is nothing to take along (to_empty)
                setattr(self, name, now.float() if value.is_meta else value.to(now.device))
        return self

    @torch.no_grad()
    def initialize(self, z: Tensor, y: Tensor | None = None) -> None:
        """Sets the normalization of the latents, and with ``y`` that of the targets, from a sample.

        ``center`` becomes the mean of each latent and ``scale`` the standard deviation of all of them together;
        ``target_center`` and ``target_scale`` mean and standard deviation of ``y``.
        Under ``torch.distributed`` every rank must call this, each with its own ``z``: all start from all of it.

        Args:
            z: latents ``(N, dim)`` with ``N >= 1``, any floating-point dtype.
            y: targets ``(N,)``.

        Raises:
            TypeError, ValueError: another type or shape, a value that is not finite, or values that do not vary.
        """
        center, scale = standardization(z, self.dim)
        if y is not None:
            rows = len(z)
            if isinstance(y, Tensor) and y.shape == (rows,):  # a bad value is then an error on every rank
                y = rows_over_ranks(y)
                rows = len(y)
            check_targets(y, rows)
            if is_plain(y):
                check_finite_values("y", y)  # on a GPU, where check_targets does not look
            spread = y.double().std(correction=0)
            if is_plain(y) and not spread > 0:
                raise ValueError(f"y: got targets of standard deviation {spread.item()}, expected a positive one")
            self.target_center.copy_(y.double().mean())
            self.target_scale.copy_(spread)
        self.center.copy_(center)
        self.scale.copy_(scale)

    def forward(self, z: Tensor) -> Tensor:
        """Mean and log standard deviation ``(B, 2)`` for latents ``z`` ``(B, dim)``, in the units of ``y``.

        At least float32, under autocast too.

        Raises:
            TypeError, ValueError: ``z`` is no tensor, or has another shape.
        """
        check_width("z", z, self.dim)
        # what a network gives in half precision has too few digits for a mean far from 0
        out = at_least_float32(self.net((z - self.center) / self.scale))
        mean = out[:, 0] * self.target_scale + self.target_center
        if self.log_noise is not None:
            log_scale = self.log_noise.expand(len(out)).to(mean.dtype)
        else:
            log_scale = _LOG_SCALE_LIMIT * torch.tanh(out[:, 1] / _LOG_SCALE_LIMIT)
        return torch.stack([mean, log_scale + torch.log(self.target_scale)], 1)
