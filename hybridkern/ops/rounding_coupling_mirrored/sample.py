"""Typical calls of ``rounding_coupling_mirrored``: joined, and in halves."""

from __future__ import annotations

import torch
from torch import Tensor

from hybridkern.ops._operator import Sample
from hybridkern.ops._samples import normal
from hybridkern.ops.rounding_coupling_mirrored.operator import rounding_coupling_mirrored


def _joined(a: Tensor, b: Tensor, t: Tensor, beta: Tensor) -> tuple[Tensor]:
    return (rounding_coupling_mirrored(a, b, t, beta, 0, join=True),)


def _halves(a: Tensor, b: Tensor, t: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
    return rounding_coupling_mirrored(a, b, t, beta, 0, lattice="tutorial")


def _plain(shape: tuple[int, ...], dtype: torch.dtype) -> dict[str, Tensor]:
    a, b = (normal(i, shape, dtype, scale=3.0).round() for i in range(2))
    return {"a": a, "b": b, "t": normal(2, shape, dtype, scale=3.0), "beta": normal(3, (3,), dtype).abs() + 0.5}


_FLOATS = (torch.float32, torch.float64)
SAMPLES = {
    name: Sample(function, _plain, (2,), dtypes=_FLOATS, smooth=False)
    for name, function in (("joined", _joined), ("halves", _halves))
}
