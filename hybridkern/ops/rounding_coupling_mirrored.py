"""One integer coupling of two halves together with the reversal of all dimensions that follows it.

At a few thousand elements the cost of a step is that of its calls; this one stands for a dozen.
"""

from __future__ import annotations

from typing import Any, Literal, overload

import torch
from torch import Tensor

from hybridkern.ops import _check
from hybridkern.ops._autograd import once_differentiable, with_gradient
from hybridkern.ops._library import define
from hybridkern.ops._select import select
from hybridkern.ops.discretized_logistic import _backward as _prior_backward
from hybridkern.ops.discretized_logistic import _forward as _prior_forward
from hybridkern.ops.discretized_logistic import discretized_logistic_log_prob
from hybridkern.ops.rounding_coupling import rounding_coupling
from hybridkern.reference import rounding_coupling_mirrored as _reference

_OPTIONS = "Tensor t, Tensor beta, int index, bool lattice"


def _fake_forward(a: Tensor, b: Tensor, t: Tensor, beta: Tensor, index: int, lattice: bool) -> Tensor:
    return a.new_empty((a.shape[0], 2 * a.shape[1]))


def _fake_backward(
    first: Tensor, second: Tensor, t: Tensor, beta: Tensor, index: int, lattice: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return t.new_empty(t.shape), t.new_empty(t.shape), t.new_empty(t.shape), beta.new_empty(beta.shape)


_forward = define(f"rounding_coupling_mirrored_forward(Tensor a, Tensor b, {_OPTIONS}) -> Tensor", _fake_forward)
_backward = define(
    f"rounding_coupling_mirrored_backward(Tensor first, Tensor second, {_OPTIONS}) -> (Tensor, Tensor, Tensor, Tensor)",
    _fake_backward,
)


def _rows(grad: Tensor | None, like: Tensor) -> Tensor:
    if grad is None:
        return torch.zeros_like(like)
    return grad if grad.stride(1) == 1 else grad.contiguous()


class _Halves(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, a: Tensor, b: Tensor, t: Tensor, beta: Tensor, index: int, lattice: bool
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(t, beta)
        ctx.options = (index, lattice)
        ctx.set_materialize_grads(False)
        z = _forward(a, b, t, beta, index, lattice)
        half = a.shape[1]
        return z[:, :half], z[:, half:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, first: Tensor | None, second: Tensor | None) -> tuple[Tensor | None, ...]:
        t, beta = ctx.saved_tensors
        return *_backward(_rows(first, t), _rows(second, t), t, beta, *ctx.options), None, None


class _Joined(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, t: Tensor, beta: Tensor, index: int, lattice: bool) -> Tensor:
        ctx.save_for_backward(t, beta)
        ctx.options = (index, lattice)
        z: Tensor = _forward(a, b, t, beta, index, lattice)
        return z

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        t, beta = ctx.saved_tensors
        half = t.shape[1]
        grad = _rows(grad, t)
        return *_backward(grad[:, :half], grad[:, half:], t, beta, *ctx.options), None, None


class _WithPrior(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        a: Tensor,
        b: Tensor,
        t: Tensor,
        beta: Tensor,
        mean: Tensor,
        log_scale: Tensor,
        index: int,
        lattice: bool,
    ) -> tuple[Tensor, Tensor]:
        z = _forward(a, b, t, beta, index, lattice)
        ctx.save_for_backward(z, t, beta, mean, log_scale)
        ctx.options = (index, lattice)
        ctx.set_materialize_grads(False)
        return z, _prior_forward(z, mean, log_scale, 1.0, True)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_z: Tensor | None, grad_log_p: Tensor | None) -> tuple[Tensor | None, ...]:
        z, t, beta, mean, log_scale = ctx.saved_tensors
        grad, grad_mean, grad_log_scale = grad_z, None, None
        if grad_log_p is not None:
            grad, grad_mean, grad_log_scale = _prior_backward(grad_log_p, z, mean, log_scale, 1.0, True)
            grad = grad if grad_z is None else grad.add_(grad_z)
        assert grad is not None
        half = t.shape[1]
        grad = _rows(grad, t)
        grads = _backward(grad[:, :half], grad[:, half:], t, beta, *ctx.options)
        return *grads, grad_mean, grad_log_scale, None, None


_halves = with_gradient("mirrored_halves", _Halves)
_joined = with_gradient("mirrored_joined", _Joined)
_with_prior = with_gradient("mirrored_with_prior", _WithPrior)


def _validate(a: Tensor, b: Tensor, t: Tensor, beta: Tensor, index: int) -> None:
    if (
        isinstance(a, Tensor) and isinstance(b, Tensor) and isinstance(t, Tensor) and isinstance(beta, Tensor)
        and a.dtype is b.dtype is t.dtype is beta.dtype is torch.float32
        and a.ndim == 2 and a.shape == b.shape == t.shape
        and a.device == b.device == t.device == beta.device
        and beta.ndim == 1 and isinstance(index, int) and 0 <= index < beta.shape[0]
    ):  # fmt: skip
        return  # the usual call pays for one look only
    _check.check_tensor("a", a)
    if a.ndim != 2:
        raise ValueError(f"a: got shape {_check.shape_text(a.shape)}, expected (B, H)")
    for name, value in (("b", b), ("t", t), ("beta", beta)):
        _check.check_tensor(name, value)
        _check.check_same_device(name, value, a)
        if value.dtype is not a.dtype:
            raise TypeError(f"{name}: got dtype {value.dtype}, expected {a.dtype}, the dtype of a")
        if name != "beta" and value.shape != a.shape:
            raise ValueError(
                f"{name}: got shape {_check.shape_text(value.shape)}, expected {_check.shape_text(a.shape)}"
            )
    if not isinstance(index, int):
        raise TypeError(f"index: got {type(index).__name__}, expected an int")
    if beta.ndim != 1 or not 0 <= index < beta.shape[0]:
        raise ValueError(
            f"beta: got shape {_check.shape_text(beta.shape)} and index {index}, expected one dimension that holds it"
        )


def _composed(a: Tensor, b: Tensor, t: Tensor, beta: Tensor, index: int, exact: bool) -> Tensor:
    """The result from the operators below, for the backends without a kernel of it."""
    factor = beta[index]
    if exact:
        y = rounding_coupling(b, t, beta=factor)
    else:
        y = b + factor * rounding_coupling(torch.zeros_like(t), t)
    return torch.cat((a, y), 1).flip(1)


def _check_lattice(lattice: str) -> None:
    if lattice not in ("exact", "tutorial"):
        raise ValueError(f"lattice: got {lattice!r}, expected 'exact' or 'tutorial'")


@overload
def rounding_coupling_mirrored(
    a: Tensor, b: Tensor, t: Tensor, beta: Tensor, index: int, *, lattice: str = ..., join: Literal[False] = ...
) -> tuple[Tensor, Tensor]: ...


@overload
def rounding_coupling_mirrored(
    a: Tensor, b: Tensor, t: Tensor, beta: Tensor, index: int, *, lattice: str = ..., join: Literal[True]
) -> Tensor: ...


def rounding_coupling_mirrored(
    a: Tensor, b: Tensor, t: Tensor, beta: Tensor, index: int, *, lattice: str = "exact", join: bool = False
) -> tuple[Tensor, Tensor] | Tensor:
    r"""One coupling of two halves and the reversal after it: ``flip(cat(a, y))``, ``y = b + round(beta[index] * t)``.

    Gradients pass straight through the rounding, as in :func:`hybridkern.ops.rounding_coupling`.

    Args:
        a: the half that stays, ``(B, H)``; float32 or float64.
        b: the half that is shifted, ``(B, H)``, dtype of ``a``.
        t: raw network output for ``b``, ``(B, H)``, dtype of ``a``.
        beta: factors, one a coupling, ``(F,)``, dtype of ``a``.
        index: which of them is meant.
        lattice: ``"exact"``, or ``"tutorial"`` for ``y = b + beta[index] * round(t)``.
        join: return one tensor instead of two halves.

    Returns:
        The halves of the result, ``(B, H)`` each: ``(flip(y), flip(a))``; or the result, ``(B, 2H)``.

    Raises:
        TypeError, ValueError: an argument of the wrong type, dtype, shape, device or name.

    Source: Hoogeboom et al. 2019 (arXiv:1905.07376), section 3, and the permutation of Tomczak's HybridIDF.
    """
    _validate(a, b, t, beta, index)
    _check_lattice(lattice)
    exact = lattice == "exact"
    backend = select(a, "rounding_coupling")
    if backend in ("triton", "cuda"):
        z = _composed(a, b, t, beta, index, exact)
        return z if join else (z[:, : a.shape[1]], z[:, a.shape[1] :])
    if backend == "reference" or a.dtype not in (torch.float32, torch.float64):
        z = _reference.rounding_coupling_mirrored(a, b, t, beta, index, exact)
        return z if join else (z[:, : a.shape[1]], z[:, a.shape[1] :])
    a, b, t = (value if value.stride(1) == 1 else value.contiguous() for value in (a, b, t))
    run = _joined if join else _halves
    out: tuple[Tensor, Tensor] | Tensor = run(a, b, t, beta, index, exact)
    return out


def rounding_coupling_mirrored_log_prob(
    a: Tensor,
    b: Tensor,
    t: Tensor,
    beta: Tensor,
    index: int,
    mean: Tensor,
    log_scale: Tensor,
    *,
    lattice: str = "exact",
) -> tuple[Tensor, Tensor]:
    r"""The last coupling of a flow and its prior: ``z`` of :func:`rounding_coupling_mirrored`, and ``log P(z)``.

    Args:
        a, b, t, beta, index, lattice: see :func:`rounding_coupling_mirrored`.
        mean, log_scale: of the discretized logistic prior, ``(1, 2H)`` each, dtype of ``a``.

    Returns:
        ``z`` ``(B, 2H)`` and its log-probability in nats, ``(B,)``.

    Raises:
        TypeError, ValueError: an argument of the wrong type, dtype, shape, device or name.

    Source: :func:`rounding_coupling_mirrored` and :func:`hybridkern.ops.discretized_logistic_log_prob`.
    """
    for name, value in (("a", a), ("mean", mean), ("log_scale", log_scale)):
        _check.check_tensor(name, value)
    one_row = a.ndim == 2 and mean.shape == log_scale.shape == (1, 2 * a.shape[1])
    # the kernels read float32 and float64 only
    same = a.dtype is mean.dtype is log_scale.dtype and a.dtype in (torch.float32, torch.float64)
    usual = one_row and same and select(a, "rounding_coupling") == "cpp"
    if not usual:
        z = rounding_coupling_mirrored(a, b, t, beta, index, lattice=lattice, join=True)
        return z, discretized_logistic_log_prob(z, mean, log_scale, reduction="sum")
    _validate(a, b, t, beta, index)
    _check_lattice(lattice)
    _check.check_same_device("mean", mean, a)
    _check.check_same_device("log_scale", log_scale, a)
    a, b, t = (value if value.stride(1) == 1 else value.contiguous() for value in (a, b, t))
    out: tuple[Tensor, Tensor] = _with_prior(a, b, t, beta, mean, log_scale, index, lattice == "exact")
    return out
