"""The Lightning module: what one step and one validation do, and with which optimizer."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor

from hybridkern import optim
from hybridkern.lab.recipes.config import Config
from hybridkern.lab.recipes.errors import diverged
from hybridkern.lab.recipes.task import Task

# with the fastest implementation each has: most of a step of these small models is the time to launch operators
OPTIMIZER_CLASSES: dict[str, tuple[Any, str]] = {
    "adamax": (optim.Adamax, "foreach"),
    "adam": (torch.optim.Adam, "fused"),
    "adamw": (torch.optim.AdamW, "fused"),
}


class HybridModule(pl.LightningModule):
    """Trains a :class:`~hybridkern.lab.recipes.task.Task`.

    Logs per epoch, over the whole validation part and weighted by examples: ``val_loss`` (the objective in nats),
    ``val_nll`` (nats) and ``val_error`` (a share, or what else :meth:`Task.errors` says).

    Args:
        task: model and objective.
        config: optimizer, schedule, seed.
        steps: optimizer steps of the whole run, for the schedule.
    """

    def __init__(self, task: Task, config: Config, steps: int) -> None:
        super().__init__()
        self.task = task
        self.config = config
        self.steps = steps
        self._sums = torch.zeros(4, dtype=torch.float64)  # no buffer: processes would be given those of the first one

    def on_train_epoch_start(self) -> None:
        # A function of seed and epoch, as the order of the data is: a resumed run draws what the whole run would have.
        state = np.random.SeedSequence((self.config.seed, self.current_epoch)).generate_state(1)
        torch.manual_seed(int(state[0]))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        return self.task.loss(*batch)

    def on_validation_epoch_start(self) -> None:
        self._sums = torch.zeros(4, dtype=torch.float64, device=self.device)
        self.task.refit()

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> None:
        x, y = batch
        try:
            terms = self.task.terms(x, y)
        except ValueError as error:  # the data have been checked: what is out of range now is what the model made
            raise diverged(self.current_epoch, str(error)) from error
        errors = self.task.errors(terms.predicted, y)
        sums = [part.sum(dtype=torch.float64) for part in (terms.class_nll, terms.nll, errors)]
        self._sums += torch.stack([*sums, torch.full_like(sums[0], len(y))])

    def on_validation_epoch_end(self) -> None:
        class_nll, nll, error = (self._sums[:3] / self._sums[3]).tolist()
        self.log_dict({"val_loss": class_nll + self.task.lam * nll, "val_nll": nll, "val_error": error})

    def configure_optimizers(self) -> Any:
        config = self.config
        build, speed = OPTIMIZER_CLASSES[config.optimizer]
        optimizer = build(
            self._parameter_groups(),
            lr=config.lr,
            betas=(0.9, config.beta2),
            weight_decay=config.weight_decay,
            **{speed: True},
        )
        if config.schedule == "constant":
            return optimizer
        if config.schedule == "onecycle":
            highest = [group["lr"] for group in optimizer.param_groups]
            schedule: Any = torch.optim.lr_scheduler.OneCycleLR(
                optimizer, highest, total_steps=self.steps, pct_start=config.warmup
            )
        else:
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _parameter_groups(self) -> list[dict[str, Any]]:
        prior = self.task.prior_parameters()
        if not prior:
            return [{"params": list(self.parameters())}]
        mine = {id(parameter) for parameter in prior}
        rest = [parameter for parameter in self.parameters() if id(parameter) not in mine]
        return [{"params": rest}, {"params": prior, "lr": self.config.lr * self.config.prior_lr, "weight_decay": 0.0}]
