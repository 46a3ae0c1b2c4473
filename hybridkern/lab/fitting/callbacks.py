"""What hangs on the training loop: the record with the best weights, its end, and the progress line."""

from __future__ import annotations

import copy
import math
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from hybridkern.lab.fitting.history import History
from hybridkern.lab.fitting.inputs import Rows
from hybridkern.lab.fitting.module import FitModule, TrainingError
from hybridkern.lab.recipes.callbacks import Last


class Pace:
    """How far the training is, by epochs or by wall time, whichever ends first.

    Args:
        epochs: the most epochs, or ``None``.
        minutes: the most minutes, or ``None``.
        batches: steps per epoch.
    """

    def __init__(self, epochs: int | None, minutes: float | None, batches: int) -> None:
        self.epochs, self.minutes, self.batches = epochs, minutes, batches
        self.steps, self.before, self.since = 0, 0.0, time.monotonic()

    @property
    def seconds(self) -> float:
        """Wall time of training, interruptions left out."""
        return self.before + time.monotonic() - self.since

    def __call__(self) -> float:
        """From 0 to 1, and beyond."""
        by_steps = 0.0 if self.epochs is None else self.steps / (self.epochs * self.batches)
        return max(by_steps, 0.0 if self.minutes is None else self.seconds / (60 * self.minutes))

    @property
    def out_of_time(self) -> bool:
        """Whether the minutes are over."""
        return self.minutes is not None and self.seconds >= 60 * self.minutes


class Keep(Callback):
    """Records every epoch, keeps the weights of the lowest validation loss, and ends the training.

    Args:
        history: is filled.
        pace: of the training.
        train, validation: the rows; without any of the second the last epoch's weights are kept.
        patience: training stops after more than this many epochs without a lower validation loss.
    """

    def __init__(self, history: History, pace: Pace, train: Rows, validation: Rows, patience: int) -> None:
        self.history, self.pace, self.patience = history, pace, patience
        self.train, self.validation = train, validation
        self.weights: dict[str, Any] | None = None
        self.best = math.inf

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The clock runs from here."""
        self.pace.since = time.monotonic()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Ends the training in the middle of an epoch, where the minutes are over."""
        self.pace.steps += 1
        if self.pace.out_of_time:
            self._stop(trainer, f"{self.pace.minutes:g} minutes were over")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The figures of the epoch, or of the part of it that there was time for."""
        assert isinstance(pl_module, FitModule)
        entry = {"epoch": float(len(self.history.epochs) + 1), "seconds": self.pace.seconds}
        entry["loss"] = float(pl_module.total) / max(pl_module.count, 1)
        if len(self.validation):
            entry |= pl_module.figures(self.validation, self.train)
        bad = [name for name, value in entry.items() if not math.isfinite(value)]
        if bad:
            raise TrainingError(
                f"{bad[0]}: got {entry[bad[0]]} after epoch {int(entry['epoch'])}, expected a finite number; a lower "
                "lr, a lower clip or data of about unit width may help"
            )
        self.history.epochs.append(entry)
        score = entry.get("val_loss", -entry["epoch"])
        if score < self.best:
            self.best, self.history.best = score, int(entry["epoch"])
            self.weights = {name: value.detach().cpu().clone() for name, value in pl_module.model.state_dict().items()}
        elif len(self.validation) and (waited := int(entry["epoch"]) - self.history.best) > self.patience:
            self._stop(trainer, f"no lower validation loss in {waited} epoch{'s' * (waited > 1)}")

    def _stop(self, trainer: pl.Trainer, why: str) -> None:
        trainer.should_stop = True
        self.history.stopped = why

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        clock = {"seconds": self.pace.seconds, "steps": self.pace.steps}
        epochs = copy.deepcopy(self.history.epochs)
        return {"weights": self.weights, "epochs": epochs, "best": self.history.best, "score": self.best, **clock}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from a checkpoint."""
        self.weights, self.best = state_dict["weights"], float(state_dict["score"])
        self.history.epochs, self.history.best = list(state_dict["epochs"]), int(state_dict["best"])
        self.pace.before, self.pace.steps = float(state_dict["seconds"]), int(state_dict["steps"])


class WholeEpochs(Last):
    """The checkpoint to go on from: the end of an epoch that was not cut short, and always the last of these.

    Args:
        folder: where it lies.
        rows: number of rows of a whole epoch.
    """

    def __init__(self, folder: Path, rows: int) -> None:
        super().__init__(folder)
        self._rows = rows

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Writes it."""
        assert isinstance(pl_module, FitModule)
        if pl_module.count < self._rows:
            return
        if trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs:
            self._written = -math.inf
        super().on_train_epoch_end(trainer, pl_module)


class Line(Callback):
    """One progress line for the whole training."""

    def __init__(self, history: History, pace: Pace, console: Console) -> None:
        self._history, self._pace = history, pace
        columns = (TextColumn("fit"), BarColumn(bar_width=16), TaskProgressColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, TextColumn("{task.description}"), console=console, auto_refresh=False)
        self._task = self._progress.add_task("", total=1.0)
        self._drawn = -math.inf

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Shows the line."""
        self._progress.start()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Draws it anew, ten times a second at most."""
        if time.monotonic() - self._drawn > 0.1:
            self._draw()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draws it with the figures of the epoch."""
        self._draw()

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        text = ""
        if self._history.epochs:
            last = self._history.epochs[-1]
            figures = {name: value for name, value in last.items() if name not in ("epoch", "seconds")}
            text = f"epoch {int(last['epoch'])}  " + "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
        self._progress.update(self._task, completed=min(self._pace(), 1.0), description=text, refresh=True)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Leaves the line as it is."""
        self._progress.stop()
