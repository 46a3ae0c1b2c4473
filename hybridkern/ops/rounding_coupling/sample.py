"""Typical calls of ``rounding_coupling``: with a factor, and its inverse without one."""

from __future__ import annotations

import torch
from torch import Tensor

from hybridkern.ops._operator import Sample
from hybridkern.ops._samples import normal
from hybridkern.ops.rounding_coupling.operator import rounding_coupling


def _scaled(x: Tensor, t: Tensor, beta: Tensor) -> tuple[Tensor]:
    return (rounding_coupling(x, t, beta=beta),)


def _inverse(x: Tensor, t: Tensor) -> tuple[Tensor]:
    return (rounding_coupling(x, t, inverse=True),)


def _plain(shape: tuple[int, ...], dtype: torch.dtype) -> dict[str, Tensor]:
    return {"x": normal(0, shape, dtype, scale=9.0).round(), "t": normal(1, shape, dtype, scale=3.0)}


def _with_beta(shape: tuple[int, ...], dtype: torch.dtype) -> dict[str, Tensor]:
    return _plain(shape, dtype) | {"beta": torch.full((1,), 1.75, dtype=dtype)}


SAMPLES = {
    "scaled": Sample(_scaled, _with_beta, lower=("t",), free=("beta",), smooth=False),
    "inverse": Sample(_inverse, _plain, lower=("t",), smooth=False),
}
