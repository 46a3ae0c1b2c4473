"""What the registered parts of ``discretized_logistic`` ask of their arguments."""

from __future__ import annotations

from torch import Tensor

from hybridkern.ops import _density_rules
from hybridkern.ops._rules import Contracts


def _logistic(x: Tensor, mean: Tensor, log_scale: Tensor, bin_width: float, reduce: bool) -> None:
    _density_rules.bin_width(bin_width)
    _density_rules.main(x)
    _density_rules.params(x, {"mean": mean, "log_scale": log_scale}, x.shape)


def _logistic_backward(grad: Tensor, x: Tensor, mean: Tensor, log_scale: Tensor, width: float, reduce: bool) -> None:
    _logistic(x, mean, log_scale, width, reduce)
    _density_rules.gradient(grad, x, reduce)


CONTRACTS: Contracts = {"forward": _logistic, "backward": _logistic_backward}
