"""A training step of a flow as a function without arguments: by itself, and as one CUDA graph."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from hybridkern import flows, graphs
from hybridkern.hybrid import HybridModel, heads, objectives

Step = Callable[[], Tensor]


def plain_step(flow: flows.Glow, x: Tensor, bf16: bool = False) -> Step:
    """The hybrid step that :func:`graphed_step` captures, launched kernel by kernel."""
    model, y, optimizer = _hybrid(flow, x)
    objective = objectives.Weighted(1.0, per_dimension=True)

    def run() -> Tensor:
        optimizer.zero_grad()
        with torch.autocast(x.device.type, torch.bfloat16, enabled=bf16):
            loss = model.loss(x, y, objective)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return run


def graphed_step(flow: flows.Glow, x: Tensor, bf16: bool = False) -> Step:
    """By :class:`hybridkern.graphs.GraphedStep`."""
    model, y, optimizer = _hybrid(flow, x)
    step = graphs.GraphedStep(
        model,
        objectives.Weighted(1.0, per_dimension=True),
        optimizer,
        autocast=torch.bfloat16 if bf16 else None,
    )
    return lambda: step(x, y)


def _hybrid(flow: flows.Glow, x: Tensor) -> tuple[HybridModel, Tensor, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = HybridModel(flow, heads.Categorical(flow.dim, 10)).to(x.device)
    y = torch.arange(len(x), device=x.device) % 10
    on_device = x.device.type == "cuda"
    rate = torch.tensor(1e-4, device=x.device) if on_device else 1e-4
    return model, y, torch.optim.Adam(model.parameters(), lr=rate, fused=True, capturable=on_device)
