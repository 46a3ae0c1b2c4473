"""Integer-rounding coupling: schema, autograd and public function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from hybridkern import _tensors
from hybridkern.ops._autograd import Gradient, Tensors, needs_grad, quick, recorded
from hybridkern.ops._backends import choose
from hybridkern.ops._gpu import run, runner
from hybridkern.ops._operator import Operator, option_types
from hybridkern.ops.rounding_coupling import reference as _reference
from hybridkern.ops.rounding_coupling.contract import CONTRACTS


def _fake_forward(x: Tensor, t: Tensor, beta: Tensor | None, inverse: bool) -> Tensor:
    return torch.empty_like(x)


def _fake_backward(grad: Tensor, t: Tensor, beta: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
    return torch.empty_like(t), torch.empty_like(beta)


OPERATOR = Operator(
    "rounding_coupling",
    {
        "forward": "(Tensor x, Tensor t, Tensor? beta, bool inverse) -> Tensor",
        "backward": "(Tensor grad, Tensor t, Tensor beta, bool inverse) -> (Tensor, Tensor)",
    },
    {"forward": _fake_forward, "backward": _fake_backward},
    contracts=CONTRACTS,
    triton=True,
)


_forward: Callable[..., Tensor] = runner(OPERATOR, "forward")


def _saves(args: Sequence[Any], outputs: Any) -> Tensors:
    return args[1:3] if args[2] is not None else ()  # without beta nothing of t is needed


def _backward(
    backend: str, saved: Tensors, grads: Tensors, options: Sequence[Any], needs: Sequence[bool]
) -> tuple[Tensor | None, ...]:
    (grad,), (inverse,) = grads, options
    assert grad is not None
    if not saved:
        return grad, -grad if inverse else grad, None
    return grad, *run(OPERATOR, "backward", backend, grad, *saved, inverse)


def _inputs(saved: Tensors, grads: Tensors, options: Sequence[Any]) -> tuple[Tensor | None, ...]:
    assert grads[0] is not None
    # not zeros_like: a gradient may be a batch of gradients, and what is differentiated must not be
    zero = torch.zeros(grads[0].shape, dtype=grads[0].dtype, device=grads[0].device)
    return zero, *(saved or (zero, None))


_recorded = recorded(
    Gradient("RoundingCoupling", 3, _forward, _saves, _backward, _reference.rounding_coupling, _inputs),
    "rounding_coupling",
    option_types(OPERATOR.kernels["forward"]),
)
_quick = quick("rounding_coupling")


def _validate(x: Tensor, t: Tensor, beta: Tensor | None) -> None:
    _tensors.check_param("t", t, x)
    if t.shape != x.shape:
        raise ValueError(
            f"t: got shape {_tensors.shape_text(t.shape)}, expected {_tensors.shape_text(x.shape)}, the shape of x"
        )
    if beta is not None:
        if not isinstance(beta, Tensor):
            raise TypeError(
                f"beta: got {type(beta).__name__}, expected a number, a torch.Tensor of one element or None"
            )
        _tensors.check_tensor("beta", beta)
        _tensors.check_same_device("beta", beta, x)
        if beta.numel() != 1:
            raise ValueError(f"beta: got shape {_tensors.shape_text(beta.shape)}, expected one element: () or (1,)")


def rounding_coupling(x: Tensor, t: Tensor, *, beta: Tensor | float | None = None, inverse: bool = False) -> Tensor:
    r"""Integer coupling ``y = x + round(beta * t)`` (``x - round(...)`` inverse), half to even.

    Integers stay integers, exactly, as long as they fit the dtype (``|y| <= 2**24`` in float32). The gradient passes
    straight through the rounding: ``dy/dt = beta``, ``dy/dbeta = t``. The product ``beta * t`` is formed in float32
    (float64 for float64 ``x``) by every backend, so that all round the same number.

    Args:
        x: the half to shift, ``(B, *S)``; float32, float64, bfloat16 or float16.
        t: raw network output of the same shape; dtype of ``x``, or bfloat16 or float16 beside float32 ``x``.
        beta: scale of the translation, one element or a number; ``None`` is 1.
        inverse: subtract instead of add; undoes the forward call with the same ``t`` and ``beta``.

    Returns:
        ``y`` like ``x``. The map is volume-preserving on the lattice: no log-determinant.

    Raises:
        TypeError, ValueError: an argument of the wrong type, dtype, shape or device.

    Source: Hoogeboom et al. 2019 (arXiv:1905.07376), section 3; the factor ``beta`` is Tomczak's, moved inside the
    rounding so that the lattice is kept.
    """
    if type(inverse) is not bool:
        inverse = _tensors.flag("inverse", inverse)  # type: ignore[unreachable]  # a caller may not be typed
    out: Tensor | None = _quick(x, t, beta, inverse)
    if out is not None:
        return out
    if isinstance(x, Tensor):
        x = _tensors.autocast_input(x)
    _tensors.check_batched("x", x)
    if isinstance(beta, (int, float)):
        # no tensor on the host: copying it to a device would wait, and cannot be captured in a CUDA graph
        beta = torch.full((), float(beta), dtype=_tensors.total_dtype(x), device=x.device)
    _validate(x, t, beta)
    backend = choose(OPERATOR, x)
    if backend == "reference":
        return _reference.rounding_coupling(x, t, beta, inverse)
    record = _recorded if needs_grad(x, t, beta) else _forward
    out = record(backend, x, t, beta, inverse)
    assert out is not None
    return out
