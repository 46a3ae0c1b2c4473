"""Training of a task on vectors: the common loop, ended by the clock where there is a time."""

from __future__ import annotations

import copy
import math
import time
from datetime import timedelta
from pathlib import Path

import torch
from lightning.pytorch.callbacks import Callback, Timer
from rich.console import Console
from rich.progress import Progress

from hybridkern.flows import Planar
from hybridkern.lab.data import DataSet, Split
from hybridkern.lab.recipes import training
from hybridkern.lab.recipes.callbacks import History
from hybridkern.lab.recipes.checkpoints import has_any
from hybridkern.lab.recipes.vectors.config import VectorConfig
from hybridkern.lab.recipes.vectors.task import VectorTask

_START_STEPS = 200
_START_LR = 0.05


def fit(
    task: VectorTask,
    data: DataSet,
    config: VectorConfig,
    checkpoints: Path,
    *,
    console: Console,
    extra: tuple[Callback, ...] = (),
) -> History:
    """Trains as :func:`hybridkern.lab.recipes.training.fit` does, whose arguments and errors it has."""
    if config.starts > 1 and not has_any(checkpoints):
        best_start(task, data.train, config, console)
    if config.minutes is not None:
        extra = (*extra, Timer(timedelta(minutes=config.minutes), interval="epoch", verbose=False))
    history = training.fit(
        task, data, config, checkpoints, console=console, extra=extra, keep_last=config.keep == "last"
    )
    task.refit()
    return history


def best_start(task: VectorTask, train: Split, config: VectorConfig, console: Console) -> None:
    """Lays a planar flow over the data ``starts`` times; rounds of training leave the better half, at last one.

    Where the maps bend first decides which modes of the density they find, and a few hundred steps show it. With
    ``minutes``, half of them at most go into this.
    """
    end = math.inf if config.minutes is None else time.monotonic() + 30 * config.minutes
    seeds = range(config.seed * config.starts, (config.seed + 1) * config.starts)
    runs = [_Start(task, train, torch.Generator().manual_seed(seed)) for seed in seeds]
    steps = _START_STEPS * sum(_rounds(config.starts))
    with Progress(*Progress.get_default_columns(), console=console, transient=True) as progress:
        line = progress.add_task("first weights", total=steps)
        while len(runs) > 1 and time.monotonic() < end:
            for run in runs:
                run.go_on(_START_STEPS if time.monotonic() < end else 0)
                progress.advance(line, _START_STEPS)
            # NaN is neither below nor above a number, and could come first
            runs = sorted(runs, key=lambda run: run.loss if math.isfinite(run.loss) else math.inf)[: len(runs) // 2]
    task.load_state_dict(runs[0].task.state_dict())


def _rounds(starts: int) -> list[int]:
    """How many are trained in each round."""
    return [] if starts < 2 else [starts, *_rounds(starts // 2)]


class _Start:
    def __init__(self, task: VectorTask, train: Split, generator: torch.Generator) -> None:
        self.task = copy.deepcopy(task)
        self.train = train
        self.loss = float("inf")
        flow = self.task.model.flow
        assert isinstance(flow, Planar)
        flow.initialize(self.task.standardized(train.x), generator=generator)
        self._optimizer = torch.optim.Adam(self.task.parameters(), lr=_START_LR, fused=True)

    def go_on(self, steps: int) -> None:
        if steps == 0:
            return
        for _ in range(steps):
            self._optimizer.zero_grad()
            loss = self.task.loss(self.train.x, self.train.y)
            loss.backward()
            self._optimizer.step()
        self.loss = loss.item()
