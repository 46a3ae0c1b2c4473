"""What the registered parts of ``gaussian_log_prob`` ask of their arguments."""

from __future__ import annotations

from torch import Tensor

from hybridkern.ops import _density_rules, _rules
from hybridkern.ops._rules import Contracts


def _gaussian(x: Tensor, mean: Tensor | None, log_scale: Tensor | None) -> None:
    _density_rules.main(x)
    _density_rules.params(x, {"mean": mean, "log_scale": log_scale}, x.shape)


def _gaussian_backward(grad: Tensor, x: Tensor, mean: Tensor | None, log_scale: Tensor | None) -> None:
    _gaussian(x, mean, log_scale)
    _rules.per_example("grad", grad, "x", x)


CONTRACTS: Contracts = {"forward": _gaussian, "backward": _gaussian_backward}
