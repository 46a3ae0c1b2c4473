"""One step of Adamax over a list of parameters: schema and public function."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hybridkern import _tensors as _check
from hybridkern.ops._backends import choose
from hybridkern.ops._operator import Operator
from hybridkern.ops.adamax import reference as _reference


def _fake_step(*arguments: Any) -> None:
    return None


OPERATOR = Operator(
    "adamax",
    {
        "step": "(Tensor(a!)[] params, Tensor[] grads, Tensor(b!)[] exp_avgs, Tensor(c!)[] exp_infs, float rate, "
        "float beta1, float beta2, float eps, float weight_decay) -> ()"
    },
    {"step": _fake_step},
    dtypes=(torch.float32, torch.float64),
)
_DTYPES = (torch.float32, torch.float64)


def _validate(lists: dict[str, Sequence[Tensor]]) -> None:
    params = lists["params"]
    for name, values in lists.items():
        if len(values) != len(params):
            raise ValueError(f"{name}: got {len(values)} tensors, expected {len(params)}, one for each of params")
        for i, (value, param) in enumerate(zip(values, params, strict=True)):
            if value.dtype not in _DTYPES or value.dtype is not param.dtype:
                wanted = "float32 or float64" if name == "params" else f"{param.dtype}, that of params[{i}]"
                raise TypeError(f"{name}[{i}]: got dtype {value.dtype}, expected {wanted}")
            if value.shape != param.shape:
                raise ValueError(
                    f"{name}[{i}]: got shape {_check.shape_text(value.shape)}, expected that of params[{i}], "
                    f"{_check.shape_text(param.shape)}"
                )
            _check.check_same_device(f"{name}[{i}]", value, params[0], "params[0]")


def is_dense(value: Tensor) -> bool:
    """Whether the compiled step reads a tensor as it lies: float32 or float64, without gaps."""
    return value.dtype in _DTYPES and (
        value.is_contiguous()
        or (value.ndim == 4 and value.is_contiguous(memory_format=torch.channels_last))
        or bool(torch.ops.aten.is_non_overlapping_and_dense(value))
    )


def fused_step(
    params: list[Tensor], grads: list[Tensor], exp_avgs: list[Tensor], exp_infs: list[Tensor], *numbers: float
) -> None:
    """:func:`adamax_step` without its checks, for dense tensors; those of one index lie in one order.

    ``numbers`` are ``rate``, ``beta1``, ``beta2``, ``eps`` and ``weight_decay``.
    """
    run = OPERATOR.kernels["step"] if choose(OPERATOR, params[0]) == "cpp" else _reference.adamax_step
    run(params, grads, exp_avgs, exp_infs, *numbers)


@torch.no_grad()
def adamax_step(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    exp_avgs: Sequence[Tensor],
    exp_infs: Sequence[Tensor],
    *,
    rate: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> None:
    r"""One step of Adamax, in place, in one pass over each parameter.

    With ``g = grad + weight_decay * param``: ``exp_avg += (1 - beta1) (g - exp_avg)``, ``exp_inf = max(beta2 exp_inf,
    |g| + eps)``, ``param -= rate * exp_avg / exp_inf``.

    Args:
        params, grads, exp_avgs, exp_infs: equally many tensors, those of one index of one shape and of one dtype,
            float32 or float64. ``grads`` are not changed.
        rate: ``lr / (1 - beta1**t)`` in step ``t``, counted from 1.
        betas: ``beta1`` and ``beta2``.
        eps: keeps ``exp_inf`` positive.
        weight_decay: L2 penalty.

    Raises:
        TypeError, ValueError: lists of different lengths, or tensors that do not match.

    Source: Kingma and Ba 2015 (arXiv:1412.6980), algorithm 2, with the ``eps`` of :class:`torch.optim.Adamax`.
    """
    lists = {"params": params, "grads": grads, "exp_avgs": exp_avgs, "exp_infs": exp_infs}
    _validate(lists)
    if not params:
        return
    values = [list(tensors) for tensors in lists.values()]
    dense = all(map(is_dense, params)) and all(
        value.stride() == param.stride() for others in values[1:] for value, param in zip(others, params, strict=True)
    )
    run: Any = fused_step if dense else _reference.adamax_step
    run(*values, rate, *betas, eps, weight_decay)
