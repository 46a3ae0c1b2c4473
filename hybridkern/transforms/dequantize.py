"""Uniform dequantization of images."""

from __future__ import annotations

import torch
from torch import Tensor


def dequantize(
    images: Tensor, bits: int = 8, *, generator: torch.Generator | None = None, dtype: torch.dtype = torch.float32
) -> Tensor:
    """``(images + u) / 2**bits - 1/2`` with ``u`` uniform in ``[0, 1)``: what image flows are trained on.

    The density of the result bounds the probability of the integers from below (in expectation, and times
    ``2**(-bits * D)``): that is the convention of :func:`hybridkern.hybrid.metrics.bits_per_dim` with these ``bits``.

    Args:
        images: integers from 0 to ``2**bits - 1``, any shape, any dtype (not checked: a check waits for the device).
        bits: bits of a value, 1 to 8.
        generator: source of ``u``, on the device of ``images``; ``None`` is torch's default generator.
        dtype: of the result, float32 or float64.

    Returns:
        Values in ``[-1/2, 1/2)``, shaped and laid out like ``images``.

    Raises:
        TypeError, ValueError: no tensor, or ``bits`` out of range.

    Source: Theis et al. 2016 (arXiv:1511.01844), section 3.1.
    """
    if not isinstance(images, Tensor):
        raise TypeError(f"images: got {type(images).__name__}, expected a torch.Tensor")
    if not isinstance(bits, int) or isinstance(bits, bool) or not 1 <= bits <= 8:
        raise ValueError(f"bits: got {bits!r}, expected an integer from 1 to 8")
    x = torch.empty_like(images, dtype=dtype).uniform_(generator=generator).add_(images)
    # the sum may round up to 2**bits, which would end at 1/2
    levels = 2.0**bits
    return x.clamp_(max=levels * (1 - torch.finfo(dtype).eps / 2)).div_(levels).sub_(0.5)
