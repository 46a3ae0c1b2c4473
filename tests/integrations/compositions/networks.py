"""Coupling networks of all sorts, small."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

HIDDEN = 5


class Strided(nn.Module):
    """Its output lies as no linear layer leaves it."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        """``inner(x)`` with its first two dimensions stored the other way round."""
        return self.inner(x).transpose(0, 1).contiguous().transpose(0, 1)


class Flattening(nn.Module):
    """Views what it is given row by row, which strides may not allow."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        """``inner(x)``."""
        return self.inner(x.view(x.shape[0], -1).view(x.shape))


class Writing(nn.Module):
    """Writes into its input."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        """``inner`` of the doubled ``x``."""
        return self.inner(x.mul_(2))


class Constant(nn.Module):
    """The same parameters for every example, by a stride of zero."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.randn(outputs) / 4)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, *S)``."""
        spatial = x.shape[2:]
        return (self.value * 1).view(1, -1, *(1,) * len(spatial)).expand(x.shape[0], -1, *spatial)


def _plain(inputs: int, outputs: int, images: bool) -> nn.Sequential:
    if images:
        return nn.Sequential(
            *(nn.Conv2d(inputs, HIDDEN, 3, padding=1), nn.Tanh()),
            *(nn.Conv2d(HIDDEN, HIDDEN, 1), nn.Tanh(), nn.Conv2d(HIDDEN, outputs, 3, padding=1)),
        )
    return nn.Sequential(nn.Linear(inputs, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, outputs))


def _glow(inputs: int, outputs: int, images: bool) -> nn.Sequential:
    network = _plain(inputs, outputs, images)
    for i in (1, 3):
        if i < len(network):
            network[i] = nn.ReLU()
    return network


def _counting(inputs: int, outputs: int, images: bool) -> nn.Sequential:
    norm = nn.BatchNorm2d(inputs) if images else nn.BatchNorm1d(inputs)
    return nn.Sequential(norm, nn.Dropout(0.3), *_plain(inputs, outputs, images))


def _in_place(inputs: int, outputs: int, images: bool) -> nn.Sequential:
    return nn.Sequential(nn.ELU(inplace=True), *_plain(inputs, outputs, images))


NETWORKS: dict[str, Callable[[int, int, bool], nn.Module]] = {
    "plain": _plain,
    "glow": _glow,
    "counting": _counting,
    "in place": _in_place,
    "strided": lambda *sizes: Strided(_plain(*sizes)),
    "flattening": lambda *sizes: Flattening(_plain(*sizes)),
    "writing": lambda *sizes: Writing(_plain(*sizes)),
    "constant": lambda inputs, outputs, images: Constant(outputs),
}


def maker(name: str, images: bool, context: int = 0) -> Callable[[int, int], nn.Module]:
    """A function of input and output channels, as nflows and FrEIA take one."""
    return lambda inputs, outputs: NETWORKS[name](inputs + context, outputs, images)


def with_context(inner: nn.Module) -> nn.Module:
    """Called with a context, as nflows does, which it ignores."""

    class Ignoring(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor, context: Any = None) -> Tensor:
            return self.inner(x)

    return Ignoring()
