"""Rules that the contracts of the densities share."""

from __future__ import annotations

from torch import Tensor

from hybridkern import _tensors
from hybridkern.ops import _rules
from hybridkern.ops._rules import Sizes


def _shared_param(name: str, value: Tensor, x: Tensor, wanted: Sizes) -> None:
    _tensors.check_param(name, value, x)
    first = value.shape[0] if value.ndim else 0
    _rules.shape(name, value, wanted if not isinstance(first, int) or first != 1 else (1, *wanted[1:]))


def params(x: Tensor, named: dict[str, Tensor | None], wanted: Sizes) -> None:
    """The parameters fit ``wanted``, or its first example, all alike."""
    first: Tensor | None = None
    for name, value in named.items():
        if value is not None and first is None:
            _shared_param(name, first := value, x, wanted)
        elif value is not None and first is not None:
            _tensors.check_param(name, value, x)
            _rules.shape(name, value, first.shape)


def main(x: Tensor) -> None:
    """``x`` has a batch dimension."""
    _tensors.check_tensor("x", x)
    _rules.at_least("x", x, 1)


def gradient(grad: Tensor, x: Tensor, reduce: bool) -> None:
    """The gradient of what the density returned."""
    if reduce:
        _rules.per_example("grad", grad, "x", x)
    else:
        _rules.same("grad", grad, "x", x)
