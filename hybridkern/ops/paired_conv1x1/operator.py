"""1x1 convolution that reads and writes the two halves of a coupling: schema, autograd and public function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from hybridkern import _tensors
from hybridkern.ops._autograd import Gradient, Tensors, needs_grad, quick, recorded
from hybridkern.ops._backends import choose
from hybridkern.ops._gpu import run, runner
from hybridkern.ops._operator import Operator
from hybridkern.ops.paired_conv1x1 import reference as _reference
from hybridkern.ops.paired_conv1x1.contract import CONTRACTS


def _fake_forward(first: Tensor, second: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    return torch.empty_like(first), torch.empty_like(second)


def _fake_backward(
    grad_first: Tensor, grad_second: Tensor, first: Tensor, second: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return (
        torch.empty_like(first),
        torch.empty_like(second),
        weight.new_empty(weight.shape),
        weight.new_empty(weight.shape[:1]),
    )


OPERATOR = Operator(
    "paired_conv1x1",
    {
        "forward": "(Tensor first, Tensor second, Tensor weight, Tensor? bias) -> (Tensor, Tensor)",
        "backward": "(Tensor grad_first, Tensor grad_second, Tensor first, Tensor second, Tensor weight) "
        "-> (Tensor, Tensor, Tensor, Tensor)",
    },
    {"forward": _fake_forward, "backward": _fake_backward},
    contracts=CONTRACTS,
    triton=True,
)


_forward: Callable[..., tuple[Tensor, Tensor]] = runner(OPERATOR, "forward")


def _backward(
    backend: str, saved: Tensors, grads: Tensors, options: Sequence[Any], needs: Sequence[bool]
) -> tuple[Tensor, ...]:
    first, second, _ = saved
    assert first is not None and second is not None
    given = (
        torch.zeros_like(half) if grad is None else grad for grad, half in zip(grads, (first, second), strict=True)
    )
    out: tuple[Tensor, ...] = run(OPERATOR, "backward", backend, *given, *saved)
    return out


def _inputs(saved: Tensors, grads: Tensors, options: Sequence[Any]) -> tuple[Tensor | None, ...]:
    weight = saved[2]
    assert weight is not None
    return *saved, weight.new_zeros(len(weight))


_recorded = recorded(
    Gradient("PairedConv1x1", 4, _forward, lambda args, _: args[:3], _backward, _reference.paired_conv1x1, _inputs),
    "paired_conv1x1",
)
_quick = quick("paired_conv1x1")


def _validate(first: Tensor, second: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    _tensors.check_batched("first", first, at_least=2)
    _tensors.check_tensor("second", second)
    if second.shape != first.shape or second.dtype is not first.dtype:
        raise ValueError(
            f"second: got {second.dtype} of shape {_tensors.shape_text(second.shape)}, expected {first.dtype} of shape "
            f"{_tensors.shape_text(first.shape)}, like first"
        )
    channels = 2 * first.shape[1]
    for name, value, shape in (("weight", weight, (channels, channels)), ("bias", bias, (channels,))):
        if value is None and name == "bias":
            continue
        _tensors.check_param(name, value, first, main="first")
        assert value is not None
        if value.shape != shape:
            raise ValueError(
                f"{name}: got shape {_tensors.shape_text(value.shape)}, expected {_tensors.shape_text(shape)} for "
                f"halves of {first.shape[1]} channels"
            )
    _tensors.check_same_device("second", second, first, main="first")


def paired_conv1x1(first: Tensor, second: Tensor, weight: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
    r"""``y = W x + b`` at every position, for channels that lie in two halves: nothing is joined or split.

    With ``x`` the channels of ``first`` followed by those of ``second``, the outputs are the two halves of ``y``. This
    is the invertible 1x1 convolution of Glow, with whatever is folded into its matrix; the log-determinant is the
    caller's, who knows how the matrix was made. The gradient of the weight sums over positions in a fixed order.

    Args:
        first, second: halves, ``(B, C/2, *S)`` each; float32, float64, bfloat16 or float16, both alike.
        weight: ``(C, C)``, from input to output channels; dtype of ``first``, or bfloat16 or float16 beside float32.
        bias: ``(C,)``, likewise; ``None`` is 0.

    Returns:
        The halves of ``y``, shaped, typed and laid out like ``first`` and ``second``.

    Raises:
        TypeError, ValueError: an argument of the wrong type, dtype, shape or device.

    Source: Kingma and Dhariwal 2018 (arXiv:1807.03039), section 3.2.
    """
    out: tuple[Tensor, Tensor] | None = _quick(first, second, weight, bias)
    if out is not None:
        return out
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        first, second = _tensors.autocast_input(first), _tensors.autocast_input(second)
    _validate(first, second, weight, bias)
    backend = choose(OPERATOR, first)
    if backend == "reference" or not first.shape[1]:  # the kernels need a channel to stand on
        return _reference.paired_conv1x1(first, second, weight, bias)
    working = _tensors.total_dtype(first)
    matrix = weight.to(working).contiguous()
    offset = None if bias is None else bias.to(working).contiguous()
    record = _recorded if needs_grad(first, second, weight, bias) else _forward
    out = record(backend, first, second, matrix, offset)
    assert out is not None
    return out
