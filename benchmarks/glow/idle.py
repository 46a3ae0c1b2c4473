"""Networks that do no work: what is left of a training step is the work outside the coupling networks.

Each network is called once more for real, to see what it returns; afterwards it returns a tensor of that shape, dtype
and memory format, allocated beforehand and full of zeros (what a network starts with), and its backward pass returns
zeros, likewise, for its input. So everything around the networks still happens: making the parts of the input,
using the output in a compute graph that requires gradients, adding the gradients of the input's two uses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

Replacement = Callable[[Tensor], Tensor]


class _NoWork(torch.autograd.Function):
    """Prepared tensors in place of a function and of its backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, anchor: Tensor, output: Tensor, grad: Tensor) -> Tensor:
        ctx.grad = grad
        return output.detach()

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None, None]:
        return ctx.grad, None, None, None


def replacements(networks: Sequence[nn.Module], run: Callable[[], object]) -> list[Replacement]:
    """For every network a function that does no work.

    Args:
        networks: the modules.
        run: calls each of them, with what they will be called with later.

    Raises:
        RuntimeError: ``run`` did not call one of them.
    """
    seen: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def look(module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        seen[module] = torch.zeros_like(output), torch.zeros_like(arguments[0])

    hooks = [network.register_forward_hook(look) for network in networks]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    missing = sum(network not in seen for network in networks)
    if missing:
        raise RuntimeError(f"{missing} of {len(networks)} networks were not called: nothing can stand in for them")
    return [_replacement(*seen[network]) for network in networks]


def _replacement(output: Tensor, grad: Tensor) -> Replacement:
    anchor = torch.zeros((), requires_grad=True)  # a network's output requires gradients even where its input does not
    return lambda x: _NoWork.apply(x, anchor, output, grad)


@contextmanager
def at_rest(networks: Sequence[nn.Module], functions: Sequence[Replacement]) -> Iterator[None]:
    """Inside the ``with`` block every network is its replacement."""
    for network, function in zip(networks, functions, strict=True):
        network.forward = function
    try:
        yield
    finally:
        for network in networks:
            del network.forward
