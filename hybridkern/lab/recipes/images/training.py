"""Sets up Lightning's training loop for a task on images and a run folder, and runs it."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import DDPStrategy
from rich.console import Console
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

from hybridkern.lab.data import DataSet
from hybridkern.lab.recipes.checkpoints import (
    LAST,
    Restoring,
    Resumed,
    SealedCheckpointIO,
    newest,
    read_checkpoint,
)
from hybridkern.lab.recipes.device import chosen, follows, launched
from hybridkern.lab.recipes.errors import RecipeError
from hybridkern.lab.recipes.fitting import require_fit
from hybridkern.lab.recipes.images.batches import FixedBatches, TrainingBatches
from hybridkern.lab.recipes.images.callbacks import (
    ImageHistory,
    LastStretch,
    LearningSteps,
    RunningAverage,
    StepProgress,
)
from hybridkern.lab.recipes.images.module import ImageModule
from hybridkern.lab.recipes.images.pace import Pace
from hybridkern.lab.recipes.images.precision import keep_freed_memory, resolve
from hybridkern.lab.recipes.images.task import ImageTask
from hybridkern.lab.recipes.images.training_config import TrainingConfig
from hybridkern.lab.recipes.interrupts import interruptible
from hybridkern.lab.recipes.training import quiet_lightning

_VALIDATION_BATCH = 128


def fit(
    task: ImageTask,
    data: DataSet,
    config: TrainingConfig,
    checkpoints: Path,
    *,
    console: Console,
    extra: tuple[Callback, ...] = (),
) -> ImageHistory:
    """Trains ``task`` in place, going on from the newest checkpoint where there is one, and loads what is kept:
    the running average of the weights at the end, or the weights themselves where there is none.

    Order of the data and all random draws depend on seed and step alone. Without ``minutes`` a run that was killed and
    resumed ends with the weights of one that was not, bit for bit on the same machine and number of threads.

    Raises:
        KeyboardInterrupt: after Ctrl-C, when the loop has been shut down.
        RecipeError: the loss is no longer finite, or a process ended.
    """
    keep_freed_memory()
    device = chosen(config.device)
    passes = len(data.train) // config.batch_size
    total = None if config.epochs is None else config.epochs * passes
    pace = Pace(total, config.minutes, config.schedule, config.warmup, config.boost, config.boost_until)
    batches = TrainingBatches(
        data.train,
        data.shape,
        config.batch_size,
        stretch=partial(pace.stretch, config.checkpoint_steps),
        seed=config.seed,
        translation=config.translation,
        done=pace.steps_done,
        moving=partial(pace.is_before, config.translation_until),
        redrawn=(config.redrawn, data.grey_levels),
        unlabelled=config.unlabelled if config.semi_supervised else 0.0,
        views=2 if config.consistency else 1,
        distortion=config.distortion,
        device=device,
    )
    history = ImageHistory(pace, passes, resolve(config.precision, device))
    callbacks: list[Callback] = [pace, history, StepProgress(pace, data.dim, config.batch_size, console)]
    if config.ema is not None:
        callbacks.append(RunningAverage(config.ema, config.ema_every))
    if getattr(config, "quantized", 0.0):
        callbacks.append(LearningSteps(pace, config.quantized))  # type: ignore[attr-defined]
    callbacks += [LastStretch(checkpoints), *extra]
    module = ImageModule(task, config, max(1, torch.get_num_threads() // config.devices))
    kept = newest(checkpoints, module, console)
    if kept is None or not _finished(kept, pace):
        validation = FixedBatches(data.validation, _VALIDATION_BATCH, config.seed) if len(data.validation) else None
        _run(module, batches, validation, callbacks, kept, device)
        if follows():
            return history  # the first process has the checkpoints
        kept = Resumed(checkpoints / LAST, read_checkpoint(checkpoints / LAST, to_go_on=True))
    require_fit(kept.path, kept.checkpoint, module)
    module.load_state_dict(kept.checkpoint["state_dict"])
    for callback in (pace, history):  # trained in other processes, perhaps
        kept.restore(callback)
    return history


def _finished(resumed: Resumed, pace: Pace) -> bool:
    """Whether the run of a checkpoint had come to its end."""
    state = resumed.state_of(pace)
    done = [(state.get("step"), pace.total or math.inf), (state.get("seconds"), 60 * (pace.minutes or math.inf))]
    return any(isinstance(value, (int, float)) and value >= end for value, end in done)


def _run(
    module: ImageModule,
    batches: TrainingBatches,
    validation: FixedBatches | None,
    callbacks: list[Callback],
    resumed: Resumed | None,
    device: torch.device,
) -> None:
    config = module.config
    assert isinstance(config, TrainingConfig)
    pace = next(callback for callback in callbacks if isinstance(callback, Pace))
    strategy: Any = "auto"
    if config.processes > 1:
        backend = "nccl" if device.type == "cuda" else "gloo"
        # started anew, not forked: a fork of a process whose threads have computed may hang
        how: Any = {} if launched() else {"start_method": "spawn"}
        # steps that are learned have no gradient before
        how["find_unused_parameters"] = getattr(config, "quantized", 0.0) > 0
        strategy = DDPStrategy(process_group_backend=backend, **how)
    restoring = Restoring(resumed)
    with quiet_lightning(), restoring.errors():
        trainer = pl.Trainer(
            accelerator=device.type,
            devices=config.devices,
            num_nodes=config.nodes,
            strategy=strategy,
            precision=resolve(config.precision, device),
            max_epochs=-1,
            max_steps=-1 if pace.total is None else pace.total,
            reload_dataloaders_every_n_epochs=1,  # asks for the length of the next stretch
            callbacks=[*callbacks, restoring],
            plugins=[SealedCheckpointIO()],
            use_distributed_sampler=False,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        try:
            with interruptible(trainer):
                trainer.fit(module, batches, validation, ckpt_path=None if resumed is None else resumed.path)
        except ProcessRaisedException as error:
            raise RecipeError(f"a process of --devices failed: {str(error).strip().splitlines()[-1]}") from error
        except ProcessExitedException as error:
            raise RecipeError(f"a process of --devices ended: {str(error).splitlines()[0]}") from error
