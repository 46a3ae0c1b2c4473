"""The coupling networks of an accelerated model without the rest of it: what is left when all else costs nothing."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from hybridkern.integrations import Report


def networks_alone(model: nn.Module, report: Report, once: Callable[[], object]) -> Callable[[], None]:
    """A forward and a backward pass of every network, on the inputs that a pass through the model gives it.

    Args:
        model: an accelerated model.
        report: what ``accelerate`` said of it.
        once: passes a batch through it.
    """
    networks = [model.get_submodule(entry.path) for entry in report.networks]
    calls: list[tuple[nn.Module, Tensor]] = []
    hooks = [
        network.register_forward_pre_hook(lambda module, inputs: calls.append((module, inputs[0].detach())))
        for network in networks
    ]
    with torch.no_grad():
        once()
        for hook in hooks:
            hook.remove()
        gradients = [torch.ones_like(network(x)) for network, x in calls]

    def run() -> None:
        model.zero_grad(set_to_none=True)
        for (network, x), gradient in zip(calls, gradients, strict=True):
            network(x.detach().requires_grad_()).backward(gradient)

    return run
