"""What hangs on the training loop of the recipes on images: figures along the way, progress line, checkpoint."""

from __future__ import annotations

import math
import time
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, WeightAveraging
from lightning.pytorch.utilities.types import STEP_OUTPUT
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column
from torch import Tensor

from hybridkern.lab.recipes.callbacks import Last
from hybridkern.lab.recipes.errors import diverged
from hybridkern.lab.recipes.images.integer_task import IntegerTask
from hybridkern.lab.recipes.images.module import ImageModule
from hybridkern.lab.recipes.images.pace import Pace

TRAINED = ("step", "seconds", "class_nll", "nll", "error")
VALIDATED = ("step", "seconds", "val_loss", "val_nll", "val_error")
_EMA_START = 10
_APART = 0.05  # of a run, between two points of the training curve


class ImageHistory(Callback):
    """Figures of training and validation, by step, kept in the checkpoints.

    Attributes:
        training: one list for each entry of ``TRAINED``; values are means over the images since the value before. One
            for each stretch at least, and one for each twentieth of the run.
        validation: one list for each entry of ``VALIDATED``, one value for each validation.
        images: images trained on.
        precision: of the networks in training, as Lightning calls it.
    """

    def __init__(self, pace: Pace, steps_per_pass: int, precision: str) -> None:
        self.pace = pace
        self.steps_per_pass = steps_per_pass
        self.precision = precision
        self.training: dict[str, list[float]] = {name: [] for name in TRAINED}
        self.validation: dict[str, list[float]] = {name: [] for name in VALIDATED}
        self.images = 0
        self._since = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._since = self.pace.progress

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: STEP_OUTPUT, batch: Any, batch_idx: int
    ) -> None:
        last = batch_idx + 1 >= trainer.num_training_batches or trainer.should_stop  # the end of the stretch records
        if not last and self.pace.progress - self._since >= _APART:
            self._record(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._where(self.validation, trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._record(trainer, pl_module)
        # Lightning validates before this hook, and logs its figures after the hook of the validation
        while len(self.validation["val_loss"]) < len(self.validation["step"]):
            for name in VALIDATED[2:]:
                value = float(trainer.callback_metrics[name])
                self.validation[name].append(self._finite(name, value))

    def _record(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, ImageModule)
        class_nll, nll, wrong, labelled, images = pl_module.take_sums().tolist()
        if not images:
            return  # a run that goes on from the end of a stretch begins by ending it again
        self._since = self.pace.progress
        self.images += int(images)
        self._where(self.training, trainer)
        means = {"class_nll": class_nll / labelled, "nll": nll / images, "error": wrong / labelled}
        for name, value in means.items():
            self.training[name].append(self._finite(f"training {name}", value))

    def _where(self, curves: dict[str, list[float]], trainer: pl.Trainer) -> None:
        curves["step"].append(trainer.global_step)
        curves["seconds"].append(self.pace.seconds)

    def _finite(self, name: str, value: float) -> float:
        if not math.isfinite(value):
            raise diverged((self.pace.step - 1) // self.steps_per_pass, f"{name} is {value}")
        return value

    def record(self) -> dict[str, Any]:
        """What ``metrics.json`` says of the training."""
        seconds = self.pace.seconds
        return {
            "train_seconds": seconds,
            "epochs": self.pace.step / self.steps_per_pass,
            "steps": self.pace.step,
            "images_per_second": self.images / seconds if seconds else 0.0,
            "precision": self.precision,
            "training": self.training,
            "validation": self.validation,
        }

    def state_dict(self) -> dict[str, Any]:
        return {"training": self.training, "validation": self.validation, "images": self.images}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.training = {name: list(state_dict["training"][name]) for name in TRAINED}
        self.validation = {name: list(state_dict["validation"][name]) for name in VALIDATED}
        self.images = int(state_dict["images"])


class StepProgress(Callback):
    """One progress line: the share of the run that is done, and the figures of the last images.

    The line belongs to the process that draws it, the first one, and is not handed to another.
    """

    def __init__(self, pace: Pace, dim: int, batch_size: int, console: Console) -> None:
        self.pace = pace
        self.dim = dim
        self.batch_size = batch_size
        self._console: Console | None = console
        self._progress: Progress | None = None
        self._line: Any = None
        self._drawn = 0.0
        self._since = (0, 0.0)
        self._text = ""

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_console": None, "_progress": None}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._since = (trainer.global_step, time.monotonic())
        if not trainer.is_global_zero:
            return
        self._progress = Progress(
            BarColumn(bar_width=12),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(table_column=Column(no_wrap=True)),
            TextColumn("{task.description}"),
            console=self._console or Console(stderr=True),
            auto_refresh=False,
        )
        self._line = self._progress.add_task("", total=1.0)
        self._progress.start()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: STEP_OUTPUT, batch: Any, batch_idx: int
    ) -> None:
        now = time.monotonic()
        if self._progress is None or (now - self._drawn < 0.5 and not self.pace.finished):
            return
        self._drawn = now
        assert isinstance(pl_module, ImageModule)
        speed = (trainer.global_step - self._since[0]) * self.batch_size / max(now - self._since[1], 1e-9)
        text = f"step {trainer.global_step} {self._figures(pl_module.sums)} {speed:.0f} images/s"
        self._progress.update(self._line, completed=self.pace.progress, description=text, refresh=True)

    def _figures(self, sums: Tensor) -> str:
        _, nll, wrong, labelled, images = sums.tolist()
        if images:
            self._text = f"error {wrong / labelled:.1%} bits/dim {nll / images / self.dim / math.log(2):.3f}"
        return self._text

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


class RunningAverage(WeightAveraging):
    """The exponential running average of the weights, which is validated and kept.

    It is updated every ``every`` steps with the decay of as many steps at once. At first it follows faster: after
    ``n`` updates the decay is ``(1 + n) / (10 + n)`` at most.
    """

    def __init__(self, decay: float, every: int) -> None:
        self._every = every
        self._decay = decay**every
        # Buffers are copied, not averaged: the average of a permutation's integers means nothing.
        super().__init__(use_buffers=False, multi_avg_fn=self._average)

    def _average(self, averages: list[Tensor], weights: list[Tensor], updates: Tensor | int) -> None:
        n = int(updates)
        decay = min(self._decay, (1 + n) / (_EMA_START + n))
        torch._foreach_lerp_(averages, weights, 1 - decay)

    @torch.no_grad()
    def take(self, module: pl.LightningModule, names: tuple[str, ...]) -> None:
        """Begins anew with the parameters whose names hold one of ``names``, which mean nothing before."""
        assert self._average_model is not None
        averages = dict(self._average_model.module.named_parameters())
        for name, parameter in module.named_parameters():
            if any(part in name for part in names):
                averages[name].copy_(parameter)

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        return step_idx is not None and (step_idx + 1) % self._every == 0


class LearningSteps(Callback):
    """Has the networks of an integer flow learn steps in the last part of a run.

    Args:
        pace: says how far the run is.
        share: of the run, its end.
    """

    def __init__(self, pace: Pace, share: float) -> None:
        self.pace = pace
        self.share = share

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, index: int) -> None:
        task = pl_module.task
        if not isinstance(task, IntegerTask) or self.pace.is_before(1 - self.share) or not task.learn_steps(batch[0]):
            return
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, RunningAverage):
                callback.take(pl_module, ("weight_steps", "activation_steps"))


class LastStretch(Last):
    """Everything needed to go on, from the end of every stretch: processes cannot agree on a clock."""

    seconds = 0.0
