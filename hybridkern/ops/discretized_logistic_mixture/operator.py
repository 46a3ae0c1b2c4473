"""Log-probability of a mixture of discretized logistics: schema, autograd and public function."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from hybridkern import _tensors
from hybridkern.ops._autograd import Gradient, all_saved, needs_grad, quick, recorded
from hybridkern.ops._backends import choose
from hybridkern.ops._broadcast import broadcast_params
from hybridkern.ops._gpu import backward_of, runner
from hybridkern.ops._operator import Operator, option_types
from hybridkern.ops.discretized_logistic.operator import check_options
from hybridkern.ops.discretized_logistic_mixture import reference as _reference
from hybridkern.ops.discretized_logistic_mixture.contract import CONTRACTS


def _fake_forward(x: Tensor, logits: Tensor, mean: Tensor, log_scale: Tensor, bin_width: float, reduce: bool) -> Tensor:
    return x.new_empty((x.shape[0],), dtype=_tensors.total_dtype(x)) if reduce else torch.empty_like(x)


def _fake_backward(
    grad: Tensor, x: Tensor, logits: Tensor, mean: Tensor, log_scale: Tensor, bin_width: float, reduce: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    params = (logits, mean, log_scale)
    grads = [value.new_empty(value.shape) for value in params]
    return torch.empty_like(x), grads[0], grads[1], grads[2]


_ARGUMENTS = "Tensor x, Tensor logits, Tensor mean, Tensor log_scale, float bin_width, bool reduce"
OPERATOR = Operator(
    "discretized_logistic_mixture",
    {
        "forward": f"({_ARGUMENTS}) -> Tensor",
        "backward": f"(Tensor grad, {_ARGUMENTS}) -> (Tensor, Tensor, Tensor, Tensor)",
    },
    {"forward": _fake_forward, "backward": _fake_backward},
    contracts=CONTRACTS,
    triton=True,
)


_forward: Callable[..., Tensor] = runner(OPERATOR, "forward")


def _formulas(x: Tensor, logits: Tensor, mean: Tensor, log_scale: Tensor, bin_width: float, reduce: bool) -> Tensor:
    return _reference.discretized_logistic_mixture_log_prob(
        x, logits, mean, log_scale, bin_width, "sum" if reduce else "none"
    )


_recorded = recorded(
    Gradient(
        "DiscretizedLogisticMixture",
        4,
        _forward,
        lambda args, _: args[:4],
        backward_of(OPERATOR),
        _formulas,
        all_saved,
    ),
    "discretized_logistic_mixture",
    option_types(OPERATOR.kernels["forward"]),
)
_quick = quick("discretized_logistic_mixture")


def discretized_logistic_mixture_log_prob(
    x: Tensor, logits: Tensor, mean: Tensor, log_scale: Tensor, *, bin_width: float = 1.0, reduction: str = "none"
) -> Tensor:
    r"""Log-probability of ``x`` under a mixture of ``K`` discretized logistics per element, in nats.

    ``log sum_k softmax(logits)_k P_k(x)`` with ``P_k`` as in :func:`discretized_logistic_log_prob`: no floor, exact
    in the tails.

    Each scale is held between ``exp(-69)`` and ``exp(60)``, as there: below, ``P_k`` falls outside its bin as at
    ``exp(-69)``; above, ``P_k`` is that at ``exp(60)`` times ``exp(60)/scale``. Gradients beyond a bound are those at
    the bound.

    Args:
        x: values, ``(B, *S)``; float32, float64, bfloat16 or float16.
        logits, mean, log_scale: unnormalized log-weights, locations and log-scales, each broadcast to
            ``(B, K, *S)``: the mixture dimension stands at dim 1. Dtype of ``x``, or bfloat16 or float16 beside
            float32 ``x``.
        bin_width: width of the bin, in the units of ``x``; from 1e-6 to 1e6.
        reduction: ``"none"`` or ``"sum"``, which sums over each example.

    Returns:
        Log-probabilities in nats: like ``x``, or ``(B,)``, at least float32, for ``"sum"``.

    Raises:
        TypeError, ValueError: an argument of the wrong type, dtype, shape, device or range.

    Source: Salimans et al. 2017 (arXiv:1701.05517), section 2.1, without the edge bins.
    """
    check_options(bin_width, reduction)
    log_p: Tensor | None = _quick(x, logits, mean, log_scale, float(bin_width), reduction == "sum")
    if log_p is not None:
        return log_p
    if isinstance(x, Tensor):
        x = _tensors.autocast_input(x)
    _tensors.check_batched("x", x)
    named = (("logits", logits), ("mean", mean), ("log_scale", log_scale))
    for name, value in named:
        _tensors.check_param(name, value, x)
        if value.ndim != x.ndim + 1:
            raise ValueError(
                f"{name}: got shape {_tensors.shape_text(value.shape)}, expected {x.ndim + 1} dimensions: those of x "
                "with the mixture dimension K inserted at dim 1"
            )
    components = max(logits.shape[1], mean.shape[1], log_scale.shape[1])
    if components < 1:
        raise ValueError("logits: got 0 components at dim 1, expected at least 1")
    shape = (x.shape[0], components, *x.shape[1:])
    logits, mean, log_scale = broadcast_params(named, shape)
    backend = choose(OPERATOR, x)
    if backend == "reference":
        return _reference.discretized_logistic_mixture_log_prob(x, logits, mean, log_scale, bin_width, reduction)
    record = _recorded if needs_grad(x, logits, mean, log_scale) else _forward
    log_p = record(backend, x, logits, mean, log_scale, bin_width, reduction == "sum")
    assert log_p is not None
    return log_p
