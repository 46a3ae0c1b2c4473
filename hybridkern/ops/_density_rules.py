"""Rules that the contracts of the densities share."""

from __future__ import annotations

from torch import Tensor

from hybridkern import _tensors
from hybridkern.ops import _rules
from hybridkern.ops._rules import Sizes

# Narrower or wider bins would under- or overflow in float32 beside log-scales of any size; rescale the data instead.
MIN_BIN_WIDTH, MAX_BIN_WIDTH = 1e-6, 1e6


def bin_width(value: float) -> None:
    """A width of bins within the range; of NaN it is not so."""
    if not MIN_BIN_WIDTH <= value <= MAX_BIN_WIDTH:
        raise ValueError(f"bin_width: got {value:g}, expected a number from {MIN_BIN_WIDTH:g} to {MAX_BIN_WIDTH:g}")


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
