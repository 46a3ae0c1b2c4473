"""Uniform dequantization of images."""

from __future__ import annotations

import torch
from torch import Tensor

from hybridkern._arguments import as_size
from hybridkern._finite import readable


def dequantize(
    images: Tensor, bits: int = 8, *, generator: torch.Generator | None = None, dtype: torch.dtype = torch.float32
) -> Tensor:
    """``(images + u) / 2**bits - 1/2`` with ``u`` uniform in ``[0, 1)``: what image flows are trained on.

    The density of the result bounds the probability of the integers from below (in expectation, and times
    ``2**(-bits * D)``): that is the convention of :func:`hybridkern.hybrid.metrics.bits_per_dim` with these ``bits``.

    Args:
        images: integers from 0 to ``2**bits - 1``, any shape, in an integer dtype or as floating-point numbers. On a
            CPU every value is looked at; on another device, where a look would wait, and in compiled graphs none is.
        bits: bits of a value, 1 to 16.
        generator: source of ``u``, on the device of ``images``; ``None`` is torch's default generator.
        dtype: of the result, float32 or float64. float32 has room for ``2**(24 - bits)`` values of
            ``u`` only, 65536 for 8 bits and 256 for 16.

    Returns:
        Values in ``[-1/2, 1/2)``, shaped and laid out like ``images``.

    Raises:
        TypeError: no tensor, truth values or complex numbers, another ``dtype``, or ``bits`` is not an integer.
        ValueError: ``bits`` or a value of ``images`` is out of range, or a value is no integer.

    Source: Theis et al. 2016 (arXiv:1511.01844), section 3.1.
    """
    bits = _check_arguments(images, bits, dtype)
    if readable(images) and images.numel():
        _check_values(images, bits)
    x = torch.empty_like(images, dtype=dtype).uniform_(generator=generator)
    if dtype is torch.float32:
        # u in so few steps that the sum is exact: rounding it would carry values into the next cell
        x = x.mul_(2.0 ** (24 - bits)).floor_().mul_(2.0 ** (bits - 24))
    x = x.add_(images)
    # the sum may round up to 2**bits, which would end at 1/2
    grey_levels = 2.0**bits
    return x.clamp_(max=grey_levels * (1 - torch.finfo(dtype).eps / 2)).div_(grey_levels).sub_(0.5)


def _check_arguments(images: object, bits: object, dtype: object) -> int:
    if not isinstance(images, Tensor):
        raise TypeError(f"images: got {type(images).__name__}, expected a torch.Tensor")
    if images.dtype is torch.bool or images.is_complex():
        raise TypeError(f"images: got dtype {images.dtype}, expected integers or floating-point numbers")
    if dtype not in (torch.float32, torch.float64):
        raise TypeError(f"dtype: got {dtype}, expected torch.float32 or torch.float64")
    size = as_size("bits", bits, expected="an integer from 1 to 16")
    if size > 16:
        raise ValueError(f"bits: got {size}, expected an integer from 1 to 16")
    return size


def _check_values(images: Tensor, bits: int) -> None:
    """The values must be integers that ``bits`` bits can hold."""
    expected = f"integers from 0 to {2**bits - 1} ({bits} bits)"
    if images.is_floating_point():
        wrong = images != images.round()  # true of NaN; infinities are out of range
        if wrong.any():
            hint = "; images scaled to [0, 1] must be multiplied back and rounded" if _scaled(images) else ""
            raise ValueError(f"images: got the value {images[wrong][0].item():g}, expected {expected}{hint}")
    elif images.dtype not in _SIGNED:
        images = images.to(torch.int64)  # torch finds no extremes of unsigned integers but those of 8 bits
    low, high = (value.item() for value in torch.aminmax(images))
    if low < 0 or high >= 2**bits:
        raise ValueError(f"images: got the value {low if low < 0 else high}, expected {expected}")


_SIGNED = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def _scaled(images: Tensor) -> bool:
    return bool(images.min() >= 0 and images.max() <= 1)
