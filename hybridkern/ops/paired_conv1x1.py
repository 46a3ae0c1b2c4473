"""1x1 convolution that reads and writes the two halves of a coupling: schema, autograd and public function."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hybridkern.ops import _check
from hybridkern.ops._autograd import once_differentiable
from hybridkern.ops._library import define
from hybridkern.ops._select import select
from hybridkern.reference import paired_conv1x1 as _reference


def _fake_forward(first: Tensor, second: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    return torch.empty_like(first), torch.empty_like(second)


def _fake_backward(
    grad_first: Tensor, grad_second: Tensor, first: Tensor, second: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return torch.empty_like(first), torch.empty_like(second), torch.empty_like(weight), weight.new_empty(len(weight))


_forward = define(
    "paired_conv1x1_forward(Tensor first, Tensor second, Tensor weight, Tensor? bias) -> (Tensor, Tensor)",
    _fake_forward,
)
_backward = define(
    "paired_conv1x1_backward(Tensor grad_first, Tensor grad_second, Tensor first, Tensor second, Tensor weight) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
    _fake_backward,
)


class _PairedConv1x1(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, first: Tensor, second: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(first, second, weight)
        ctx.has_bias = bias is not None
        out: tuple[Tensor, Tensor] = _forward(first, second, weight, bias)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_first: Tensor, grad_second: Tensor) -> tuple[Tensor | None, ...]:
        first, second, weight = ctx.saved_tensors
        to_first, to_second, to_weight, to_bias = _backward(grad_first, grad_second, first, second, weight)
        return to_first, to_second, to_weight, to_bias if ctx.has_bias else None


def _validate(first: Tensor, second: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    _check.check_batched("first", first, at_least=2)
    _check.check_tensor("second", second)
    if second.shape != first.shape or second.dtype is not first.dtype:
        raise ValueError(
            f"second: got {second.dtype} of shape {_check.shape_text(second.shape)}, expected {first.dtype} of shape "
            f"{_check.shape_text(first.shape)}, like first"
        )
    channels = 2 * first.shape[1]
    for name, value, shape in (("weight", weight, (channels, channels)), ("bias", bias, (channels,))):
        if value is None and name == "bias":
            continue
        _check.check_param(name, value, first, main="first")
        assert value is not None
        if value.shape != shape:
            raise ValueError(
                f"{name}: got shape {_check.shape_text(value.shape)}, expected {_check.shape_text(shape)} for halves "
                f"of {first.shape[1]} channels"
            )
    _check.check_same_device("second", second, first, main="first")


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
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        first, second = _check.autocast_input(first), _check.autocast_input(second)
    _validate(first, second, weight, bias)
    if select(first, "paired_conv1x1") == "reference":
        return _reference.paired_conv1x1(first, second, weight, bias)
    working = _check.total_dtype(first)
    matrix = weight.to(working).contiguous()
    offset = None if bias is None else bias.to(working).contiguous()
    needs_grad = (
        first.requires_grad or second.requires_grad or weight.requires_grad or (bias is not None and bias.requires_grad)
    )
    run = _PairedConv1x1.apply if needs_grad and torch.is_grad_enabled() else _forward
    out: tuple[Tensor, Tensor] = run(first, second, matrix, offset)
    return out
