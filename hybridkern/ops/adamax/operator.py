"""One step of Adamax over a list of parameters: schema and public function."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from hybridkern import _tensors
from hybridkern.ops import _memory
from hybridkern.ops._backends import choose
from hybridkern.ops._operator import LIBRARY, Operator
from hybridkern.ops.adamax import reference as _reference
from hybridkern.ops.adamax.contract import CONTRACTS


def _fake_step(*arguments: Any) -> None:
    return None


OPERATOR = Operator(
    "adamax",
    {
        "step": "(Tensor(a!)[] params, Tensor[] grads, Tensor(b!)[] exp_avgs, Tensor(c!)[] exp_infs, float rate, "
        "float beta1, float beta2, float eps, float weight_decay) -> ()"
    },
    {"step": _fake_step},
    contracts=CONTRACTS,
    dtypes=(torch.float32, torch.float64),
)
DTYPES = (torch.float32, torch.float64)


def _with_new_versions(keys: Any, params: list[Tensor], grads: Any, exp_avgs: Any, exp_infs: Any, *rest: float) -> None:
    torch.autograd.graph.increment_version([*params, *exp_avgs, *exp_infs])
    with torch._C._AutoDispatchBelowADInplaceOrView():
        below = keys & torch._C._after_ADInplaceOrView_keyset
        OPERATOR.kernels["step"].redispatch(below, params, grads, exp_avgs, exp_infs, *rest)


# A backward pass that saved the old values of a parameter must notice. The C++ nodes see to it (csrc/autograd) where
# they were built for this torch, at a tenth of the cost.
if not torch._C._dispatch_has_kernel_for_dispatch_key("hybridkern::adamax_step", "ADInplaceOrView"):
    LIBRARY.impl("adamax_step", _with_new_versions, "ADInplaceOrView", with_keyset=True)


def _as_list(name: str, values: Iterable[Tensor]) -> list[Tensor]:
    if isinstance(values, (str, bytes, Tensor)) or not isinstance(values, Iterable):
        raise TypeError(f"{name}: got {type(values).__name__}, expected a sequence of tensors")
    return list(values)


def _validate(lists: dict[str, list[Tensor]]) -> None:
    params = lists["params"]
    for name, values in lists.items():
        if len(values) != len(params):
            raise ValueError(f"{name}: got {len(values)} tensors, expected {len(params)}, one for each of params")
        for i, value in enumerate(values):
            _validate_one(f"{name}[{i}]", value, f"params[{i}]", params[i])
            _tensors.check_same_device(f"{name}[{i}]", value, params[0], "params[0]")
            if value.dtype is not params[0].dtype:
                raise TypeError(f"{name}[{i}]: got dtype {value.dtype}, expected {params[0].dtype}, that of params[0]")


def _validate_one(name: str, value: object, main: str, param: Tensor) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: got {type(value).__name__}, expected a torch.Tensor")
    _tensors.check_dense(name, value)
    if value.dtype not in DTYPES or value.dtype is not param.dtype:
        wanted = "float32 or float64" if name == main else f"{param.dtype}, that of {main}"
        raise TypeError(f"{name}: got dtype {value.dtype}, expected {wanted}")
    if value.shape != param.shape:
        raise ValueError(
            f"{name}: got shape {_tensors.shape_text(value.shape)}, expected that of {main}, "
            f"{_tensors.shape_text(param.shape)}"
        )


def _validate_numbers(rate: float, betas: Sequence[float], eps: float, weight_decay: float) -> list[float]:
    """The numbers of a step as the operator takes them: rate, both betas, eps, weight decay."""
    _tensors.check_number("rate", rate)
    if not isinstance(betas, (tuple, list)) or len(betas) != 2:
        raise TypeError(f"betas: got {betas!r}, expected two numbers")
    for beta in betas:
        _tensors.check_number("betas", beta, "numbers from 0 to below 1", least=0.0)
        if not beta < 1:
            raise ValueError(f"betas: got {betas!r}, expected numbers from 0 to below 1")
    _tensors.check_number("eps", eps, "a number that is not negative", least=0.0)
    _tensors.check_number("weight_decay", weight_decay, "a number that is not negative", least=0.0)
    return [float(number) for number in (rate, *betas, eps, weight_decay)]


def fused_step(lists: Sequence[list[Tensor]], rate: float, beta1: float, beta2: float, *numbers: float) -> None:
    """:func:`adamax_step` of the compiled kernel, which checks the lists itself before it writes.

    ``lists`` are ``params``, ``grads``, ``exp_avgs`` and ``exp_infs``; ``numbers`` are ``eps`` and ``weight_decay``.

    Raises:
        ValueError: tensors that do not match, have gaps, lie in different orders, or share memory; or a number out of
            its range.
    """
    OPERATOR.kernels["step"](*lists, rate, beta1, beta2, *numbers)


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
        params, grads, exp_avgs, exp_infs: equally many tensors, all of one dtype, float32 or float64, and on one
            device; those of one index have one shape. ``grads`` are not changed. No two tensors share memory, but for
            two of ``grads``.
        rate: ``lr / (1 - beta1**t)`` in step ``t``, counted from 1; a finite number.
        betas: ``beta1`` and ``beta2``, from 0 to below 1.
        eps: keeps ``exp_inf`` positive; not negative.
        weight_decay: L2 penalty; not negative.

    Raises:
        TypeError, ValueError: lists of different lengths, tensors that do not match or that share memory, or a number
            out of its range.

    Source: Kingma and Ba 2015 (arXiv:1412.6980), algorithm 2, with the ``eps`` of :class:`torch.optim.Adamax`.
    """
    named = {"params": params, "grads": grads, "exp_avgs": exp_avgs, "exp_infs": exp_infs}
    lists = {name: _as_list(name, values) for name, values in named.items()}
    numbers = _validate_numbers(rate, betas, eps, weight_decay)
    values = list(lists.values())
    if _ran_at_once(values, numbers):
        return
    _validate(lists)
    if not lists["params"]:
        return
    if choose(OPERATOR, values[0][0]) == "cpp" and all(map(_memory.is_dense, values[0])) and _lie_alike(values):
        OPERATOR.kernels["step"](*values, *numbers)
        return
    if not torch.compiler.is_compiling():  # traced tensors have no addresses
        _memory.check_apart(lists, read_only=("grads",))
    _reference.adamax_step(*values, *numbers)  # type: ignore[arg-type]


def _ran_at_once(values: list[list[Tensor]], numbers: list[float]) -> bool:
    """Whether the kernel took the lists as they are: it checks them before it writes, at a tenth of the price."""
    if torch.compiler.is_compiling() or not values[0] or not isinstance(values[0][0], Tensor):
        return False
    if values[0][0].dtype not in DTYPES or choose(OPERATOR, values[0][0]) != "cpp":
        return False
    try:
        OPERATOR.kernels["step"](*values, *numbers)
        return True
    except (TypeError, RuntimeError, ValueError):
        return False  # what is wrong, or lies otherwise, is looked at again


def _lie_alike(values: list[list[Tensor]]) -> bool:
    return all(
        value.stride() == param.stride() for other in values[1:] for value, param in zip(other, values[0], strict=True)
    )
