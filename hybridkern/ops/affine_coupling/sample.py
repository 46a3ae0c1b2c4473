"""Typical calls of ``affine_coupling``: orders of shift and scale, both directions, backward from the output."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from hybridkern._tensors import LOW
from hybridkern.ops._operator import Sample
from hybridkern.ops._samples import coupling_params, normal
from hybridkern.ops.affine_coupling.form import resolve_form
from hybridkern.ops.affine_coupling.operator import affine_coupling, affine_coupling_backward_from_output

_SHAPES = (2, 3, 4, 5, 6)
_EXACT = (torch.float32, torch.float64)  # from a rounded output x comes back to the digits of that output only
Arguments = Callable[[tuple[int, ...], torch.dtype], dict[str, Tensor]]


def _total(seed: int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return normal(seed, shape[:1], torch.float32 if dtype in LOW else dtype)


def _coupling(form: str, inverse: bool = False) -> Sample:
    def function(x: Tensor, params: Tensor, log_det: Tensor) -> tuple[Tensor, Tensor]:
        return affine_coupling(x, params, log_det, form=form, inverse=inverse)

    def arguments(shape: tuple[int, ...], dtype: torch.dtype) -> dict[str, Tensor]:
        return {
            "x": normal(0, shape, dtype),
            "params": coupling_params(1, shape, dtype, resolve_form(form)),
            "log_det": _total(3, shape, dtype),
        }

    return Sample(function, arguments, _SHAPES, lower=("params",), free=("log_det",))


def _from_output(y: Tensor, params: Tensor, grad_y: Tensor, grad_log_det: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return affine_coupling_backward_from_output(y, params, grad_y, grad_log_det, form="glow")


def _from_output_arguments(shape: tuple[int, ...], dtype: torch.dtype) -> dict[str, Tensor]:
    return {
        "y": normal(0, shape, dtype),
        "params": coupling_params(1, shape, dtype, resolve_form("glow"), reach=1.0),
        "grad_y": normal(3, shape, dtype),
        "grad_log_det": _total(4, shape, dtype),
    }


SAMPLES = {
    "glow": _coupling("glow"),
    "nflows_inverse": _coupling("nflows", inverse=True),
    "additive": _coupling("additive"),
    "glow_from_output": Sample(
        _from_output, _from_output_arguments, _SHAPES, dtypes=_EXACT, lower=("params",), free=("grad_log_det",)
    ),
}
