"""Activations of Lipschitz constant one, with fused first and second derivatives: schema, autograd and functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.nn import functional as F

from hybridkern import _tensors
from hybridkern.ops._autograd import Gradient, Tensors, all_saved, needs_grad, quick, recorded
from hybridkern.ops._backends import choose
from hybridkern.ops._gpu import backward_of, run, runner
from hybridkern.ops._operator import Operator, option_types
from hybridkern.ops.lipswish import reference as _reference
from hybridkern.ops.lipswish.contract import CONTRACTS


def _outputs_like(x: Tensor, paired: bool) -> Tensor:
    if not paired:
        return torch.empty_like(x)
    shape = (x.shape[0], 2 * x.shape[1], *x.shape[2:])
    last = x.ndim == 4 and x.shape[1] > 1 and x.stride(1) == 1
    return torch.empty(
        shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last if last else torch.contiguous_format
    )


def _fake_forward(x: Tensor, b: Tensor, paired: bool) -> Tensor:
    return _outputs_like(x, paired)


def _fake_backward(grad: Tensor, x: Tensor, b: Tensor, paired: bool) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), b.new_empty(b.shape)


def _fake_double_backward(
    outer_x: Tensor | None, outer_b: Tensor | None, grad: Tensor, x: Tensor, b: Tensor, paired: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return _outputs_like(x, paired), torch.empty_like(x), b.new_empty(b.shape)


OPERATOR = Operator(
    "lipswish",
    {
        "forward": "(Tensor x, Tensor b, bool paired) -> Tensor",
        "backward": "(Tensor grad, Tensor x, Tensor b, bool paired) -> (Tensor, Tensor)",
        "double_backward": "(Tensor? outer_x, Tensor? outer_b, Tensor grad, Tensor x, Tensor b, bool paired) "
        "-> (Tensor, Tensor, Tensor)",
    },
    {"forward": _fake_forward, "backward": _fake_backward, "double_backward": _fake_double_backward},
    contracts=CONTRACTS,
)

_forward: Callable[..., Tensor] = runner(OPERATOR, "forward")
_run_backward: Callable[..., tuple[Tensor, Tensor]] = runner(OPERATOR, "backward")


def _double_backward(
    backend: str, saved: Tensors, grads: Tensors, options: Sequence[Any], needs: Sequence[bool]
) -> tuple[Tensor, ...]:
    out: tuple[Tensor, ...] = run(OPERATOR, "double_backward", backend, *grads, *saved, *options)
    return out


_OPTIONS = option_types(OPERATOR.kernels["forward"])
_recorded = recorded(
    Gradient("LipSwish", 2, _forward, lambda args, _: args[:2], backward_of(OPERATOR), _reference.by_factor, all_saved),
    "lipswish",
    _OPTIONS,
)
# the backward pass of the C++ node is a call of its own where it is differentiated again
recorded(
    Gradient(
        "LipSwishBackward",
        3,
        _run_backward,
        lambda args, _: args[:3],
        _double_backward,
        _reference.backward_by_factor,
        all_saved,
    ),
    "lipswish_backward",
    _OPTIONS,
)
_quick = quick("lipswish")


def _validate(x: Tensor, beta: Tensor, at_least: int) -> None:
    _tensors.check_batched("x", x, at_least)
    _tensors.check_tensor("beta", beta)
    if beta.numel() != 1:
        raise ValueError(f"beta: got shape {_tensors.shape_text(beta.shape)}, expected one element: () or (1,)")
    _tensors.check_same_device("beta", beta, x)


def _has_values(beta: object) -> bool:
    """Whether ``beta`` is an ordinary tensor of numbers that have a softplus."""
    if type(beta) not in (Tensor, Parameter):
        return False
    assert isinstance(beta, Tensor)
    return beta.is_floating_point() and beta.layout is torch.strided and not beta.is_nested


def _factor(beta: Tensor) -> Tensor:
    return F.softplus(beta.float() if beta.dtype in _tensors.LOW else beta)


def _call(x: Tensor, beta: Tensor, paired: bool) -> Tensor:
    out: Tensor | None = _quick(x, _factor(beta), paired) if _has_values(beta) else None
    if out is not None:
        return out
    _validate(x, beta, 2 if paired else 1)
    backend = choose(OPERATOR, x)
    if backend == "reference":
        return _reference.clipswish(x, beta) if paired else _reference.lipswish(x, beta)
    record = _recorded if needs_grad(x, beta) else _forward
    out = record(backend, x, _factor(beta), paired)
    assert out is not None
    return out


def lipswish(x: Tensor, beta: Tensor) -> Tensor:
    r"""Swish with a slope of at most one: ``x sigmoid(softplus(beta) x) / 1.1``.

    Values, gradients, and gradients of gradients, as residual flows need them, are one pass each.

    Args:
        x: values, ``(B, *S)``; float32, float64, bfloat16 or float16.
        beta: one element, ``()`` or ``(1,)``; any of these dtypes. Usually learnt, from 0.5.

    Returns:
        Like ``x``. First, second and further derivatives in ``x`` and ``beta`` are those of the formula.

    Raises:
        TypeError, ValueError: an argument of the wrong type, dtype, shape or device.

    Source: Chen et al. 2019 (arXiv:1906.02735), section 3.3.
    """
    return _call(x, beta, False)


def clipswish(x: Tensor, beta: Tensor) -> Tensor:
    r"""``(lipswish(x), lipswish(-x)) / 1.004``, joined at dim 1: twice the channels, together of slope at most one.

    Args:
        x: values, ``(B, C, *S)``; float32, float64, bfloat16 or float16.
        beta: one element, ``()`` or ``(1,)``; any of these dtypes.

    Returns:
        ``(B, 2C, *S)``, dtype of ``x``.

    Raises:
        TypeError, ValueError: an argument of the wrong type, dtype, shape or device.

    Source: Perugachi-Diaz et al. 2021 (arXiv:2102.02694), section 3.3.
    """
    return _call(x, beta, True)
