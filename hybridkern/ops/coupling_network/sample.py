"""Typical calls of ``coupling_network``: hidden activations kept, and computed again."""

from __future__ import annotations

import torch
from torch import Tensor

from hybridkern.ops._operator import Sample
from hybridkern.ops._samples import normal
from hybridkern.ops.coupling_network.operator import coupling_network

_HIDDEN = 8


def _arguments(shape: tuple[int, ...], dtype: torch.dtype) -> dict[str, Tensor]:
    channels, hidden = shape[1], _HIDDEN
    weights = {
        "w1": (hidden, channels, 3, 3),
        "b1": (hidden,),
        "w2": (hidden, hidden, 1, 1),
        "b2": (hidden,),
        "w3": (channels + 1, hidden, 3, 3),
        "b3": (channels + 1,),
    }
    return {"x": normal(0, shape, dtype)} | {
        name: normal(i, size, dtype, scale=0.4) for i, (name, size) in enumerate(weights.items(), 1)
    }


def _sample(save_hidden: bool) -> Sample:
    def function(x: Tensor, *weights: Tensor) -> tuple[Tensor]:
        return (coupling_network(x, *weights, save_hidden=save_hidden),)

    return Sample(function, _arguments, (4,), channels=range(1, 65), dtypes=(torch.float32, torch.float64))


SAMPLES = {"kept": _sample(True), "recomputed": _sample(False)}
