"""Typical calls of ``discretized_logistic_mixture_log_prob``: by element, and summed under shared parameters."""

from __future__ import annotations

import torch
from torch import Tensor

from hybridkern.ops._operator import Sample
from hybridkern.ops._samples import normal
from hybridkern.ops.discretized_logistic_mixture.operator import discretized_logistic_mixture_log_prob

_PARAMS = ("logits", "mean", "log_scale")


def _elements(x: Tensor, logits: Tensor, mean: Tensor, log_scale: Tensor) -> tuple[Tensor]:
    return (discretized_logistic_mixture_log_prob(x, logits, mean, log_scale, bin_width=0.5),)


def _sum(x: Tensor, logits: Tensor, mean: Tensor, log_scale: Tensor) -> tuple[Tensor]:
    return (discretized_logistic_mixture_log_prob(x, logits, mean, log_scale, reduction="sum"),)


def _own(shape: tuple[int, ...], dtype: torch.dtype) -> dict[str, Tensor]:
    return _with_params(shape, shape[0], dtype)


def _shared(shape: tuple[int, ...], dtype: torch.dtype) -> dict[str, Tensor]:
    return _with_params(shape, 1, dtype)


def _with_params(shape: tuple[int, ...], rows: int, dtype: torch.dtype) -> dict[str, Tensor]:
    params = {name: normal(i, (rows, 3, *shape[1:]), dtype, scale=0.7) for i, name in enumerate(_PARAMS, 1)}
    return {"x": normal(0, shape, dtype, scale=2.0)} | params


SAMPLES = {"elements": Sample(_elements, _own, lower=_PARAMS), "sum_shared": Sample(_sum, _shared, lower=_PARAMS)}
