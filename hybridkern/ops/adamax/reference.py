"""One step of Adamax in plain PyTorch, with the arithmetic of :class:`torch.optim.Adamax`."""

from __future__ import annotations

from torch import Tensor


def adamax_step(
    params: list[Tensor],
    grads: list[Tensor],
    exp_avgs: list[Tensor],
    exp_infs: list[Tensor],
    rate: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
) -> None:
    """Changes ``params``, ``exp_avgs`` and ``exp_infs`` in place; see :func:`hybridkern.ops.adamax_step`."""
    for param, grad, exp_avg, exp_inf in zip(params, grads, exp_avgs, exp_infs, strict=True):
        if weight_decay:
            grad = grad.add(param, alpha=weight_decay)
        exp_avg.lerp_(grad, 1 - beta1)
        exp_inf.mul_(beta2).copy_(exp_inf.maximum(grad.abs().add_(eps)))
        param.addcdiv_(exp_avg, exp_inf, value=-rate)
