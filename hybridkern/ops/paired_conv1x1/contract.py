"""What the registered parts of ``paired_conv1x1`` ask of their arguments."""

from __future__ import annotations

from torch import Tensor

from hybridkern import _tensors
from hybridkern.ops import _rules
from hybridkern.ops._rules import Contracts


def _halves(first: Tensor, second: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    _tensors.check_tensor("first", first)
    _rules.at_least("first", first, 2)
    _rules.same("second", second, "first", first)
    channels = 2 * first.shape[1]
    for name, value, shape in (("weight", weight, (channels, channels)), ("bias", bias, (channels,))):
        if value is None:
            continue
        if value.dtype is not _tensors.total_dtype(first):
            raise TypeError(f"{name}: got dtype {value.dtype}, expected {_tensors.total_dtype(first)}")
        _tensors.check_same_device(name, value, first, "first")
        _rules.shape(name, value, shape)


def _halves_backward(grad_first: Tensor, grad_second: Tensor, first: Tensor, second: Tensor, weight: Tensor) -> None:
    _halves(first, second, weight, None)
    _rules.same("grad_first", grad_first, "first", first)
    _rules.same("grad_second", grad_second, "first", first)


CONTRACTS: Contracts = {"forward": _halves, "backward": _halves_backward}
