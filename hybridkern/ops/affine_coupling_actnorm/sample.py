"""Typical calls of ``affine_coupling_actnorm``: the form that it is made for, and one of another layout."""

from __future__ import annotations

import torch
from torch import Tensor

from hybridkern.ops._operator import Sample
from hybridkern.ops._samples import coupling_params, normal
from hybridkern.ops.affine_coupling.form import resolve_form
from hybridkern.ops.affine_coupling_actnorm.operator import affine_coupling_actnorm


def _sample(form: str) -> Sample:
    def function(x: Tensor, params: Tensor, scale: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
        return affine_coupling_actnorm(x, params, scale, offset, form=form)

    def arguments(shape: tuple[int, ...], dtype: torch.dtype) -> dict[str, Tensor]:
        """The greater half of each row is transformed."""
        rows, width = shape
        scale = normal(3, (width,), dtype)
        return {
            "x": normal(0, shape, dtype),
            "params": coupling_params(1, (rows, (width + 1) // 2), dtype, resolve_form(form)),
            "scale": scale + torch.where(scale < 0, -0.25, 0.25).to(dtype),
            "offset": normal(4, (width,), dtype),
        }

    return Sample(function, arguments, (2,), channels=range(1, 1 << 30), lower=("params", "scale", "offset"))


SAMPLES = {"freia_all_in_one": _sample("freia_all_in_one"), "nflows": _sample("nflows")}
