"""A masked network (layers under masks, an activation, residual sums) as one operator: schema, autograd, function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from hybridkern import _tensors
from hybridkern._autocast import without_autocast
from hybridkern.ops._autograd import Gradient, Tensors, needs_grad, quick, recorded
from hybridkern.ops._backends import choose
from hybridkern.ops._gpu import run, runner
from hybridkern.ops._operator import LIBRARY, Operator
from hybridkern.ops.masked_network import reference as _reference
from hybridkern.ops.masked_network.contract import CONTRACTS, MOST_LAYERS, kept_numbers

ACTIVATIONS = tuple(_reference.ACTIVATIONS)
Lists = Sequence[Tensor]


def _fake_forward(
    x: Tensor, weights: Lists, biases: Lists, masks: Lists, plan: Sequence[int], activation: int, save: bool
) -> tuple[Tensor, Tensor]:
    kept = kept_numbers(weights) if save else 0
    return x.new_empty((x.shape[0], weights[-1].shape[0])), x.new_empty((x.shape[0] * kept,))


def _fake_backward(
    grad: Tensor,
    x: Tensor,
    hidden: Tensor,
    weights: Lists,
    biases: Lists,
    masks: Lists,
    plan: Sequence[int],
    activation: int,
    wants_x: bool,
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    of_weights, of_biases = ([value.new_empty(value.shape) for value in values] for values in (weights, biases))
    return x.new_empty((x.shape[0] if wants_x else 0, x.shape[1])), of_weights, of_biases


_NETWORK = "Tensor[] weights, Tensor[] biases, Tensor[] masks, int[] plan, int activation"
OPERATOR = Operator(
    "masked_network",
    {
        "forward": f"(Tensor x, {_NETWORK}, bool save) -> (Tensor, Tensor)",
        "backward": f"(Tensor grad, Tensor x, Tensor hidden, {_NETWORK}, bool wants_x) -> (Tensor, Tensor[], Tensor[])",
    },
    {"forward": _fake_forward, "backward": _fake_backward},
    contracts=CONTRACTS,
    dtypes=(torch.float32, torch.float64),
)


def _batched_backward(
    grad: Tensor,
    x: Tensor,
    hidden: Tensor,
    weights: Lists,
    biases: Lists,
    masks: Lists,
    plan: Sequence[int],
    activation: int,
    wants_x: bool,
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    return _reference.gradients(grad, x, weights, biases, masks, plan, activation)


# ``torch.autograd.grad(is_grads_batched=True)`` has no fallback for operators that take lists of tensors.
LIBRARY.impl("masked_network_backward", _batched_backward, "Batched")
_forward: Callable[..., tuple[Tensor, Tensor]] = runner(OPERATOR, "forward")
_quick = quick("masked_network")


def _apart(tensors: Sequence[Any]) -> tuple[Any, list[Any], list[Any], list[Any]]:
    """``x``, weights, biases and masks."""
    layers = len(tensors) // 3
    return tensors[0], *(list(tensors[1 + i * layers : 1 + (i + 1) * layers]) for i in range(3))


def _run_forward(backend: str, *args: Any) -> tuple[Tensor, Tensor]:
    *tensors, numbers = args
    return _forward(backend, *_apart(tensors), list(numbers[1:]), numbers[0], True)


def _run_backward(
    backend: str, saved: Tensors, grads: Tensors, options: Sequence[Any], needs: Sequence[bool]
) -> tuple[Tensor | None, ...]:
    *tensors, hidden = saved
    x, weights, biases, masks = _apart(tensors)
    (numbers,) = options
    network = weights, biases, masks, list(numbers[1:]), numbers[0]
    grad_x, *others = run(OPERATOR, "backward", backend, grads[0], x, hidden, *network, needs[0])
    return grad_x, *others[0], *others[1], *[None] * len(masks)


def _formulas(*args: Any) -> Tensor:
    *tensors, numbers = args
    x, weights, biases, masks = _apart(tensors)
    with without_autocast(x.device):
        return _reference.masked_network(
            x, weights, biases, masks, [int(code) for code in numbers[1:]], int(numbers[0])
        )


def _saves(args: Sequence[Any], outputs: Any) -> tuple[Tensor, ...]:
    return *args[:-1], outputs[1]


def _inputs(saved: Tensors, grads: Tensors, options: Sequence[Any]) -> Tensors:
    return saved if len(saved) % 3 == 1 else saved[:-1]  # the C++ node hands over no hidden results


# Tensors of any number, and one option, a tuple: all numbers that the C++ node keeps.
_recorded = recorded(
    Gradient("MaskedNetwork", -1, _run_forward, _saves, _run_backward, _formulas, _inputs, 1),
    "masked_network",
    ((tuple, 1 << 30),),
)


def _validate(x: Tensor, weights: Lists, biases: Lists, masks: Lists) -> None:
    _tensors.check_tensor("x", x)
    if x.dtype not in OPERATOR.dtypes:
        raise TypeError(f"x: got dtype {x.dtype}, expected float32 or float64")
    if x.ndim != 2 or x.shape[1] < 1:
        raise ValueError(f"x: got shape {_tensors.shape_text(x.shape)}, expected (B, D) with a number at least")
    if not 1 <= len(weights) <= MOST_LAYERS:
        raise ValueError(f"weights: got {len(weights)} tensors, expected 1 to {MOST_LAYERS}")
    for name, values in (("biases", biases), ("masks", masks)):
        if len(values) != len(weights):
            raise ValueError(f"{name}: got {len(values)} tensors, expected {len(weights)}, one for each of weights")
    inputs = x.shape[1]
    for i, (weight, bias, mask) in enumerate(zip(weights, biases, masks, strict=True)):
        _tensors.check_exactly(f"weights[{i}]", weight, x, "units", inputs)
        units = weight.shape[0]
        _tensors.check_exactly(f"biases[{i}]", bias, x, units)
        _tensors.check_exactly(f"masks[{i}]", mask, x, units, inputs)
        if mask.requires_grad:
            raise ValueError(f"masks[{i}]: got a tensor that requires a gradient, expected a constant")
        inputs = units


def _plan_of(layers: int, activated: Sequence[bool] | None, adds: Sequence[int | None] | None) -> tuple[int, ...]:
    activated = [i < layers - 1 for i in range(layers)] if activated is None else activated
    adds = [None] * layers if adds is None else adds
    for name, values in (("activated", activated), ("adds", adds)):
        if len(values) != layers:
            raise ValueError(f"{name}: got {len(values)} values, expected {layers}, one for each of weights")
    for i, own in enumerate(adds):
        if own is not None and (type(own) is not int or not 0 <= own < i):
            raise ValueError(f"adds[{i}]: got {own!r}, expected None or an earlier layer, 0 to {i - 1}")
    if layers and activated[-1] is True:
        raise ValueError(f"activated[{layers - 1}]: got True for the last layer, expected False")
    flags = [_tensors.flag(f"activated[{i}]", own) for i, own in enumerate(activated)]
    return tuple(2 * (0 if own is None else own + 1) + flag for own, flag in zip(adds, flags, strict=True))


def has_fused_masked_network(x: Tensor) -> bool:
    """Whether :func:`masked_network` is faster than its layers one by one: where it has kernels."""
    return x.dtype in OPERATOR.dtypes and x.is_cpu and choose(OPERATOR, x) == "cpp"


def planned(x: Tensor, weights: Lists, biases: Lists, masks: Lists, plan: tuple[int, ...], activation: int) -> Tensor:
    """:func:`masked_network` of lists as tuples, with a plan of the schema; what calls it has checked the plan."""
    out: Tensor | None = _quick(x, weights, biases, masks, plan, activation)
    if out is not None:
        return out
    _validate(x, weights, biases, masks)
    for i, code in enumerate(plan):
        if code > 1 and weights[code // 2 - 1].shape[0] != weights[i].shape[0]:
            units, other = weights[i].shape[0], weights[code // 2 - 1].shape[0]
            raise ValueError(f"adds[{i}]: got a layer of {other} units, expected one of {units}")
    backend = choose(OPERATOR, x)
    numbers = (activation, *plan)
    if backend == "reference":
        return _formulas(x, *weights, *biases, *masks, numbers)
    if needs_grad(x, *weights, *biases):
        recorded_out: Tensor = _recorded(backend, x, *weights, *biases, *masks, numbers)
        return recorded_out
    return _forward(backend, x, list(weights), list(biases), list(masks), list(plan), activation, False)[0]


def masked_network(
    x: Tensor,
    weights: Lists,
    biases: Lists,
    masks: Lists,
    *,
    activation: str = "relu",
    activated: Sequence[bool] | None = None,
    adds: Sequence[int | None] | None = None,
) -> Tensor:
    r"""A masked network, as masked autoregressive flows have it, as one operator.

    Layer ``i`` computes ``s_i = (W_i * M_i) h_{i-1} + b_i``, plus ``s_j`` where it adds an earlier layer ``j``, and
    gives ``h_i``, which is ``s_i`` or the activation of it; ``h_0`` is ``x``, and the last ``s`` is the result. What a
    mask leaves out is not computed: units of hidden layers are put in the order of how much they see, and blocks of
    zeros are passed over. Within a block of 16 units or inputs the weight is multiplied by its mask, so that a number
    that is not finite may still become NaN in a unit that does not see it, as ``0 * inf``.

    Args:
        x: ``(B, D)``, float32 or float64 (or what autocast lowered, which is raised again).
        weights: of each layer ``(units, inputs)``, in the dtype of ``x``, as all that follow.
        biases: of each ``(units,)``.
        masks: of each ``(units, inputs)``, of zeros and ones; constants.
        activation: ``"relu"``, ``"tanh"``, ``"elu"`` or ``"none"``.
        activated: of which layers the result goes through it; by default of all but the last, of which it never does.
        adds: for each layer the earlier one whose sums are added to its own, or ``None``; by default none.

    Returns:
        ``(B, units of the last layer)``, dtype of ``x``.

    Raises:
        TypeError, ValueError: an argument of the wrong type, dtype, shape or device.

    Source: Germain et al. 2015 (arXiv:1502.03509); residual blocks as in Durkan et al. 2019 (arXiv:1906.04032).
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation: got {activation!r}, expected one of {', '.join(ACTIVATIONS)}")
    if isinstance(x, Tensor):
        x = _tensors.autocast_input(x)
    for name, values in (("weights", weights), ("biases", biases), ("masks", masks)):
        if not isinstance(values, (list, tuple)):
            raise TypeError(f"{name}: got {type(values).__name__}, expected a list or tuple of tensors")
    plan = _plan_of(len(weights), activated, adds)
    return planned(x, tuple(weights), tuple(biases), tuple(masks), plan, ACTIVATIONS.index(activation))
