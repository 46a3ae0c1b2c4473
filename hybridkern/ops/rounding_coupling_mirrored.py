"""One integer coupling of two halves together with the reversal of all dimensions that follows it.

At a few thousand elements the cost of a step is that of its calls; this one stands for a dozen.
"""

from __future__ import annotations

from typing import Any, Literal, overload

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hybridkern.ops import _check
from hybridkern.ops._library import define
from hybridkern.ops._select import select
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


def _validate(a: Tensor, b: Tensor, t: Tensor, beta: Tensor, index: int) -> None:
    _check.check_tensor("a", a)
    if a.ndim != 2:
        raise ValueError(f"a: got shape {_check.shape_text(a.shape)}, expected (B, H)")
    for name, value in (("b", b), ("t", t), ("beta", beta)):
        _check.check_tensor(name, value)
        _check.check_same_device(name, value, a)
        if value.dtype is not a.dtype:
            raise TypeError(f"{name}: got dtype {value.dtype}, expected {a.dtype}, the dtype of a")
        if name != "beta" and value.shape != a.shape:
            raise ValueError(f"{name}: got shape {_check.shape_text(value.shape)}, expected {_check.shape_text(a.shape)}")
    if beta.ndim != 1 or not 0 <= index < beta.shape[0]:
        raise ValueError(
            f"beta: got shape {_check.shape_text(beta.shape)} and index {index}, expected one dimension that holds it"
        )


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
    if lattice not in ("exact", "tutorial"):
        raise ValueError(f"lattice: got {lattice!r}, expected 'exact' or 'tutorial'")
    exact = lattice == "exact"
    if select(a) == "reference" or a.dtype not in (torch.float32, torch.float64):
        z = _reference.rounding_coupling_mirrored(a, b, t, beta, index, exact)
        return z if join else (z[:, : a.shape[1]], z[:, a.shape[1] :])
    a, b, t = (value if value.stride(1) == 1 else value.contiguous() for value in (a, b, t))
    run = _Joined.apply if join else _Halves.apply
    out: tuple[Tensor, Tensor] | Tensor = run(a, b, t, beta, index, exact)
    return out
