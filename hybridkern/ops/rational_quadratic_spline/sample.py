"""Typical calls of ``rational_quadratic_spline``: schemes, directions, kinds of tails, shared parameters."""

from __future__ import annotations

import torch
from torch import Tensor

from hybridkern._tensors import LOW
from hybridkern.ops._operator import Sample
from hybridkern.ops._samples import normal
from hybridkern.ops.rational_quadratic_spline.form import SplineForm, resolve_spline
from hybridkern.ops.rational_quadratic_spline.operator import rational_quadratic_spline

_SHAPES = (2, 3, 4, 5, 6)


def _spline(spline: str | SplineForm, bins: int, tails: str, inverse: bool, shared: bool = False) -> Sample:
    count = resolve_spline(spline).parameters(bins, tails)
    spread = 0.1 if inverse else 0.25  # well conditioned: an inverse's derivatives grow with the square of 1/slope

    def function(x: Tensor, params: Tensor, log_det: Tensor) -> tuple[Tensor, Tensor]:
        return rational_quadratic_spline(
            x, params, log_det, spline=spline, bins=bins, bound=3.5, tails=tails, inverse=inverse
        )

    def arguments(shape: tuple[int, ...], dtype: torch.dtype) -> dict[str, Tensor]:
        tail = (shape[1], count) if len(shape) == 2 else (shape[1] * count, *shape[2:])
        return {
            "x": normal(0, shape, dtype, scale=1.5),
            "params": normal(1, tail if shared else (shape[0], *tail), dtype, scale=spread),
            "log_det": normal(2, shape[:1], torch.float32 if dtype in LOW else dtype),
        }

    return Sample(function, arguments, _SHAPES, lower=("params",), free=("log_det",))


SAMPLES = {
    "nflows": _spline("nflows", 4, "linear", inverse=False),
    "zuko_inverse": _spline("zuko", 3, "linear", inverse=True),
    "box_shared": _spline(SplineForm(identity=True, gain=0.5), 3, "box", inverse=False, shared=True),
    "circular_inverse": _spline("nflows", 3, "circular", inverse=True),
}
