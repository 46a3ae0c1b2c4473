"""Affine coupling in plain PyTorch: the formulas of :mod:`hybridkern.ops.affine_coupling.form`."""

from __future__ import annotations

import torch
from torch import Tensor

from hybridkern._precision import like, per_example, wide
from hybridkern._tensors import total_dtype
from hybridkern.ops._bounds import at_least, at_most, log_sigmoid
from hybridkern.ops.affine_coupling.form import ATAN_FACTOR, CouplingForm


def split_params(params: Tensor, form: CouplingForm) -> tuple[Tensor | None, Tensor]:
    """Raw scale (``None`` for additive forms) and raw shift, each ``(B, C, *S)``."""
    if not form.has_scale:
        return None, params
    if form.layout == "interleaved":
        return params[:, 1::2], params[:, 0::2]
    if form.layout == "interleaved_scale_shift":
        return params[:, 0::2], params[:, 1::2]
    first, second = params.chunk(2, dim=1)
    return (first, second) if form.layout == "scale_shift" else (second, first)


def log_scale(raw: Tensor, form: CouplingForm) -> Tensor:
    """``log s`` of the form, elementwise, in the precision of ``raw``."""
    v = form.gain * raw + form.offset
    if form.scale == "exp":
        log_s = v
    elif form.scale == "sigmoid":
        # log(sigma(v) + eps) near 1 loses its digits; log1p(eps - sigma(-v)) does not
        upper = torch.log1p(form.eps - torch.sigmoid(-at_least(v, 0.0)))
        lower = torch.log(torch.sigmoid(at_most(v, 0.0)) + form.eps)
        log_s = log_sigmoid(v) if form.eps == 0 else torch.where(v > 0, upper, lower)
    elif form.scale == "softplus":
        # without eps, the logarithm of what tends to exp(v) is v: it must not run into that of 0
        near = v if form.eps else at_least(v, -40.0)
        log_s = torch.log(torch.nn.functional.softplus(near) + form.eps)
        log_s = log_s if form.eps else torch.where(v < -40.0, v, log_s)
    elif form.scale == "tanh":
        log_s = form.clamp * torch.tanh(v)
    elif form.scale == "atan":
        log_s = form.clamp * ATAN_FACTOR * torch.atan(v)
    else:  # its second derivative jumps at 0, from 2 / clamp to -2 / clamp; abs gives what lies between, 0
        log_s = v / (1 + v.abs() / form.clamp)
    return -log_s if form.negate else log_s


def _apply(x: Tensor, t: Tensor, log_s: Tensor | None, shift: str, inverse: bool) -> Tensor:
    t = -t if shift == "subtract" else t
    if log_s is None:
        return x - t if inverse else x + t
    if not inverse:
        return torch.exp(log_s) * (x + t) if shift != "after" else torch.exp(log_s) * x + t
    return torch.exp(-log_s) * (x - t) if shift == "after" else torch.exp(-log_s) * x - t


def affine_coupling(
    x: Tensor, params: Tensor, log_det: Tensor | None, form: CouplingForm, inverse: bool
) -> tuple[Tensor, Tensor]:
    """See :func:`hybridkern.ops.affine_coupling`; arguments are taken as valid."""
    raw_scale, raw_shift = split_params(params, form)
    log_s = None if raw_scale is None else log_scale(wide(raw_scale), form)
    y = like(_apply(wide(x), form.shift_gain * wide(raw_shift), log_s, form.shift, inverse), x)
    own = wide(x.new_zeros(x.shape[0])) if log_s is None else per_example(log_s)
    own = -own if inverse else own
    if log_det is None:
        return y, own.to(total_dtype(x))
    return y, (wide(log_det) + own).to(total_dtype(x, log_det))
