"""Typical calls of ``gaussian_log_prob``: parameters of each example, of the whole batch, and none."""

from __future__ import annotations

import torch
from torch import Tensor

from hybridkern.ops._operator import Sample
from hybridkern.ops._samples import normal
from hybridkern.ops.gaussian_log_prob.operator import gaussian_log_prob

_PARAMS = ("mean", "log_scale")


def _log_prob(x: Tensor, *params: Tensor) -> tuple[Tensor]:
    return (gaussian_log_prob(x, *params),)


def _own(shape: tuple[int, ...], dtype: torch.dtype) -> dict[str, Tensor]:
    return _standard(shape, dtype) | {name: normal(i, shape, dtype, scale=0.7) for i, name in enumerate(_PARAMS, 1)}


def _shared(shape: tuple[int, ...], dtype: torch.dtype) -> dict[str, Tensor]:
    one = (1, *shape[1:])
    return _standard(shape, dtype) | {name: normal(i, one, dtype, scale=0.7) for i, name in enumerate(_PARAMS, 1)}


def _standard(shape: tuple[int, ...], dtype: torch.dtype) -> dict[str, Tensor]:
    return {"x": normal(0, shape, dtype, scale=2.0)}


SAMPLES = {
    "own": Sample(_log_prob, _own, lower=_PARAMS),
    "shared": Sample(_log_prob, _shared, lower=_PARAMS),
    "standard": Sample(_log_prob, _standard),
}
