"""Typical calls of ``rounding_coupling_mirrored``: joined, in halves, and with the prior of the last coupling."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from hybridkern.ops._operator import Sample
from hybridkern.ops._samples import normal
from hybridkern.ops.rounding_coupling_mirrored.operator import (
    rounding_coupling_mirrored,
    rounding_coupling_mirrored_log_prob,
)


def _joined(a: Tensor, b: Tensor, t: Tensor, beta: Tensor) -> tuple[Tensor]:
    return (rounding_coupling_mirrored(a, b, t, beta, 0, join=True),)


def _halves(a: Tensor, b: Tensor, t: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
    return rounding_coupling_mirrored(a, b, t, beta, 0, lattice="tutorial")


def _with_prior(
    a: Tensor, b: Tensor, t: Tensor, beta: Tensor, mean: Tensor, log_scale: Tensor
) -> tuple[Tensor, Tensor]:
    return rounding_coupling_mirrored_log_prob(a, b, t, beta, 0, mean, log_scale)


def _plain(shape: tuple[int, ...], dtype: torch.dtype) -> dict[str, Tensor]:
    a, b = (normal(i, shape, dtype, scale=3.0).round() for i in range(2))
    return {"a": a, "b": b, "t": normal(2, shape, dtype, scale=3.0), "beta": normal(3, (3,), dtype).abs() + 0.5}


def _prior(shape: tuple[int, ...], dtype: torch.dtype) -> dict[str, Tensor]:
    one = (1, 2 * shape[1])
    return _plain(shape, dtype) | {"mean": normal(4, one, dtype), "log_scale": normal(5, one, dtype, scale=0.5) + 1}


def _sample(function: Callable[..., tuple[Tensor, ...]], arguments: Callable[..., dict[str, Tensor]]) -> Sample:
    return Sample(function, arguments, (2,), dtypes=(torch.float32, torch.float64), smooth=False)


SAMPLES = {
    "joined": _sample(_joined, _plain),
    "halves": _sample(_halves, _plain),
    "with_prior": _sample(_with_prior, _prior),
}
