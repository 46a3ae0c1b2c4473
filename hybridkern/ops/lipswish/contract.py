"""What the registered parts of ``lipswish`` ask of their arguments."""

from __future__ import annotations

from torch import Tensor

from hybridkern import _tensors
from hybridkern.ops import _rules
from hybridkern.ops._rules import Contracts


def _one(name: str, value: Tensor, x: Tensor) -> None:
    _tensors.check_tensor(name, value)
    _tensors.check_same_device(name, value, x)
    if value.numel() != 1:
        raise ValueError(f"{name}: got shape {_tensors.shape_text(value.shape)}, expected one element: () or (1,)")


def _forward(x: Tensor, b: Tensor, paired: bool) -> None:
    _tensors.check_tensor("x", x)
    _rules.at_least("x", x, 2 if paired else 1)
    _one("b", b, x)


def _backward(grad: Tensor, x: Tensor, b: Tensor, paired: bool) -> None:
    _forward(x, b, paired)
    wanted = (x.shape[0], 2 * x.shape[1], *x.shape[2:]) if paired else x.shape
    _rules.same("grad", grad, "x", x, wanted)


def _double_backward(
    outer_x: Tensor | None, outer_b: Tensor | None, grad: Tensor, x: Tensor, b: Tensor, paired: bool
) -> None:
    _backward(grad, x, b, paired)
    if outer_x is not None:
        _rules.same("outer_x", outer_x, "x", x)
    if outer_b is not None:
        _one("outer_b", outer_b, x)


CONTRACTS: Contracts = {"forward": _forward, "backward": _backward, "double_backward": _double_backward}
