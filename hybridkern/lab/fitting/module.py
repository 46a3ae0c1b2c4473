"""One step of training and one look at the validation rows, for each kind of model."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor, nn

from hybridkern.flows import NonFiniteError, check_finite
from hybridkern.hybrid import HybridModel
from hybridkern.hybrid.heads import BayesianLinear, Classifier
from hybridkern.hybrid.objectives import Objective
from hybridkern.hybrid.vae.semi import SemiSupervisedVAE
from hybridkern.lab.fitting.inputs import Rows
from hybridkern.lab.fitting.settings import Settings
from hybridkern.lab.recipes.evaluation import evaluating

_BATCH = 512
_EVERY = 50  # steps between looks at the loss on a device, which wait for it


def generators_kept() -> AbstractContextManager[None]:
    """Torch's generators, those of every device too, are after the block as they were before it.

    The devices are named: of several ones that are not, torch warns.
    """
    kept: AbstractContextManager[None] = torch.random.fork_rng(devices=range(torch.cuda.device_count()))
    return kept


class TrainingError(ArithmeticError):
    """Training gave a number that is not finite; the message says where."""


class FitModule(pl.LightningModule):
    """Trains ``model``.

    Args:
        model: a flow, a hybrid model or a variational autoencoder.
        objective: of a :class:`hybridkern.hybrid.HybridModel`; ``None`` for other models, or without targets.
        settings: of the optimizer, and the seed of the random numbers of every epoch.
        progress: how much of the training is done, from 0 to 1, for the schedule.
    """

    def __init__(self, model: nn.Module, objective: Objective | None, settings: Settings, progress: Any) -> None:
        super().__init__()
        self.model, self.objective = model, objective
        self._settings, self._done = settings, progress
        self.total, self.count = torch.zeros(()), 0

    def configure_optimizers(self) -> Any:
        """AdamW."""
        trained = [value for value in self.model.parameters() if value.requires_grad]
        return torch.optim.AdamW(trained, lr=self._settings.lr, weight_decay=self._settings.weight_decay)

    def on_train_epoch_start(self) -> None:
        """Random numbers depend on seed and epoch, so that a resumed run draws what the whole run would have."""
        state = np.random.SeedSequence((self._settings.seed, self.current_epoch)).generate_state(1)
        torch.manual_seed(int(state[0]))
        self.total, self.count = torch.zeros((), dtype=torch.float64, device=self.device), 0

    def on_train_batch_start(self, batch: Rows, batch_index: int) -> None:
        """Sets the learning rate."""
        if self._settings.schedule == "cosine":
            factor = 0.5 * (1 + math.cos(math.pi * min(self._done(), 1.0)))
            for group in self.trainer.optimizers[0].param_groups:
                group["lr"] = self._settings.lr * factor

    def transfer_batch_to_device(self, batch: Rows, device: torch.device, dataloader_idx: int) -> Rows:
        """A batch is no container that Lightning knows."""
        return batch.to(device)

    def training_step(self, batch: Rows, batch_index: int) -> Tensor:
        """The loss of a batch."""
        loss = self.loss(batch)
        self.total = self.total + loss.detach().double() * len(batch)
        self.count += len(batch)
        if (loss.device.type == "cpu" or batch_index % _EVERY == 0) and not math.isfinite(loss.item()):
            raise self._broken(batch, loss.item(), batch_index)
        return loss

    def loss(self, rows: Rows) -> Tensor:
        """What is minimized, a mean over the rows, in nats."""
        model = self.model
        if isinstance(model, SemiSupervisedVAE):
            y = torch.full((len(rows),), -1, device=rows.x.device) if rows.y is None else rows.y
            return model.loss(rows.x, y)
        if isinstance(model, HybridModel):
            if rows.y is None or self.objective is None:
                return -model.log_prob(rows.x).mean()
            return model.loss(rows.x, rows.y, self.objective)
        given = () if rows.context is None else (rows.context,)
        log_px: Tensor = model.log_prob(rows.x, *given)  # type: ignore[operator]
        return -log_px.mean()

    def _broken(self, batch: Rows, loss: float, step: int) -> TrainingError:
        where = ""
        try:
            with torch.no_grad(), check_finite(self.model):
                self.loss(batch)
        except NonFiniteError as error:
            where = f": {error}"
        except (ArithmeticError, ValueError, RuntimeError) as error:
            where = f": {error}"
        return TrainingError(
            f"loss: got {loss} in epoch {self.current_epoch + 1}, step {step + 1}{where}; "
            "a lower lr, a lower clip or data of about unit width may help"
        )

    def figures(self, rows: Rows, train: Rows) -> dict[str, float]:
        """Means over validation rows, in evaluation mode."""
        sums: dict[str, float] = {}
        with evaluating(self.model), generators_kept():
            observe(self.model, train)
            for start in range(0, len(rows), _BATCH):
                part = rows.at(slice(start, start + _BATCH)).to(self.device)
                for name, value in self._figures(part).items():
                    sums[name] = sums.get(name, 0.0) + value
        counts = {"val_error": sums.pop("labelled", 0.0)}
        if not counts["val_error"]:
            sums.pop("val_error", None)  # of no row there is no share
        means = {name: value / counts.get(name, len(rows)) for name, value in sums.items()}
        return {name: math.sqrt(value) if name == "val_rmse" else value for name, value in means.items()}

    def _figures(self, part: Rows) -> dict[str, float]:
        model, n = self.model, len(part)
        found = {"val_loss": self.loss(part).item() * n}
        given = () if part.context is None else (part.context,)
        found["val_log_px"] = model.log_prob(part.x, *given).sum(dtype=torch.float64).item()  # type: ignore[operator]
        if part.y is None:
            return found
        predicted = model.predict(part.x)  # type: ignore[operator]
        if isinstance(model, SemiSupervisedVAE) or isinstance(model.head, Classifier):
            labelled = part.y >= 0
            found["val_error"] = float(((predicted != part.y) & labelled).sum())
            found["labelled"] = float(labelled.sum())
        else:
            found["val_rmse"] = (predicted.double() - part.y.double()).square().sum().item()
        return found


@torch.no_grad()
def observe(model: nn.Module, rows: Rows) -> None:
    """Gives a head of closed form the training rows, which are what it predicts from."""
    head = getattr(model, "head", None)
    if not isinstance(head, BayesianLinear) or rows.y is None:
        return
    device = next(model.parameters()).device
    with evaluating(model), generators_kept():
        head.forget()
        for start in range(0, len(rows), _BATCH):
            part = rows.at(slice(start, start + _BATCH)).to(device)
            head.observe(model.flow(part.x)[0], part.y)  # type: ignore[operator, arg-type]
