"""Actnorm and 1x1 convolution of all steps of a level, folded into one matrix and one offset a step."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from hybridkern._arguments import as_name, as_size
from hybridkern._autocast import without_autocast
from hybridkern._precision import wide
from hybridkern._tensors import total_dtype

PERMUTATIONS = ("conv1x1", "shuffle", "reverse")


class Mixed(NamedTuple):
    """Matrices ``(K, C, C)``, offsets ``(K, C)``, and the log-determinants of all steps at one pixel, summed."""

    weight: Tensor
    bias: Tensor
    log_det: Tensor


def _permutation_matrices(steps: int, channels: int, kind: str) -> Tensor:
    eye = torch.eye(channels)
    if kind == "reverse":
        return eye.flip(0).expand(steps, -1, -1).clone()
    return torch.stack([eye[torch.randperm(channels)] for _ in range(steps)])


class Mixing(nn.Module):
    r"""``y = P L (U + diag(sign * exp(log_diagonal))) (exp(log_scale) * (x + shift))`` for each of ``steps`` steps.

    ``L`` is unit lower triangular and ``U`` strictly upper triangular; ``P`` is a permutation, fixed, and so is
    ``sign``. The log-determinant at a pixel is the sum of ``log_diagonal`` and ``log_scale``: no determinant is ever
    computed. The parameters of all steps lie stacked, so that a level is composed by one batched computation. Matrices
    start as random rotations, scale and shift at 1 and 0 until a flow initializes them from data.

    Args:
        steps: number of steps ``K``.
        channels: number of channels ``C``.
        permutation: ``"conv1x1"``, or a fixed ``"shuffle"`` or ``"reverse"`` of the channels, not learnt.

    Raises:
        TypeError, ValueError: a size is not a positive integer, or an unknown ``permutation``.

    Source: Kingma and Dhariwal 2018 (arXiv:1807.03039), sections 3.1 and 3.2.
    """

    permutation: Tensor
    sign: Tensor

    def __init__(self, steps: int, channels: int, permutation: str = "conv1x1") -> None:
        super().__init__()
        steps, channels = as_size("steps", steps), as_size("channels", channels)
        as_name("permutation", permutation, PERMUTATIONS)
        self.learnt = permutation == "conv1x1"
        self.log_scale = nn.Parameter(torch.zeros(steps, channels))
        self.shift = nn.Parameter(torch.zeros(steps, channels))
        if not self.learnt:
            self.register_buffer("permutation", _permutation_matrices(steps, channels, permutation))
            return
        rotation = torch.linalg.qr(torch.randn(steps, channels, channels, dtype=torch.float64))[0]
        order, sign, *factors = (value.to(self.shift.dtype) for value in _factors(rotation))
        self.register_buffer("permutation", order)
        self.register_buffer("sign", sign)
        self.log_diagonal, self.lower, self.upper = map(nn.Parameter, factors)

    def forward(self, *, inverse: bool = False) -> Mixed:
        """What each step multiplies by and adds; ``inverse=True``: what undoes it (computed in float64).

        Autocast is off inside: the flow stays in the precision of its parameters.
        """
        with without_autocast(self.shift.device):
            weight = self._matrices() * self.log_scale.exp()[:, None]
            bias = torch.einsum("koi,ki->ko", weight, self.shift)
            wider = total_dtype(self.log_scale)  # times the pixels, a sum rounded to half precision is off by nats
            log_det = self.log_scale.sum(dtype=wider)
            log_det = log_det + self.log_diagonal.sum(dtype=wider) if self.learnt else log_det
            return Mixed(*inverse_of(weight, bias), -log_det) if inverse else Mixed(weight, bias, log_det)

    def _matrices(self) -> Tensor:
        if not self.learnt:
            return self.permutation
        diagonal = torch.diag_embed(self.sign * self.log_diagonal.exp())
        lower = self.lower.tril(-1) + torch.diag_embed(torch.ones_like(self.log_diagonal))
        return self.permutation @ lower @ (self.upper.triu(1) + diagonal)

    @torch.no_grad()
    def normalize(self, step: int, mean: Tensor, std: Tensor) -> None:
        """Scale and shift of one step, so that channels of this mean and standard deviation ``(C,)`` become 0 and 1."""
        self.shift[step] = -mean
        self.log_scale[step] = -std.log()

    @torch.no_grad()
    def multiply_by(self, step: int, matrix: Tensor, *, alone: bool = False) -> None:
        """The matrix of one step, which must be learnt, times ``matrix`` ``(C, C)``; or ``matrix`` ``alone``."""
        product = wide(matrix) if alone else wide(self._matrices()[step]) @ wide(matrix)
        kept = (self.permutation, self.sign, self.log_diagonal, self.lower, self.upper)
        for mine, new in zip(kept, _factors(product), strict=True):
            mine[step] = new

    def extra_repr(self) -> str:
        """Steps and channels, for ``print``."""
        return f"steps={self.shift.shape[0]}, channels={self.shift.shape[1]}, learnt={self.learnt}"


def _factors(matrices: Tensor) -> tuple[Tensor, ...]:
    """Permutation, signs and logarithms of the diagonal, lower and upper triangle of ``matrices`` ``(..., C, C)``."""
    permutation, lower, upper = torch.linalg.lu(matrices)
    diagonal = upper.diagonal(dim1=-2, dim2=-1)
    return permutation, diagonal.sign(), diagonal.abs().log(), lower.tril(-1), upper.triu(1)


def inverse_of(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Matrices ``(..., C, C)`` and offsets ``(..., C)`` that undo ``y = weight x + bias``, by way of float64."""
    inverse = torch.linalg.inv_ex(wide(weight))[0]
    offset = -torch.einsum("...oi,...i->...o", inverse, wide(bias))
    return inverse.to(weight.dtype), offset.to(bias.dtype)
