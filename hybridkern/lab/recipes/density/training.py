"""Training of a flow of a table: the common loop, whose end and learning rate may go by the clock."""

from __future__ import annotations

import dataclasses
import math
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback, Timer
from rich.console import Console

from hybridkern.lab.data import DataSet
from hybridkern.lab.recipes import training
from hybridkern.lab.recipes.callbacks import History
from hybridkern.lab.recipes.density.config import DensityConfig
from hybridkern.lab.recipes.density.task import DensityTask


def fit(
    task: DensityTask,
    data: DataSet,
    config: DensityConfig,
    checkpoints: Path,
    *,
    console: Console,
    extra: tuple[Callback, ...] = (),
) -> History:
    """Trains as :func:`hybridkern.lab.recipes.training.fit` does, whose arguments and errors it has.

    With ``minutes``, the schedule ``"cosine"`` follows the clock where that is ahead of the epochs.
    """
    if config.minutes is not None:
        extra = (*extra, Timer(timedelta(minutes=config.minutes), interval="epoch", verbose=False))
        if config.schedule == "cosine":
            extra = (ClockedCosine(config.lr, config.epochs, 60 * config.minutes), *extra)
            config = dataclasses.replace(config, schedule="constant")
    return training.fit(task, data, config, checkpoints, console=console, extra=extra)


class ClockedCosine(Callback):
    """Lets the learning rate fall along a half cosine, by epochs or by the clock, whichever is ahead.

    Args:
        lr: the first rate.
        epochs: of the whole run.
        limit: seconds of the whole run, interruptions left out.
    """

    def __init__(self, lr: float, epochs: int, limit: float) -> None:
        self.lr = lr
        self.epochs = epochs
        self.limit = limit
        self.seconds = 0.0
        self._since = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._since = time.perf_counter() - self.seconds

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, index: int) -> None:
        done = (trainer.current_epoch + index / trainer.num_training_batches) / self.epochs
        progress = min(max(done, (time.perf_counter() - self._since) / self.limit), 1.0)
        for group in trainer.optimizers[0].param_groups:
            group["lr"] = self.lr * (1 + math.cos(math.pi * progress)) / 2

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.seconds = time.perf_counter() - self._since

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.seconds = float(state_dict["seconds"])
