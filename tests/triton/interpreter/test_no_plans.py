"""Interpreted kernels are Python: there is nothing compiled that a launch plan could launch, and none is made."""

from __future__ import annotations

import torch

from hybridkern import ops, use_backend
from hybridkern.ops._triton import plans
from hybridkern.ops._triton.plans import Plans


def test_each_call_is_the_launchers() -> None:
    seen: list[torch.Tensor] = []
    planned = Plans(lambda x: seen.append(x) or len(seen))  # type: ignore[func-returns-value]
    x = torch.zeros(4)
    assert [planned(x) for _ in range(4)] == [1, 2, 3, 4]
    assert planned.kept == {}


def test_operators_keep_none() -> None:
    """The same call again and again, as it would get a plan: none of the package's parts has one, nor began one."""
    x, params, log_det = torch.zeros(2, 4), torch.zeros(2, 8, requires_grad=True), torch.zeros(2)
    for _ in range(4):
        with use_backend("triton"):
            y, _ = ops.affine_coupling(x, params, log_det)
            y.sum().backward()
    assert list(plans._PLANS)
    assert not any(planned.kept for planned in plans._PLANS)
