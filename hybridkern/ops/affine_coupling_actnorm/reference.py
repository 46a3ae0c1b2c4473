"""Affine coupling of a part of a vector and the scale and offset after it, in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from hybridkern._precision import wide
from hybridkern._tensors import total_dtype
from hybridkern.ops.affine_coupling.form import CouplingForm
from hybridkern.ops.affine_coupling.reference import affine_coupling


def affine_coupling_actnorm(
    x: Tensor, params: Tensor, scale: Tensor, offset: Tensor, form: CouplingForm
) -> tuple[Tensor, Tensor]:
    """See :func:`hybridkern.ops.affine_coupling_actnorm`; arguments are taken as valid."""
    coupled = params.shape[1] // 2 if form.has_scale else params.shape[1]
    factors = wide(scale)  # once: the gradients of both of its uses are summed before they are rounded
    x1, x2 = wide(x).split((x.shape[1] - coupled, coupled), 1)
    y2, log_det = affine_coupling(x2, wide(params), None, form, False)
    y = torch.cat((x1, y2), 1) * factors + wide(offset)
    return y.to(x.dtype), (log_det + factors.abs().log().sum()).to(total_dtype(x))
