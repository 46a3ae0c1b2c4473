"""What the registered parts of ``adamax`` ask of their arguments."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from hybridkern.ops import _rules
from hybridkern.ops._rules import Contracts


def _adamax(params: list[Tensor], grads: list[Tensor], exp_avgs: list[Tensor], exp_infs: list[Tensor], *n: Any) -> None:
    for name, values in (("grads", grads), ("exp_avgs", exp_avgs), ("exp_infs", exp_infs)):
        if len(values) != len(params):
            raise ValueError(f"{name}: got {len(values)} tensors, expected {len(params)}, one for each of params")
        for i, (value, param) in enumerate(zip(values, params, strict=True)):
            _rules.same(f"{name}[{i}]", value, f"params[{i}]", param)


CONTRACTS: Contracts = {"step": _adamax}
