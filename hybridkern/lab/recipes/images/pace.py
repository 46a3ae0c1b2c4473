"""How far a run has come, by steps or by the clock, and the learning rate that this asks for."""

from __future__ import annotations

import math
import time
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback

from hybridkern.lab.recipes.images.batches import of_first_process

_START = 1 / 25  # of the highest rate, where "onecycle" begins
_END = 1e-3  # of the highest rate, where both schedules end
_STRETCHES = 8  # of a run, at least: a checkpoint and a point of the validation curve at the end of each
_FIRST = 8
_ROUNDING = 1e-9


def factor(schedule: str, warmup: float, progress: float) -> float:
    """Share of the highest learning rate at ``progress``, from 0 to 1, of a run.

    All schedules rise over the share ``warmup``: ``"onecycle"`` along a half cosine from 1/25, the others from 0 in
    proportion. Then ``"constant"`` stays, and the others fall along a half cosine to 1/1000.
    """
    progress = min(max(progress, 0.0), 1.0)
    if progress < warmup:
        risen = progress / warmup
        return _half_cosine(_START, 1.0, risen) if schedule == "onecycle" else risen
    if schedule == "constant":
        return 1.0
    return _half_cosine(1.0, _END, (progress - warmup) / (1 - warmup) if warmup < 1 else 1.0)


def boost(first: float, until: float, progress: float) -> float:
    """Factor on the likelihood's weight: falls geometrically from ``first`` to 1 over the share ``until`` of a run."""
    return float(first ** (1 - progress / until)) if progress < until else 1.0


def _half_cosine(start: float, end: float, share: float) -> float:
    fallen = (1 - math.cos(math.pi * share)) / 2
    return start * (1 - fallen) + end * fallen


class Pace(Callback):
    """Sets the learning rate before every step, and ends a run whose time is up.

    Progress is the larger one of the steps' share of ``total`` and the time's share of ``minutes``. By steps alone it
    is the same in every run. By the clock it depends on the machine; interruptions are left out, and processes that
    train together go by the clock of the first.

    Args:
        total: steps of the whole run; ``None``: any number, ``minutes`` end it.
        minutes: wall time of training, or ``None``.
        schedule, warmup: of :func:`factor`.
        boost, boost_until: of :func:`boost`.

    Attributes:
        seconds: wall time of training, interruptions left out.
        step: steps done.
        progress: from 0 to 1.
    """

    def __init__(
        self,
        total: int | None,
        minutes: float | None,
        schedule: str,
        warmup: float,
        boost: float = 1.0,
        boost_until: float = 1.0,
    ) -> None:
        self.total = total
        self.minutes = minutes
        self.schedule = schedule
        self.warmup = warmup
        self.boost = boost
        self.boost_until = boost_until
        self.seconds = 0.0
        self.step = 0
        self.progress = 0.0
        self._since = 0.0
        self._device = torch.device("cpu")

    @property
    def finished(self) -> bool:
        """Whether the run has come to its end."""
        return self.progress >= 1

    def stretch(self, most: int) -> int:
        """Steps of the next stretch: an eighth of the run by its speed so far, ``most`` at most.

        By the clock a run's first stretch is short: its speed is not known yet.
        """
        if self.total is None and not self.step:
            return min(most, _FIRST)
        per_step = self.progress / self.step if self.step else 1 / (self.total or 1)
        return min(most, math.ceil(1 / (_STRETCHES * per_step) - _ROUNDING))

    def steps_done(self) -> int:
        """Steps done."""
        return self.step

    def is_before(self, share: float) -> bool:
        """Whether less than this share of the run is done."""
        return self.progress < share

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._since = time.perf_counter() - self.seconds
        self._device = pl_module.device

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, index: int) -> None:
        self._go_on(trainer.global_step)
        share = factor(self.schedule, self.warmup, self.progress)
        for group in trainer.optimizers[0].param_groups:
            group["lr"] = group["highest"] * share
        if self.boost > 1:
            task: Any = pl_module.task
            task.boost = boost(self.boost, self.boost_until, self.progress)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        self._go_on(trainer.global_step)
        if self.finished:
            trainer.should_stop = True

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.seconds = time.perf_counter() - self._since

    def _go_on(self, step: int) -> None:
        self.step = step
        self.seconds = time.perf_counter() - self._since
        self.progress = 0.0 if self.total is None else step / self.total
        if self.minutes is not None:
            seconds = torch.tensor(self.seconds, dtype=torch.float64, device=self._device)
            of_first_process([seconds])
            self.progress = max(self.progress, seconds.item() / (60 * self.minutes))

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.seconds, "step": self.step, "progress": self.progress}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.seconds, self.step = float(state_dict["seconds"]), int(state_dict["step"])
        self.progress = float(state_dict["progress"])
