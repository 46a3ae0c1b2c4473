"""The Lightning module of the recipes on images."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from hybridkern.lab.recipes.images.batches import rank_and_size
from hybridkern.lab.recipes.images.task import ImageTask
from hybridkern.lab.recipes.images.training_config import TrainingConfig
from hybridkern.lab.recipes.module import OPTIMIZER_CLASSES, HybridModule
from hybridkern.lab.recipes.task import Terms

_DROPOUT = 2


class ImageModule(HybridModule):
    """Trains an :class:`~hybridkern.lab.recipes.images.task.ImageTask`.

    Args:
        task: model and objective.
        config: optimizer and seed.
        threads: of each process, where several share a batch.

    Attributes:
        sums: of ``class_nll``, ``nll``, wrong predictions, images with label and images since :meth:`take_sums`, in
            this process.
    """

    def __init__(self, task: ImageTask, config: TrainingConfig, threads: int) -> None:
        super().__init__(task, config, steps=0)
        self.threads = threads
        self.sums = torch.zeros(5, dtype=torch.float64)

    def on_fit_start(self) -> None:
        self.sums = self.sums.to(self.device)

    def setup(self, stage: str) -> None:
        if self.trainer.world_size > 1:
            torch.set_num_threads(self.threads)

    def on_train_epoch_start(self) -> None:
        """Nothing: random numbers begin anew at each step, not at each epoch."""

    def on_train_batch_start(self, batch: Any, batch_index: int) -> None:
        # Dropout, too, is a function of seed, step and process: a resumed run draws what the whole run would have.
        numbers = (self.config.seed, _DROPOUT, self.trainer.global_step, rank_and_size()[0])
        torch.manual_seed(int(np.random.SeedSequence(numbers).generate_state(1)[0]))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        assert isinstance(self.task, ImageTask)
        loss, terms = self.task.loss_and_terms(*batch)
        self.sums += _sums(terms, batch[1])
        return loss

    def take_sums(self) -> Tensor:
        """The sums over all processes, which then start from 0 again."""
        sums = self.sums.clone()
        self.sums.zero_()
        if rank_and_size()[1] > 1:
            torch.distributed.all_reduce(sums)
        return sums

    def configure_gradient_clipping(self, optimizer: Any, *_: Any, **__: Any) -> None:
        # Lightning's own clipping refuses fused optimizers under mixed precision: those could unscale gradients, which
        # bfloat16 does not need.
        if self.config.clip:
            torch.nn.utils.clip_grad_norm_(self.parameters(), self.config.clip, foreach=True)

    def configure_optimizers(self) -> Any:
        config = self.config
        assert isinstance(config, TrainingConfig)
        build, speed = OPTIMIZER_CLASSES[config.optimizer]
        return build(self._parameter_groups(), lr=config.lr, betas=(0.9, config.beta2), **{speed: True})

    def _parameter_groups(self) -> list[dict[str, Any]]:
        config, task = self.config, self.task
        assert isinstance(config, TrainingConfig) and isinstance(task, ImageTask)
        head = {id(parameter) for parameter in task.head_parameters()}
        prior = {id(parameter) for parameter in task.prior_parameters()}
        groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
        for parameter in self.parameters():
            if id(parameter) in prior:
                rate, decay = config.lr * config.prior_lr, 0.0
            elif id(parameter) in head:
                rate, decay = config.lr * config.head_lr, config.head_weight_decay
            else:
                rate, decay = config.lr, config.weight_decay
            decays = task.decays(parameter) or (id(parameter) in head and parameter.ndim == 2)
            groups.setdefault((rate, decay if decays else 0.0), []).append(parameter)
        return [
            {"params": parameters, "lr": rate, "highest": rate, "weight_decay": decay}
            for (rate, decay), parameters in groups.items()
        ]


def _sums(terms: Terms, y: Tensor) -> Tensor:
    labelled = y >= 0
    wrong = (terms.predicted != y) & labelled
    parts = (terms.class_nll, terms.nll, wrong, labelled, torch.ones_like(y))
    return torch.stack([part.sum(dtype=torch.float64) for part in parts])
