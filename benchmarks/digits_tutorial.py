"""The recipe ``digits-tutorial`` against the tutorial's own formulas: its flow alone, and whole training steps.

On the tutorial's lattice both sides compute the same function. On the exact lattice ours adds ``round(beta * t)``
where the tutorial adds ``beta * round(t)``; with ``beta = 1``, which these benchmarks start from (the recipe: 0), the
two agree in everything but the gradient of ``beta``.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from benchmarks._case import Case, Run, Sides, with_grads
from benchmarks._results import AGAIN, EAGER, OURS
from benchmarks.tutorial import Tutorial
from hybridkern.hybrid import HybridIDF

_FLOWS = 2
_STEPS_COMPARED = 3


class Constant(nn.Module):
    """In place of a network: gives a parameter, whatever it is shown."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = nn.Parameter(value)

    def forward(self, x: Tensor) -> Tensor:
        return self.value


def without_networks(lattice: str, *, target: float, batch: int = 64, dim: int = 64) -> Case:
    """Couplings, permutations and prior, forward and backward, for given gradients of latents and log-probability."""

    def build() -> Sides:
        torch.manual_seed(0)
        x = torch.randint(0, 17, (batch, dim)).float()
        nets = [Constant(torch.randn(batch, dim // 2) * 3) for _ in range(_FLOWS)]
        rest = iter(nets)
        ours = HybridIDF([lambda: next(rest)], nn.Identity(), _FLOWS, D=dim, lattice=lattice)
        eager = Tutorial(nets, nn.Identity(), 1.0, dim)
        grads = (torch.randn(batch, dim), torch.randn(batch))
        run = {OURS: _flow(ours, x, grads), AGAIN: _flow(ours, x, grads), EAGER: _flow(eager, x, grads)}
        return Sides(run, compared=None if lattice == "tutorial" else -1)  # the last is the gradient of beta

    return Case(f"digits-tutorial, {lattice} lattice, without networks, forward+backward", build, {EAGER: target})


def _flow(model: HybridIDF | Tutorial, x: Tensor, grads: tuple[Tensor, Tensor]) -> Run:
    nn.init.ones_(model.beta)
    inputs = (*(net.value for net in model.t), model.mean, model.logscale, model.beta)

    def run() -> tuple[Tensor, ...]:
        z = model.f(x)
        return with_grads((z, model.log_prior(z)), inputs, grads)

    return run


def training_step(lattice: str, *, target: float, batch: int = 64) -> Case:
    """``zero_grad``, loss, ``backward`` and Adamax on the digits, without data loader and training framework.

    Networks, optimizer and its options are the recipe's; the tutorial's side has the optimizer's defaults, as there.
    """

    def build() -> Sides:
        # here, so that revisions before the laboratory can be compared in all other cases
        from hybridkern.lab.recipes.digits_tutorial import RECIPE, TutorialTask
        from hybridkern.lab.recipes.module import HybridModule
        from hybridkern.lab.recipes.recipe import DataShape

        torch.manual_seed(0)
        config = dataclasses.replace(RECIPE.config, lattice=lattice, batch_size=batch)
        data = RECIPE.load(config)
        task = RECIPE.build(config, DataShape.of(data))
        assert isinstance(task, TutorialTask)
        nn.init.ones_(task.model.beta)
        again, model = copy.deepcopy(task), task.model
        eager = Tutorial(copy.deepcopy(list(model.t)), copy.deepcopy(model.classnet), model.alpha, model.D)
        eager.load_state_dict(model.state_dict())
        x, y = data.train.x, data.train.y
        batches = [(x[i : i + batch], y[i : i + batch]) for i in range(0, len(x) - batch + 1, batch)]

        def recipe(task: TutorialTask) -> Run:
            return _step(task.loss, HybridModule(task, config, steps=1).configure_optimizers(), batches)

        theirs = torch.optim.Adamax(eager.parameters(), lr=config.lr)
        run = {OURS: recipe(task), AGAIN: recipe(again), EAGER: _step(eager, theirs, batches)}
        return Sides(run, calls=_STEPS_COMPARED)

    return Case(f"digits-tutorial, {lattice} lattice, training step", build, {EAGER: target})


def _step(
    loss_of: Callable[[Tensor, Tensor], Tensor], optimizer: torch.optim.Optimizer, batches: list[tuple[Tensor, Tensor]]
) -> Run:
    endless: Iterator[tuple[Tensor, Tensor]] = itertools.cycle(batches)

    def run() -> tuple[Tensor, ...]:
        x, y = next(endless)
        optimizer.zero_grad()
        loss = loss_of(x, y)
        loss.backward()
        optimizer.step()
        return (loss.detach(),)

    return run
