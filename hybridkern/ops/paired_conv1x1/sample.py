"""Typical calls of ``paired_conv1x1``: with and without a bias."""

from __future__ import annotations

import torch
from torch import Tensor

from hybridkern.ops._operator import Sample
from hybridkern.ops._samples import normal
from hybridkern.ops.paired_conv1x1.operator import paired_conv1x1


def _plain(shape: tuple[int, ...], dtype: torch.dtype) -> dict[str, Tensor]:
    channels = 2 * shape[1]
    return {
        "first": normal(0, shape, dtype),
        "second": normal(1, shape, dtype),
        "weight": normal(2, (channels, channels), dtype),
    }


def _biased(shape: tuple[int, ...], dtype: torch.dtype) -> dict[str, Tensor]:
    return _plain(shape, dtype) | {"bias": normal(3, (2 * shape[1],), dtype)}


_SHAPES, _CHANNELS = (2, 3, 4, 5, 6), range(65)
SAMPLES = {
    "biased": Sample(paired_conv1x1, _biased, _SHAPES, _CHANNELS, lower=("weight", "bias")),
    "plain": Sample(paired_conv1x1, _plain, _SHAPES, _CHANNELS, lower=("weight",)),
}
