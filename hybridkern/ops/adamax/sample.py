"""A typical call of ``adamax_step``, on copies of its arguments."""

from __future__ import annotations

import torch
from torch import Tensor

from hybridkern.ops._operator import Sample
from hybridkern.ops._samples import normal
from hybridkern.ops.adamax.operator import adamax_step


def _step(params: Tensor, grads: Tensor, exp_avgs: Tensor, exp_infs: Tensor) -> tuple[Tensor, ...]:
    given = (params, grads, exp_avgs, exp_infs)
    lists = [[value.detach().clone() if isinstance(value, Tensor) else value] for value in given]
    adamax_step(*lists, rate=0.02, betas=(0.8, 0.9), eps=1e-3, weight_decay=0.3)
    return lists[0][0], lists[2][0], lists[3][0]


def _arguments(shape: tuple[int, ...], dtype: torch.dtype) -> dict[str, Tensor]:
    made = {name: normal(i, shape, dtype) for i, name in enumerate(("params", "grads", "exp_avgs"))}
    return made | {"exp_infs": normal(3, shape, dtype).abs() + 0.1}


SAMPLES = {
    "step": Sample(
        _step, _arguments, (0, 1, 2, 3, 4, 5, 6), dtypes=(torch.float32, torch.float64), differentiable=False
    )
}
