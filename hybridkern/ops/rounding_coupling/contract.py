"""What the registered parts of ``rounding_coupling`` ask of their arguments."""

from __future__ import annotations

from torch import Tensor

from hybridkern import _tensors
from hybridkern.ops import _rules
from hybridkern.ops._rules import Contracts


def _rounding(x: Tensor, t: Tensor, beta: Tensor | None, inverse: bool, main: str = "x") -> None:
    _tensors.check_tensor(main, x)
    _rules.at_least(main, x, 1)
    _tensors.check_param("t", t, x, main)
    _rules.shape("t", t, x.shape)
    if beta is not None:
        _tensors.check_tensor("beta", beta)
        _tensors.check_same_device("beta", beta, x, main)
        _rules.shape("beta", beta, (1,) * beta.ndim)


def _rounding_backward(grad: Tensor, t: Tensor, beta: Tensor, inverse: bool) -> None:
    _tensors.check_tensor("beta", beta)
    _rounding(grad, t, beta, inverse, "grad")


CONTRACTS: Contracts = {"forward": _rounding, "backward": _rounding_backward}
