"""One integer coupling of two halves together with the reversal of all dimensions that follows it.

At a few thousand elements the cost of a step is that of its calls; this one stands for a dozen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, overload

import torch
from torch import Tensor

from hybridkern import _tensors
from hybridkern.ops._autograd import Gradient, Tensors, needs_grad, recorded
from hybridkern.ops._backends import choose
from hybridkern.ops._gpu import run, runner
from hybridkern.ops._operator import Operator
from hybridkern.ops.discretized_logistic.operator import OPERATOR as _PRIOR
from hybridkern.ops.discretized_logistic.operator import discretized_logistic_log_prob
from hybridkern.ops.discretized_logistic.reference import discretized_logistic_log_prob as _prior_formula
from hybridkern.ops.rounding_coupling.operator import rounding_coupling
from hybridkern.ops.rounding_coupling_mirrored import reference as _reference
from hybridkern.ops.rounding_coupling_mirrored.contract import CONTRACTS

_OPTIONS = "Tensor t, Tensor beta, int index, bool lattice"


def _fake_forward(a: Tensor, b: Tensor, t: Tensor, beta: Tensor, index: int, lattice: bool) -> Tensor:
    return a.new_empty((a.shape[0], 2 * a.shape[1]))


def _fake_backward(
    first: Tensor, second: Tensor, t: Tensor, beta: Tensor, index: int, lattice: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return t.new_empty(t.shape), t.new_empty(t.shape), t.new_empty(t.shape), beta.new_empty(beta.shape)


OPERATOR = Operator(
    "rounding_coupling_mirrored",
    {
        "forward": f"(Tensor a, Tensor b, {_OPTIONS}) -> Tensor",
        "backward": f"(Tensor first, Tensor second, {_OPTIONS}) -> (Tensor, Tensor, Tensor, Tensor)",
    },
    {"forward": _fake_forward, "backward": _fake_backward},
    contracts=CONTRACTS,
    made_of="rounding_coupling",
    dtypes=(torch.float32, torch.float64),
)
_OPTION_TYPES = (int, bool)


_forward: Callable[..., Tensor] = runner(OPERATOR, "forward")


def _halves_of(z: Tensor) -> tuple[Tensor, Tensor]:
    half = z.shape[1] // 2
    return z[:, :half], z[:, half:]


def _rows(grad: Tensor | None, like: Tensor) -> Tensor:
    if grad is None:
        return torch.zeros_like(like)
    return grad if grad.stride(1) == 1 else grad.contiguous()


def _backward(
    backend: str, saved: Tensors, grads: Tensors, options: Sequence[Any], needs: Sequence[bool]
) -> tuple[Tensor, ...]:
    """From the gradients of both halves."""
    t, beta = saved
    assert t is not None
    out: tuple[Tensor, ...] = run(
        OPERATOR, "backward", backend, _rows(grads[0], t), _rows(grads[1], t), t, beta, *options
    )
    return out


def _backward_joined(
    backend: str, saved: Tensors, grads: Tensors, options: Sequence[Any], needs: Sequence[bool]
) -> tuple[Tensor, ...]:
    assert grads[0] is not None
    return _backward(backend, saved, _halves_of(grads[0]), options, needs)


def _inputs(saved: Tensors, grads: Tensors, options: Sequence[Any]) -> tuple[Tensor | None, ...]:
    t, beta = saved
    assert t is not None
    return torch.zeros_like(t), torch.zeros_like(t), t, beta


def _formulas_halves(*args: Any) -> tuple[Tensor, Tensor]:
    return _halves_of(_reference.rounding_coupling_mirrored(*args))


def _forward_with_prior(backend: str, *args: Any) -> tuple[Tensor, Tensor]:
    *coupling, mean, log_scale, index, lattice = args
    z = _forward(backend, *coupling, index, lattice)
    return z, run(_PRIOR, "forward", backend, z, mean, log_scale, 1.0, True)


def _saves_with_prior(args: Sequence[Any], outputs: Any) -> tuple[Tensor, ...]:
    return outputs[0], *args[2:6]


def _backward_with_prior(
    backend: str, saved: Tensors, grads: Tensors, options: Sequence[Any], needs: Sequence[bool]
) -> tuple[Tensor | None, ...]:
    z, t, beta, mean, log_scale = saved
    grad, grad_mean, grad_log_scale = grads[0], None, None
    if grads[1] is not None:
        grad, grad_mean, grad_log_scale = run(_PRIOR, "backward", backend, grads[1], z, mean, log_scale, 1.0, True)
        grad = grad if grads[0] is None else grad.add_(grads[0])
    assert grad is not None
    return *_backward(backend, (t, beta), _halves_of(grad), options, needs), grad_mean, grad_log_scale


def _formulas_with_prior(*args: Any) -> tuple[Tensor, Tensor]:
    a, b, t, beta, mean, log_scale, index, lattice = args
    z = _reference.rounding_coupling_mirrored(a, b, t, beta, index, lattice)
    return z, _prior_formula(z, mean, log_scale, 1.0, "sum")


def _inputs_with_prior(saved: Tensors, grads: Tensors, options: Sequence[Any]) -> tuple[Tensor | None, ...]:
    """The halves as they were: the prior is not linear in them."""
    z, t, beta, mean, log_scale = saved
    assert z is not None and t is not None and beta is not None
    a, shifted = _halves_of(z.flip(1))
    zero = torch.zeros_like(a)
    moved = _halves_of(_reference.rounding_coupling_mirrored(zero, zero, t, beta, *options).flip(1))[1]
    return a, shifted - moved, t, beta, mean, log_scale


def _saves(args: Sequence[Any], outputs: Any) -> Tensors:
    return args[2:4]


def _forward_halves(backend: str, *args: Any) -> tuple[Tensor, Tensor]:
    return _halves_of(_forward(backend, *args))


_formulas = _reference.rounding_coupling_mirrored
_halves = recorded(
    Gradient("MirroredHalves", 4, _forward_halves, _saves, _backward, _formulas_halves, _inputs),
    "mirrored_halves",
    _OPTION_TYPES,
)
_joined = recorded(
    Gradient("MirroredJoined", 4, _forward, _saves, _backward_joined, _formulas, _inputs),
    "mirrored_joined",
    _OPTION_TYPES,
)
_PRIOR_GRADIENT = Gradient(
    "MirroredWithPrior",
    6,
    _forward_with_prior,
    _saves_with_prior,
    _backward_with_prior,
    _formulas_with_prior,
    _inputs_with_prior,
)
_with_prior = recorded(_PRIOR_GRADIENT, "mirrored_with_prior", _OPTION_TYPES)


def _validate(a: Tensor, b: Tensor, t: Tensor, beta: Tensor, index: int) -> None:
    try:
        if (
            isinstance(a, Tensor) and isinstance(b, Tensor) and isinstance(t, Tensor) and isinstance(beta, Tensor)
            and a.dtype is b.dtype is t.dtype is beta.dtype is torch.float32
            and a.layout is b.layout is t.layout is beta.layout is torch.strided
            and a.ndim == 2 and a.shape == b.shape == t.shape
            and a.is_cpu and b.is_cpu and t.is_cpu and beta.is_cpu
            and beta.ndim == 1 and type(index) is int and 0 <= index < beta.shape[0]
        ):  # fmt: skip
            return  # the usual call pays for one look only
    except RuntimeError:  # a nested tensor has no shape; it is refused below
        pass
    _tensors.check_tensor("a", a)
    if a.ndim != 2:
        raise ValueError(f"a: got shape {_tensors.shape_text(a.shape)}, expected (B, H)")
    for name, value in (("b", b), ("t", t), ("beta", beta)):
        _tensors.check_tensor(name, value)
        _tensors.check_same_device(name, value, a)
        if value.dtype is not a.dtype:
            raise TypeError(f"{name}: got dtype {value.dtype}, expected {a.dtype}, the dtype of a")
        if name != "beta" and value.shape != a.shape:
            raise ValueError(
                f"{name}: got shape {_tensors.shape_text(value.shape)}, expected {_tensors.shape_text(a.shape)}"
            )
    if not isinstance(index, int) or isinstance(index, bool):
        raise TypeError(f"index: got {type(index).__name__}, expected an int")
    if beta.ndim != 1 or not 0 <= index < beta.shape[0]:
        raise ValueError(
            f"beta: got shape {_tensors.shape_text(beta.shape)} and index {index}, expected one dimension that holds it"
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
    if type(join) is not bool:
        join = _tensors.flag("join", join)  # type: ignore[unreachable]  # a caller may not be typed
    exact = lattice == "exact"
    backend = choose(OPERATOR, a)
    if backend != "cpp":
        compose = _reference.rounding_coupling_mirrored if backend == "reference" else _composed
        z = compose(a, b, t, beta, index, exact)
        return z if join else _halves_of(z)
    a, b, t = (value if value.stride(1) == 1 else value.contiguous() for value in (a, b, t))
    if needs_grad(a, b, t, beta):
        out: tuple[Tensor, Tensor] | Tensor = (_joined if join else _halves)(backend, a, b, t, beta, index, exact)
        return out
    z = _forward(backend, a, b, t, beta, index, exact)
    return z if join else _halves_of(z)


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
        _tensors.check_tensor(name, value)
    one_row = a.ndim == 2 and mean.shape == log_scale.shape == (1, 2 * a.shape[1])
    # the kernels read float32 and float64 only
    same = a.dtype is mean.dtype is log_scale.dtype and a.dtype in (torch.float32, torch.float64)
    backend = choose(OPERATOR, a) if one_row and same else ""
    if backend != "cpp":
        z = rounding_coupling_mirrored(a, b, t, beta, index, lattice=lattice, join=True)
        return z, discretized_logistic_log_prob(z, mean, log_scale, reduction="sum")
    _validate(a, b, t, beta, index)
    _check_lattice(lattice)
    _tensors.check_same_device("mean", mean, a)
    _tensors.check_same_device("log_scale", log_scale, a)
    a, b, t = (value if value.stride(1) == 1 else value.contiguous() for value in (a, b, t))
    record = _with_prior if needs_grad(a, b, t, beta, mean, log_scale) else _forward_with_prior
    out: tuple[Tensor, Tensor] = record(backend, a, b, t, beta, mean, log_scale, index, lattice == "exact")
    return out
