"""What the registered parts of ``discretized_logistic_mixture`` ask of their arguments."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from hybridkern.ops import _density_rules, _rules
from hybridkern.ops._rules import Contracts


def _mixture(x: Tensor, logits: Tensor, mean: Tensor, log_scale: Tensor, bin_width: float, reduce: bool) -> None:
    _density_rules.bin_width(bin_width)
    _density_rules.main(x)
    _rules.at_least("logits", logits, 2)
    named: dict[str, Tensor | None] = {"logits": logits, "mean": mean, "log_scale": log_scale}
    _density_rules.params(x, named, (x.shape[0], logits.shape[1], *x.shape[1:]))
    if isinstance(logits.shape[1], int) and logits.shape[1] < 1:
        raise ValueError("logits: got 0 components at dim 1, expected at least 1")


def _mixture_backward(grad: Tensor, x: Tensor, *rest: Any) -> None:
    _mixture(x, *rest)
    _density_rules.gradient(grad, x, rest[-1])


CONTRACTS: Contracts = {"forward": _mixture, "backward": _mixture_backward}
