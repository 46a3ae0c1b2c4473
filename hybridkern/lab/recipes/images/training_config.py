"""Settings of data and training that all recipes on images share."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, TypeVar

from hybridkern.lab.recipes.config import Config
from hybridkern.lab.recipes.errors import RecipeError

_C = TypeVar("_C", bound="TrainingConfig")
PRECISIONS = ("auto", "fp32", "bf16")
_ANY_NUMBER_OF_EPOCHS = 10**6  # what versions up to 0.2.0 wrote where time alone ends a run


@dataclass(frozen=True)
class TrainingConfig(Config):
    """Settings of data and training; ``lam`` is per dimension: the weight of ``-log p(x)`` is ``lam / D``.

    Attributes:
        lam: weight of ``-log p(x)`` per dimension: ``loss = -log p(y|x) - (lam / D) * log p(x)``, nats per example, D
            being the dimensions of an example.
        epochs: maximum number of passes over the training part; ``None``: only ``minutes`` end the run, as they do if
            they are given without ``epochs``.
        patience: without effect, for validation chooses nothing here, and ends no training.
        weight_decay: of the weights of networks: biases, norms and factors of 1x1 convolutions have none.
        warmup: share of the training in which the learning rate rises, by every schedule.
        data_root: folder with the data set's official files, instead of ``data``.
        test_data: an ``.npz`` file whose images are the test part; those of ``data`` are then all for training.
        ood: data to score beside the test part: an ``.npz`` file, or ``svhn``, ``mnist`` or ``cifar10`` for the test
            part of the official files under ``data_root``.
        ood_size: number of images of ``ood`` that are scored, spread evenly over it; ``None``: all.
        train_size: number of training images, the first ones; ``None``: all.
        validation: number of training images, the last ones, that are held out for the curves; they choose nothing.
        translation: largest shift of training images, in pixels in each direction; edges are repeated.
        redrawn: share of the grey values of training images that are replaced by random ones: with it a model learns
            the background of images and not what they show.
        translation_until: share of the training after which images are no longer shifted.
        head_lr: factor on the learning rate of the classifier.
        head_weight_decay: weight decay of the classifier.
        labels: number of training images that keep their label, equally many per class; ``None``: all do.
        unlabelled: share of each batch that is drawn from the unlabelled images; with 0 they are left out.
        consistency: weight of a consistency term, in nats: the cross-entropy of a second view of each unlabelled image
            to the class that the model gives the first one, where it is sure. If not 0, each of them is in its batch
            twice.
        distortion: strength, from 0 to 1, of the second view's rotation (up to 25 degrees), shear (0.3) and scale
            (1.2).
        boost: factor on ``lam`` at the start, which falls to 1 geometrically. Gradients of the classifier are so much
            noisier than those of the likelihood that under Adam they would slow it down.
        boost_until: share of the training after which this factor is 1.
        minutes: wall time of training; the schedule follows it.
        ema_every: steps between two updates of the running average.
        checkpoint_steps: steps between two checkpoints, each preceded by a validation; fewer in a short run, which has
            at least eight.
        precision: ``"fp32"``; ``"bf16"``: networks in bfloat16 (autocast); ``"auto"``: bf16 if the CPU, or the GPU
            (sm_80 or newer), has instructions for it.
        devices: processes that share each batch, on each machine; each has a GPU of its own where they are on GPUs.
        nodes: machines; torchrun or SLURM starts the processes.
        draws: dequantizations over which the test figures are averaged.
    """

    epochs: int | None = 50  # type: ignore[assignment]  # None: any number, for recipes that end by the clock
    lam: float | None = 1.0
    batch_size: int = 32
    optimizer: str = "adamw"
    lr: float = 1e-3
    weight_decay: float = 1e-2
    beta2: float = 0.99
    schedule: str = "onecycle"
    warmup: float = 0.1
    clip: float | None = 10.0
    ema: float | None = 0.998
    data_root: str | None = None
    test_data: str | None = None
    ood: str | None = None
    ood_size: int | None = None
    train_size: int | None = None
    validation: int = 256
    translation: int = 3
    translation_until: float = 1.0
    redrawn: float = 0.0
    head_lr: float = 1.0
    head_weight_decay: float = 1e-1
    labels: int | None = None
    unlabelled: float = 0.5
    consistency: float = 0.0
    distortion: float = 0.0
    boost: float = 30.0
    boost_until: float = 0.5
    minutes: float | None = None
    ema_every: int = 10
    checkpoint_steps: int = 400
    precision: str = "auto"
    devices: int = 1
    nodes: int = 1
    draws: int = 2

    def _check_options(self, given: Collection[str]) -> None:
        super()._check_options(given)
        if "patience" in given:
            usual = Config.patience
            self._require("patience", self.patience == usual, f"{usual}: validation does not end these trainings")
        # second views are of images without label, and there for that term
        self._require("consistency", self.semi_supervised or not self.consistency, "0 without unlabelled images")
        self._require("distortion", self.consistency > 0 or not self.distortion, "0 without consistency")

    @property
    def schedule_may_grow(self) -> bool:
        """The learning rate is a function of the share that is done."""
        return True

    @property
    def processes(self) -> int:
        """Those that share each batch, on all machines."""
        return self.devices * self.nodes

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("epochs", self.epochs is not None or self.minutes is not None, "a number, or --minutes")
        self.require_one_of("precision", PRECISIONS)
        for name in ("devices", "nodes", "ema_every", "checkpoint_steps", "draws"):
            self._require(name, getattr(self, name) >= 1, "a whole number from 1 on")
        for name in ("validation", "translation"):
            self._require(name, getattr(self, name) >= 0, "a whole number from 0 on")
        for name in ("unlabelled", "redrawn"):
            self._require(name, 0 <= getattr(self, name) < 1, "a share from 0 to below 1")
        self._require("boost", math.isfinite(self.boost) and self.boost >= 1, "a finite number from 1 on")
        self._require("boost_until", 0 <= self.boost_until <= 1, "a share from 0 to 1")
        self._require("translation_until", 0 <= self.translation_until <= 1, "a share from 0 to 1")
        self._require("consistency", 0 <= self.consistency < math.inf, "a finite number that is not negative")
        self._require("distortion", 0 <= self.distortion <= 1, "a number from 0 to 1")
        if self.consistency and self.processes > 1:
            raise RecipeError(
                f"--devices: got {self.processes}, expected 1 with consistency, whose pairs stay together"
            )
        for name in ("labels", "train_size", "ood_size"):
            value = getattr(self, name)
            self._require(name, value is None or value >= 1, "a whole number from 1 on")
        self._require(
            "minutes", self.minutes is None or (math.isfinite(self.minutes) and self.minutes > 0), "a positive number"
        )
        if self.batch_size % self.processes:
            text = f"--devices {self.devices}" + (f" x --nodes {self.nodes}" if self.nodes > 1 else "")
            raise RecipeError(f"--batch-size: got {self.batch_size}, expected a multiple of {text}")

    @property
    def semi_supervised(self) -> bool:
        """Whether training sees images without label."""
        return self.labels is not None and self.unlabelled > 0

    def updated(self, recipe: str, options: dict[str, Any]) -> TrainingConfig:
        updated = super().updated(recipe, options)
        if options.get("minutes") is not None and options.get("epochs") is None and self.minutes is None:
            return dataclasses.replace(updated, epochs=None)
        return updated

    @classmethod
    def from_json(cls: type[_C], values: dict[str, Any]) -> _C:
        """As the base class, and the sign of older versions for any number of epochs.

        A ``test_data`` beside ``data_root``, which they ignored, is none.
        """
        if values.get("epochs") == _ANY_NUMBER_OF_EPOCHS and values.get("minutes") is not None:
            values = values | {"epochs": None}
        if values.get("data_root") is not None:
            values = values | {"test_data": None}
        return super().from_json(values)

    def weight(self, dim: int) -> float:
        return (1.0 if self.lam is None else self.lam) / dim

    def lam_record(self, dim: int) -> dict[str, Any]:
        convention = f"loss = -log p(y|x) - (lam / D) * log p(x), nats per example, D = {dim}"
        return {"lam": 1.0 if self.lam is None else self.lam, "lam_convention": convention}
