"""``adamax_step`` against the formula of ``torch.optim.Adamax`` in eager PyTorch, each on tensors of its own."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks._case import Case, Sides
from benchmarks._results import AGAIN, EAGER, OURS
from hybridkern import ops

_RATE, _BETAS, _EPS = 0.02, (0.9, 0.999), 1e-8


def ours(params: list[Tensor], grads: list[Tensor], exp_avgs: list[Tensor], exp_infs: list[Tensor]) -> None:
    """One step, in place."""
    ops.adamax_step(params, grads, exp_avgs, exp_infs, rate=_RATE, betas=_BETAS, eps=_EPS)


def eager(params: list[Tensor], grads: list[Tensor], exp_avgs: list[Tensor], exp_infs: list[Tensor]) -> None:
    """The ``foreach`` form, which PyTorch takes where it is faster."""
    torch._foreach_lerp_(exp_avgs, grads, 1 - _BETAS[0])
    torch._foreach_mul_(exp_infs, _BETAS[1])
    sizes = torch._foreach_abs(grads)
    torch._foreach_add_(sizes, _EPS)
    torch._foreach_maximum_(exp_infs, sizes)
    torch._foreach_addcdiv_(params, exp_avgs, exp_infs, value=-_RATE)


def case(count: int, *shape: int, target: float) -> Case:
    """A step over ``count`` parameters of ``shape``; each side has its own, and each call goes on from the last."""

    def build() -> Sides:
        torch.manual_seed(0)
        drawn = [[torch.randn(shape) for _ in range(count)] for _ in range(3)]
        drawn.append([torch.rand(shape) + 0.5 for _ in range(count)])
        run = {}
        for side, step in ((OURS, ours), (AGAIN, ours), (EAGER, eager)):
            own = [[value.clone() for value in values] for values in drawn]

            def call(step=step, own=own) -> tuple[Tensor, ...]:
                step(*own)
                return (own[0][0], own[2][-1], own[3][-1])

            run[side] = call
        return Sides(run, calls=2)

    return Case(
        f"adamax {count} x {tuple(shape)}, step".replace(", ", ",").replace(",step", ", step"), build, {EAGER: target}
    )
