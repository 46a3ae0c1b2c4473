"""Log-probability of the discretized logistic: schema, autograd and public function."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from hybridkern import _tensors
from hybridkern.ops._autograd import Gradient, all_saved, needs_grad, quick, recorded
from hybridkern.ops._backends import choose
from hybridkern.ops._broadcast import broadcast_params
from hybridkern.ops._density_rules import MAX_BIN_WIDTH, MIN_BIN_WIDTH
from hybridkern.ops._gpu import backward_of, runner
from hybridkern.ops._operator import Operator, option_types
from hybridkern.ops.discretized_logistic import reference as _reference
from hybridkern.ops.discretized_logistic.contract import CONTRACTS

REDUCTIONS = ("none", "sum")


def _fake_forward(x: Tensor, mean: Tensor, log_scale: Tensor, bin_width: float, reduce: bool) -> Tensor:
    return x.new_empty((x.shape[0],), dtype=_tensors.total_dtype(x)) if reduce else torch.empty_like(x)


def _fake_backward(
    grad: Tensor, x: Tensor, mean: Tensor, log_scale: Tensor, bin_width: float, reduce: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(x), mean.new_empty(mean.shape), log_scale.new_empty(log_scale.shape)


_ARGUMENTS = "Tensor x, Tensor mean, Tensor log_scale, float bin_width, bool reduce"
OPERATOR = Operator(
    "discretized_logistic",
    {"forward": f"({_ARGUMENTS}) -> Tensor", "backward": f"(Tensor grad, {_ARGUMENTS}) -> (Tensor, Tensor, Tensor)"},
    {"forward": _fake_forward, "backward": _fake_backward},
    contracts=CONTRACTS,
    triton=True,
)


_forward: Callable[..., Tensor] = runner(OPERATOR, "forward")


def _formulas(x: Tensor, mean: Tensor, log_scale: Tensor, bin_width: float, reduce: bool) -> Tensor:
    return _reference.discretized_logistic_log_prob(x, mean, log_scale, bin_width, "sum" if reduce else "none")


_recorded = recorded(
    Gradient("DiscretizedLogistic", 3, _forward, lambda args, _: args[:3], backward_of(OPERATOR), _formulas, all_saved),
    "discretized_logistic",
    option_types(OPERATOR.kernels["forward"]),
)
_quick = quick("discretized_logistic")


def check_options(bin_width: float, reduction: str) -> None:
    """``bin_width`` must be a number in range, ``reduction`` a known name; TypeError or ValueError otherwise."""
    if not isinstance(bin_width, (int, float)):
        raise TypeError(f"bin_width: got {type(bin_width).__name__}, expected a number")
    if not MIN_BIN_WIDTH <= bin_width <= MAX_BIN_WIDTH:  # false for NaN as well
        raise ValueError(f"bin_width: got {bin_width!r}, expected a number from {MIN_BIN_WIDTH:g} to {MAX_BIN_WIDTH:g}")
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction: got {reduction!r}, expected 'none' or 'sum'")


def discretized_logistic_log_prob(
    x: Tensor, mean: Tensor, log_scale: Tensor, *, bin_width: float = 1.0, reduction: str = "none"
) -> Tensor:
    r"""Log of the logistic's mass in ``[x - bin_width/2, x + bin_width/2]``, in nats.

    Exact in both tails: with ``u = |x - mean|/scale`` and ``h = bin_width/(2 scale)`` the mass is
    ``(1 - exp(-2h)) sigma(h - u) sigma(h + u)``. Its gradients are computed from the same exponentials, so they are
    neither clipped nor floored.

    The scale is held between ``exp(-69)`` and ``exp(60)``, on every backend. Below, the bin holds everything or nothing
    to every digit, and outside the bin ``log p`` falls as at ``exp(-69)``. Above, the mass is proportional to
    ``1/scale``: ``log p`` is that at ``exp(60)`` less ``log_scale - 60``, which is exact to every digit where
    ``|x - mean|`` is far below ``exp(60)``, about 1e26. Gradients beyond a bound are those at the bound, not 0.

    Args:
        x: values, ``(B, *S)``; float32, float64, bfloat16 or float16. Usually on the lattice of ``bin_width``.
        mean, log_scale: location and log of the scale, broadcast to ``x``; dtype of ``x``, or bfloat16 or float16
            beside float32 ``x``. Log-scales below -69 or above 60 are held there, as said above.
        bin_width: width of the bin, in the units of ``x``; from 1e-6 to 1e6.
        reduction: ``"none"`` or ``"sum"``, which sums over each example.

    Returns:
        Log-probabilities in nats: like ``x``, or ``(B,)``, at least float32, for ``"sum"``.

    Raises:
        TypeError, ValueError: an argument of the wrong type, dtype, shape, device or range.

    Source: Salimans et al. 2017 (arXiv:1701.05517), section 2.1, without the edge bins, in the symmetric form;
    Hoogeboom et al. 2019 (arXiv:1905.07376), equation 11.
    """
    check_options(bin_width, reduction)
    log_p: Tensor | None = _quick(x, mean, log_scale, float(bin_width), reduction == "sum")
    if log_p is not None:
        return log_p
    if isinstance(x, Tensor):
        x = _tensors.autocast_input(x)
    _tensors.check_batched("x", x)
    _tensors.check_param("mean", mean, x)
    _tensors.check_param("log_scale", log_scale, x)
    # the number of dimensions first: comparing unlike sizes would bar a batch of D examples from exported graphs
    if mean.ndim != x.ndim or log_scale.ndim != x.ndim or mean.shape != x.shape or log_scale.shape != x.shape:
        mean, log_scale = broadcast_params((("mean", mean), ("log_scale", log_scale)), x.shape)
    backend = choose(OPERATOR, x)
    if backend == "reference":
        return _reference.discretized_logistic_log_prob(x, mean, log_scale, bin_width, reduction)
    record = _recorded if needs_grad(x, mean, log_scale) else _forward
    log_p = record(backend, x, mean, log_scale, bin_width, reduction == "sum")
    assert log_p is not None
    return log_p
