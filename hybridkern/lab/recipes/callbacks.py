"""What hangs on the training loop: the record of the epochs, the progress line and the checkpoints."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column
from torch import Tensor

from hybridkern.lab.recipes.errors import diverged

CURVES = ("val_loss", "val_nll", "val_error")
_APART = 0.05 - 1e-9  # of a run, between two points of the training curve


class History(Callback):
    """The validation figures of every epoch and the seconds spent, kept in the checkpoints.

    Args:
        keep_last: whether the weights of the last epoch are kept, not those of the lowest validation loss.
        epochs: of the whole run.
        minutes: wall time of the whole run, or ``None``.

    Attributes:
        curves: one list for each entry of ``CURVES``, one value per epoch.
        training: ``epoch``, with a fraction, and ``loss``, the mean over the steps since the value before: one for each
            twentieth of the run, so that a run of one epoch has a curve, too.
        seconds: wall time of training, interruptions left out.
    """

    def __init__(self, keep_last: bool = False, epochs: int = 1, minutes: float | None = None) -> None:
        self.keep_last = keep_last
        self.curves: dict[str, list[float]] = {name: [] for name in CURVES}
        self.training: dict[str, list[float]] = {"epoch": [], "loss": []}
        self.seconds = 0.0
        self._since = 0.0
        self._of_run = epochs, math.inf if minutes is None else 60 * minutes
        self._losses: list[Tensor] = []
        self._earlier = (0.0, 0)  # sum and number of losses before the checkpoint that the run goes on from
        self._marked = 0.0

    @property
    def epochs(self) -> int:
        """Epochs completed."""
        return len(self.curves["val_loss"])

    @property
    def best(self) -> int:
        """The epoch (from 0) that is kept: that of the lowest validation loss, the first of equals, or the last."""
        if self.keep_last:
            return self.epochs - 1
        losses = self.curves["val_loss"]
        return losses.index(min(losses))

    def record(self) -> dict[str, Any]:
        """What ``metrics.json`` says of the training."""
        return {
            "train_seconds": self.seconds,
            "epochs": self.epochs,
            "best_epoch": self.best + 1,
            "best_validation": {name: values[self.best] for name, values in self.curves.items()},
            "validation": self.curves,
            "training": self.training,
        }

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._since = time.perf_counter()
        # the last point was at a larger share of the run, where the run has become longer since
        self._marked = min(self._marked, self._progress(self.epochs))

    def _progress(self, epoch: float) -> float:
        """Share of the run that is done after so many epochs, now."""
        epochs, seconds = self._of_run
        return max(epoch / epochs, (self.seconds + time.perf_counter() - self._since) / seconds)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._losses.append(outputs["loss"])
        epoch = trainer.current_epoch + (batch_idx + 1) / trainer.num_training_batches
        progress = self._progress(epoch)
        if progress - self._marked > _APART:
            total, count = self._sum()
            self.training["epoch"].append(epoch)
            self.training["loss"].append(total / count)
            self._losses, self._earlier, self._marked = [], (0.0, 0), progress

    def _sum(self) -> tuple[float, int]:
        """Of the losses since the last point, and how many these are."""
        if self._losses:
            total = torch.stack(self._losses).sum(dtype=torch.float64).item()
            self._earlier = self._earlier[0] + total, self._earlier[1] + len(self._losses)
            self._losses = []
        return self._earlier

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # the shortest decimal of the float32 that Lightning holds
        values = {name: float(str(np.float32(trainer.callback_metrics[name]))) for name in CURVES}
        for name, value in values.items():
            if not math.isfinite(value):
                raise diverged(trainer.current_epoch, f"{name} is {value}")
            self.curves[name].append(value)
        now = time.perf_counter()
        self.seconds += now - self._since
        self._since = now

    def state_dict(self) -> dict[str, Any]:
        return {
            "curves": {name: list(values) for name, values in self.curves.items()},
            "seconds": self.seconds,
            "training": {name: list(values) for name, values in self.training.items()},
            "since": [*self._sum(), self._marked],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        curves = {name: [float(value) for value in state_dict["curves"][name]] for name in CURVES}
        if len({len(values) for values in curves.values()}) > 1:
            raise ValueError("its curves are of different lengths")
        self.curves = curves
        self.seconds = float(state_dict["seconds"])
        if "training" in state_dict:  # checkpoints up to version 0.2.0 have none
            self.training = {name: [float(value) for value in state_dict["training"][name]] for name in self.training}
            total, count, self._marked = state_dict["since"]
            self._earlier = float(total), int(count)


class EpochProgress(Callback):
    """One progress line for the whole run. A bar a step would cost more than the steps of these small models."""

    def __init__(
        self,
        history: History,
        epochs: int,
        console: Console,
        error_text: Callable[[float], str] = "error {:.1%}".format,
    ) -> None:
        self._history = history
        self._error_text = error_text
        self._progress = Progress(
            TextColumn("epoch"),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            BarColumn(bar_width=12),
            TimeElapsedColumn(table_column=Column(no_wrap=True)),
            TextColumn("{task.description}"),
            console=console,
            auto_refresh=False,
        )
        self._line = self._progress.add_task("", total=epochs)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._progress.start()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        curves, best = self._history.curves, self._history.best
        text = (
            f"loss {curves['val_loss'][-1]:.3f} {self._error_text(curves['val_error'][-1])} "
            f"NLL {curves['val_nll'][-1]:.1f} best {best + 1}"
        )
        self._progress.update(self._line, completed=self._history.epochs, description=text, refresh=True)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._progress.stop()


class _Checkpoint(ModelCheckpoint):
    """One file, ``NAME.ckpt`` in ``folder``, written at the end of an epoch."""

    def __init__(self, folder: Path, name: str, **options: Any) -> None:
        super().__init__(folder, name, enable_version_counter=False, save_on_train_epoch_end=True, **options)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # Lightning forgets the best score when the folder's path has changed; a moved run is still the same run.
        file = os.path.join(str(self.dirpath), f"{self.filename}.ckpt")
        paths = {"dirpath": self.dirpath, "best_model_path": file, "kth_best_model_path": file, "last_model_path": ""}
        scores = {} if state_dict["best_model_score"] is None else {file: state_dict["best_model_score"]}
        super().load_state_dict({**state_dict, **paths, "best_k_models": scores})


class Best(_Checkpoint):
    """The weights with the lowest validation loss."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "best", monitor="val_loss", save_weights_only=True)


class Last(_Checkpoint):
    """Everything needed to go on, from the end of an epoch of the last ``seconds``.

    Small models pass many epochs a second, and writing a checkpoint then takes longer than the epoch. A run that goes
    on from an earlier epoch does the same epochs again, with the same result.
    """

    seconds = 1.0

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "last")
        self._written = -math.inf

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if time.monotonic() - self._written >= self.seconds:
            super().on_train_epoch_end(trainer, pl_module)
            self._written = time.monotonic()
