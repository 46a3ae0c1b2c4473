"""Typical calls of ``masked_network``: one layer, and three with a residual sum that share their weights."""

from __future__ import annotations

import torch
from torch import Tensor

from hybridkern.ops._operator import Sample
from hybridkern.ops._samples import normal
from hybridkern.ops.masked_network.operator import masked_network


def _arguments(shape: tuple[int, ...], dtype: torch.dtype) -> dict[str, Tensor]:
    width = shape[1]
    return {
        "x": normal(0, shape, dtype),
        "weights": normal(1, (width, width), dtype, scale=width**-0.5),
        "biases": normal(2, (width,), dtype, scale=0.4),
    }


def _mask(x: object) -> Tensor:
    """That of an autoregressive layer; any where ``x`` is none that the operator takes."""
    if isinstance(x, Tensor) and x.layout is torch.strided and x.ndim == 2:
        return x.new_ones(x.shape[1], x.shape[1]).tril()
    return normal(3, (3, 3), torch.float32)


def _one(x: Tensor, weights: Tensor, biases: Tensor) -> tuple[Tensor]:
    return (masked_network(x, [weights], [biases], [_mask(x)], activated=[False]),)


def _residual(activation: str) -> Sample:
    def function(x: Tensor, weights: Tensor, biases: Tensor) -> tuple[Tensor]:
        masks = [_mask(x)] * 3
        adds, activated = [None, None, 0], [True, True, False]
        out = masked_network(
            x, [weights] * 3, [biases] * 3, masks, activation=activation, activated=activated, adds=adds
        )
        return (out,)

    return _sample(function)


def _sample(function: object) -> Sample:
    dtypes = (torch.float32, torch.float64)
    return Sample(function, _arguments, (2,), channels=range(1, 65), dtypes=dtypes)  # type: ignore[arg-type]


SAMPLES = {"one": _sample(_one), "residual": _residual("relu"), "tanh": _residual("tanh"), "elu": _residual("elu")}
