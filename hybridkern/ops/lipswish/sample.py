"""Typical calls of ``lipswish`` and ``clipswish``."""

from __future__ import annotations

import torch
from torch import Tensor

from hybridkern.ops._operator import Sample
from hybridkern.ops._samples import normal
from hybridkern.ops.lipswish.operator import clipswish, lipswish


def _single(x: Tensor, beta: Tensor) -> tuple[Tensor]:
    return (lipswish(x, beta),)


def _pair(x: Tensor, beta: Tensor) -> tuple[Tensor]:
    return (clipswish(x, beta),)


def _arguments(shape: tuple[int, ...], dtype: torch.dtype) -> dict[str, Tensor]:
    return {"x": normal(0, shape, dtype, scale=2.0), "beta": torch.full((1,), 0.5, dtype=dtype)}


SAMPLES = {
    "single": Sample(_single, _arguments, free=("beta",)),
    "pair": Sample(_pair, _arguments, (2, 3, 4, 5, 6), free=("beta",)),
}
