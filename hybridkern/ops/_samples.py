"""Tensors for the samples of the operators: seeded, the same on every device."""

from __future__ import annotations

import torch
from torch import Tensor

from hybridkern.ops.affine_coupling.form import CouplingForm


def normal(seed: int, shape: tuple[int, ...], dtype: torch.dtype, scale: float = 1.0) -> Tensor:
    """Normal variables, on the default device."""
    drawn = torch.randn(shape, dtype=torch.float64, device="cpu", generator=torch.Generator("cpu").manual_seed(seed))
    return drawn.mul_(scale).to(dtype).to(torch.get_default_device())


def coupling_params(
    seed: int, shape: tuple[int, ...], dtype: torch.dtype, form: CouplingForm, reach: float = 3.6
) -> Tensor:
    """Network output for a coupling of ``x`` of this shape: raw scales within ``reach``, most of them near 0."""
    shift = normal(seed, shape, torch.float64, scale=2.0)
    if not form.has_scale:
        return shift.to(dtype)
    scale = reach * torch.tanh(normal(seed + 1, shape, torch.float64)) ** 3
    parts = (scale, shift) if form.layout.endswith("scale_shift") else (shift, scale)
    joined = torch.stack(parts, 2).flatten(1, 2) if form.layout.startswith("interleaved") else torch.cat(parts, 1)
    return joined.to(dtype)
