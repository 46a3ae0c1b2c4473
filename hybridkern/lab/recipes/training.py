"""Sets up Lightning's training loop for a task and a run folder, and runs it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, WeightAveraging
from rich.console import Console
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from hybridkern.lab.data import DataSet
from hybridkern.lab.recipes.batches import Batches
from hybridkern.lab.recipes.callbacks import Best, EpochProgress, History, Last
from hybridkern.lab.recipes.checkpoints import (
    BEST,
    Restoring,
    Resumed,
    SealedCheckpointIO,
    newest,
    read_checkpoint,
    say,
)
from hybridkern.lab.recipes.config import Config
from hybridkern.lab.recipes.device import chosen
from hybridkern.lab.recipes.errors import DamagedFileError
from hybridkern.lab.recipes.fitting import require_fit
from hybridkern.lab.recipes.interrupts import interruptible
from hybridkern.lab.recipes.module import HybridModule
from hybridkern.lab.recipes.task import Task

_VALIDATION_BATCH = 512


def fit(
    task: Task,
    data: DataSet,
    config: Config,
    checkpoints: Path,
    *,
    console: Console,
    extra: tuple[Callback, ...] = (),
    keep_last: bool = False,
) -> History:
    """Trains ``task`` in place, going on from the newest checkpoint where there is one, and loads the best weights.

    With ``keep_last`` those of the last epoch are kept instead: validation then chooses nothing. So are they where the
    best ones of a resumed run are damaged, unless a later epoch is better; a line says so.

    The task must just have been built after ``torch.manual_seed(config.seed)``. Order of the data and random draws
    depend on seed and epoch alone, so an interrupted and resumed run ends with the weights of an uninterrupted one.

    Raises:
        KeyboardInterrupt: after Ctrl-C, when the loop has been shut down.
        RecipeError: the loss is no longer finite, or a checkpoint is damaged or not one of this run.
    """
    batches = Batches(data.train, config.batch_size, torch.get_rng_state())
    module = HybridModule(task, config, steps=config.epochs * len(batches))
    history = History(keep_last, config.epochs, getattr(config, "minutes", None))
    # patience counts the epochs that may pass without improvement; Lightning's stops already at the last of them
    stopping = EarlyStopping("val_loss", patience=config.patience + 1, check_on_train_epoch_end=True)
    callbacks = [
        history,
        EpochProgress(history, config.epochs, console, task.error_text),
        stopping,
        Best(checkpoints),
        Last(checkpoints),
        *extra,
    ]
    if config.ema is not None:
        # Buffers are copied, not averaged: the average of a permutation's integers means nothing.
        callbacks.append(WeightAveraging(use_buffers=False, multi_avg_fn=get_ema_multi_avg_fn(config.ema)))
    resumed = newest(checkpoints, module, console)
    best_is_lost = False
    if resumed is not None:
        resumed.restore(history)
        if not keep_last and history.epochs:
            best_is_lost = _is_lost(checkpoints, module, console)
    if resumed is None or not _has_stopped(resumed, stopping):
        _run(module, batches, data, config, callbacks, resumed)
    else:
        module.load_state_dict(resumed.checkpoint["state_dict"])
    if not keep_last:
        try:
            module.load_state_dict(_best(checkpoints, module))
        except DamagedFileError:
            if not best_is_lost:
                raise
            history.keep_last = True
    return history


def _is_lost(checkpoints: Path, module: HybridModule, console: Console) -> bool:
    """Whether the weights of the best epoch are damaged, which is said before more is trained."""
    try:
        _best(checkpoints, module)
    except DamagedFileError as error:
        say(
            console,
            f"{error}; the weights of the last epoch are kept, unless a later one is better. To train from the start, "
            f"remove {checkpoints}",
        )
        return True
    return False


def _best(checkpoints: Path, module: HybridModule) -> dict[str, Tensor]:
    """The weights of the best epoch.

    Raises:
        DamagedFileError: they are missing or damaged.
    """
    path = checkpoints / BEST
    checkpoint = read_checkpoint(path)
    require_fit(path, checkpoint, module)
    weights: dict[str, Tensor] = checkpoint["state_dict"]
    return weights


def _run(
    module: HybridModule,
    batches: Batches,
    data: DataSet,
    config: Config,
    callbacks: list[Callback],
    resumed: Resumed | None,
) -> None:
    restoring = Restoring(resumed)
    with quiet_lightning(), restoring.errors():
        trainer = pl.Trainer(
            accelerator=chosen(config.device).type,
            devices=1,
            max_epochs=config.epochs,
            callbacks=[*callbacks, restoring],
            plugins=[SealedCheckpointIO()],
            gradient_clip_val=config.clip,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        path = None if resumed is None else resumed.path
        with interruptible(trainer):
            trainer.fit(module, batches, Batches(data.validation, _VALIDATION_BATCH), ckpt_path=path)


def _has_stopped(resumed: Resumed, stopping: EarlyStopping) -> bool:
    """Whether early stopping had ended the run of a checkpoint: Lightning would train one epoch more."""
    waited = resumed.state_of(stopping).get("wait_count")
    return isinstance(waited, int) and waited >= stopping.patience


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Keeps Lightning's notes on devices, tips and epoch limits out of a run's output; errors stay."""
    log = logging.getLogger("lightning.pytorch")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            yield
    finally:
        log.setLevel(level)
