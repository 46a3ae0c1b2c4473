"""Flows of zuko: a training step beside the library, torch.compile and the networks alone; and sampling."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.integrations.alone import networks_alone
from benchmarks.integrations.works import AGAIN, ALONE, FLOAT32, LIBRARY, NETWORKS, OPTIONS, Loss, Work, _pass
from hybridkern.integrations import accelerate

COMPILED = "torch.compile of the library"
DIM, LAYERS = 16, 5
_STEP: dict[str, float | None] = {FLOAT32: None, ALONE: None, NETWORKS: None, COMPILED: None}


@dataclass(frozen=True)
class ZukoWork(Work):
    """A model of zuko.

    Attributes:
        samples: whether sampling without gradients is measured, and not a training step.
    """

    samples: bool = False

    def sides(self) -> dict[str, Callable[[], None]]:
        """As those of other works, with torch.compile beside them."""
        torch.manual_seed(0)
        x = torch.randn(self.shape, generator=torch.Generator().manual_seed(0))
        model, loss = self.build()
        run = partial(_sampling, count=len(x)) if self.samples else partial(_pass, loss=loss, x=x)
        found = {LIBRARY: run(model), AGAIN: run(model)}
        for way in self.targets:
            other = copy.deepcopy(model)
            if way == COMPILED:
                found[way] = _pass(other, torch.compile(loss, dynamic=False), x)
                continue
            report = accelerate(other, **OPTIONS[way])  # type: ignore[arg-type]
            found[way] = networks_alone(other, report, partial(loss, other, x)) if way == ALONE else run(other)
        return found


def _sampling(model: Any, count: int) -> Callable[[], None]:
    def run() -> None:
        with torch.no_grad():
            model().sample((count,))

    return run


def _loss(model: nn.Module, x: Tensor) -> Tensor:
    loss: Tensor = -model().log_prob(x).mean()
    return loss


def nsf(features: int = DIM) -> tuple[nn.Module, Loss]:
    """Autoregressive splines of eight bins, as the library builds them."""
    import zuko

    return zuko.flows.NSF(features, transforms=LAYERS), _loss


def maf(features: int = DIM) -> tuple[nn.Module, Loss]:
    """Masked autoregressive flow."""
    import zuko

    return zuko.flows.MAF(features, transforms=LAYERS), _loss


def nice(features: int = DIM) -> tuple[nn.Module, Loss]:
    """Affine couplings."""
    import zuko

    return zuko.flows.NICE(features, transforms=LAYERS), _loss


_BATCH = (256, DIM)
ZUKO_WORKS = (
    ZukoWork("zuko, NSF on vectors", nsf, _BATCH, {**_STEP, FLOAT32: 5.0}),
    ZukoWork("zuko, MAF on vectors", maf, _BATCH, {**_STEP, NETWORKS: 2.5}),
    ZukoWork("zuko, NICE on vectors", nice, _BATCH, {FLOAT32: None, ALONE: None, COMPILED: None}),
    ZukoWork("zuko, samples of NSF", nsf, _BATCH, {FLOAT32: None}, samples=True),
    ZukoWork("zuko, samples of MAF", maf, _BATCH, {FLOAT32: 2.0}, samples=True),
)
