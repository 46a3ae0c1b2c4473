"""Typical calls of ``discretized_logistic_log_prob``: by element, and summed under parameters of the whole batch."""

from __future__ import annotations

import torch
from torch import Tensor

from hybridkern.ops._operator import Sample
from hybridkern.ops._samples import normal
from hybridkern.ops.discretized_logistic.operator import discretized_logistic_log_prob


def _elements(x: Tensor, mean: Tensor, log_scale: Tensor) -> tuple[Tensor]:
    return (discretized_logistic_log_prob(x, mean, log_scale, bin_width=0.5),)


def _sum(x: Tensor, mean: Tensor, log_scale: Tensor) -> tuple[Tensor]:
    return (discretized_logistic_log_prob(x, mean, log_scale, reduction="sum"),)


def _own(shape: tuple[int, ...], dtype: torch.dtype) -> dict[str, Tensor]:
    return _with_params(shape, shape, dtype)


def _shared(shape: tuple[int, ...], dtype: torch.dtype) -> dict[str, Tensor]:
    return _with_params(shape, (1, *shape[1:]), dtype)


def _with_params(shape: tuple[int, ...], own: tuple[int, ...], dtype: torch.dtype) -> dict[str, Tensor]:
    params = {name: normal(i, own, dtype, scale=0.7) for i, name in enumerate(("mean", "log_scale"), 1)}
    return {"x": normal(0, shape, dtype, scale=2.0)} | params


SAMPLES = {
    "elements": Sample(_elements, _own, lower=("mean", "log_scale")),
    "sum_shared": Sample(_sum, _shared, lower=("mean", "log_scale")),
}
