"""The tutorial's formulas, stated anew in eager PyTorch: what ``HybridIDF`` must agree with."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class StraightThrough(torch.autograd.Function):
    """Rounding with the gradient of the identity."""

    @staticmethod
    def forward(ctx: object, t: Tensor) -> Tensor:
        return t.round()

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> Tensor:
        return grad


def net(inputs: int, outputs: int) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(nn.Linear(inputs, 12), nn.LeakyReLU(), nn.Linear(12, outputs))


def nets(dim: int, kinds: int) -> list[Callable[[], nn.Module]]:
    """Builders for two parts of ``torch.chunk`` (one kind of network) or four."""
    sizes = [len(part) for part in torch.arange(dim).chunk(2 if kinds == 1 else 4)]
    return [net(dim - size, size) for size in (sizes[1:] if kinds == 1 else sizes)]


def classifier(dim: int, classes: int = 3) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, 8), nn.LeakyReLU(), nn.Linear(8, classes), nn.Softmax(dim=1))


class Tutorial(nn.Module):
    """Same parameters, same names; each step as the text describes it, one after the other."""

    def __init__(self, dim: int, kinds: int, num_flows: int, alpha: float, lattice: str = "tutorial") -> None:
        super().__init__()
        names = ("t",) if kinds == 1 else ("t_a", "t_b", "t_c", "t_d")
        for name, build in zip(names, nets(dim, kinds), strict=True):
            setattr(self, name, nn.ModuleList([build() for _ in range(num_flows)]))
        self.kinds = [getattr(self, name) for name in names]
        self.beta = nn.Parameter(torch.zeros(num_flows))
        self.classnet = classifier(dim)
        self.mean = nn.Parameter(torch.zeros(1, dim))
        self.logscale = nn.Parameter(torch.ones(1, dim))
        self.alpha, self.num_flows, self.lattice = alpha, num_flows, lattice

    def step(self, kind: nn.ModuleList, i: int, others: list[Tensor]) -> Tensor:
        t = kind[i](torch.cat(others, 1))
        if self.lattice == "exact":
            return StraightThrough.apply(self.beta[i] * t)
        return self.beta[i] * StraightThrough.apply(t)

    def f(self, x: Tensor) -> Tensor:
        for i in range(self.num_flows):
            parts = list(x.chunk(2 if len(self.kinds) == 1 else 4, 1))
            if len(self.kinds) == 1:
                parts[1] = parts[1] + self.step(self.kinds[0], i, parts[:1])
            else:
                for j, kind in enumerate(self.kinds):
                    parts[j] = parts[j] + self.step(kind, i, parts[:j] + parts[j + 1 :])
            x = torch.cat(parts, 1).flip(1)
        return x

    def f_inv(self, z: Tensor) -> Tensor:
        for i in reversed(range(self.num_flows)):
            parts = list(z.flip(1).chunk(2 if len(self.kinds) == 1 else 4, 1))
            if len(self.kinds) == 1:
                parts[1] = parts[1] - self.step(self.kinds[0], i, parts[:1])
            else:
                for j in (3, 2, 1, 0):
                    parts[j] = parts[j] - self.step(self.kinds[j], i, parts[:j] + parts[j + 1 :])
            z = torch.cat(parts, 1)
        return z

    def log_prior(self, z: Tensor) -> Tensor:
        scale = self.logscale.exp()
        upper = torch.sigmoid((z + 0.5 - self.mean).double() / scale)
        lower = torch.sigmoid((z - 0.5 - self.mean).double() / scale)
        return torch.log(upper - lower).sum(1).to(z.dtype)

    def probabilities(self, x: Tensor) -> Tensor:
        return self.classnet(self.f(x))

    def forward(self, x: Tensor, y: Tensor, reduction: str = "avg") -> Tensor:
        z = self.f(x)
        class_loss = F.nll_loss(self.classnet(z).log(), y, reduction="none")
        loss = class_loss - self.alpha * self.log_prior(z)
        return loss.sum() if reduction == "sum" else loss.mean()
