"""What hangs on the training loop: the record of the epochs, the progress line and the two checkpoints."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from hybridkern.recipes.errors import RecipeError
from hybridkern.recipes.files import replacing

CURVES = ("val_loss", "val_nll", "val_error")


class History(Callback):
    """The validation figures of every epoch and the seconds spent, kept in the checkpoints.

    Attributes:
        curves: one list an entry of ``CURVES``, one value an epoch.
        seconds: wall time of training, interruptions left out.
    """

    def __init__(self) -> None:
        self.curves: dict[str, list[float]] = {name: [] for name in CURVES}
        self.seconds = 0.0
        self._since = 0.0

    @property
    def epochs(self) -> int:
        """Epochs completed."""
        return len(self.curves["val_loss"])

    @property
    def best(self) -> int:
        """The epoch (from 0) of the lowest validation loss, the first of equals."""
        losses = self.curves["val_loss"]
        return losses.index(min(losses))

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._since = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        values = {name: float(trainer.callback_metrics[name]) for name in CURVES}
        for name, value in values.items():
            if not math.isfinite(value):
                raise RecipeError(
                    f"training broke down: {name} is {value} after epoch {trainer.current_epoch}; "
                    "a smaller learning rate or a smaller --lam may help"
                )
            self.curves[name].append(value)
        now = time.perf_counter()
        self.seconds += now - self._since
        self._since = now

    def state_dict(self) -> dict[str, Any]:
        return {"curves": {name: list(values) for name, values in self.curves.items()}, "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.curves = {name: list(values) for name, values in state_dict["curves"].items()}
        self.seconds = state_dict["seconds"]


class EpochProgress(Callback):
    """One progress line for the whole run. A bar a step would cost more than the steps of these small models."""

    def __init__(self, history: History, epochs: int, console: Console) -> None:
        self._history = history
        self._progress = Progress(
            TextColumn("epoch"),
            MofNCompleteColumn(),
            BarColumn(),
            TimeElapsedColumn(),
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
            f"validation: loss {curves['val_loss'][-1]:.4f}, error {curves['val_error'][-1]:.1%}, "
            f"NLL {curves['val_nll'][-1]:.1f} nats; best epoch {best + 1}"
        )
        self._progress.update(self._line, completed=self._history.epochs, description=text, refresh=True)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._progress.stop()


class BestAndLast(ModelCheckpoint):
    """``best.ckpt`` by validation loss and ``last.ckpt`` after every epoch, in ``folder``."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            dirpath=folder,
            filename="best",
            monitor="val_loss",
            save_last=True,
            enable_version_counter=False,
            save_on_train_epoch_end=True,
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # Lightning forgets the best score when the folder's path has changed; a moved run is still the same run.
        best = os.path.join(str(self.dirpath), "best.ckpt")
        moved = {"dirpath": self.dirpath, "best_model_path": best, "kth_best_model_path": best}
        scores = {best: score for score in state_dict["best_k_models"].values()}
        super().load_state_dict({**state_dict, **moved, "best_k_models": scores})


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place and moves it there: an interrupted write leaves the previous one."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as temporary:
            torch.save(checkpoint, temporary)
