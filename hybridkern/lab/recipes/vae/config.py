"""Settings of the recipes of variational autoencoders."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from hybridkern.lab.recipes.errors import RecipeError
from hybridkern.lab.recipes.images.batches import labelled_in_batch
from hybridkern.lab.recipes.images.training_config import TrainingConfig

MODELS = ("m2", "m1", "m1m2", "ccvae", "bayes", "hybrid")
CLASSIFIERS = ("mlp", "conv")
LIKELIHOODS = ("bernoulli", "logistic", "mixture")


@dataclass(frozen=True)
class VAEConfig(TrainingConfig):
    """Settings of the model beside those of data and training.

    Attributes:
        model: ``"m2"``; ``"m1"``: a VAE without labels, and a classifier that learns on its latents without changing
            them; ``"m1m2"``: M2 on the latents of such a run, ``first``; ``"ccvae"``; ``"bayes"``: a VAE whose prior is
            a Gaussian for each class; ``"hybrid"``: a classifier on the latents of a VAE, trained together.
        latent: number of latents; for ``"ccvae"`` those of the style, in addition to one per class.
        hidden: units of the hidden layer of each network.
        likelihood: ``"bernoulli"``, for black and white pixels (white from half of the highest grey value on);
            ``"logistic"``, or a ``"mixture"`` of ``components`` logistics, for the grey values as they are.
        components: logistics of a ``"mixture"``.
        label_weight: weight of the mean of ``log q(y|x)`` over the labelled images of a batch beside the mean of the
            bounds over all of its images, for ``"m2"``, ``"m1m2"`` and ``"bayes"``; published, for the first two: 0.1.
        entropy_weight: weight of the entropy of ``p(y|x)``, in nats, of unlabelled images, for ``"hybrid"``.
        classifier: ``q(y|x)`` of ``"m2"`` and ``"m1m2"``: ``"mlp"``, a network like the others (for ``"m1m2"`` on the
            latents of ``first``), or ``"conv"``, two convolutions on the image.
        first: folder of the ``"m1"`` run that ``"m1m2"`` builds on, with the same ``latent`` and ``hidden``.
        draws: of the latents, over which the bound is averaged.
        lam: weight of ``-log p(x)`` per dimension, for ``"hybrid"`` only; the other models have no such weight.
    """

    lam: float | None = None
    batch_size: int = 128
    optimizer: str = "adam"
    weight_decay: float = 0.0
    beta2: float = 0.999
    clip: float | None = 100.0
    ema: float | None = 0.999
    translation: int = 1
    unlabelled: float = 0.75
    head_weight_decay: float = 0.0
    boost: float = 1.0
    precision: str = "fp32"
    model: str = "m2"
    latent: int = 50
    hidden: int = 500
    likelihood: str = "bernoulli"
    components: int = 5
    label_weight: float = 10.0
    entropy_weight: float = 0.0
    classifier: str = "mlp"
    first: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, choices in (("model", MODELS), ("likelihood", LIKELIHOODS), ("classifier", CLASSIFIERS)):
            self.require_one_of(name, choices)
        for name in ("latent", "hidden", "components"):
            self._require(name, getattr(self, name) >= 1, "a whole number from 1 on")
        for name in ("label_weight", "entropy_weight"):
            self._require(name, 0 <= getattr(self, name) < math.inf, "a finite number that is not negative")
        self._require("consistency", not self.consistency, "0: these models have no such term")
        self._require("boost", self.boost == 1, "1: these models have no such factor")
        if self.lam is not None and self.model != "hybrid":
            raise RecipeError(f"--lam: got {self.lam}, expected none: only the model 'hybrid' has such a weight")
        if self.classifier != "mlp" and self.model not in ("m2", "m1m2"):
            raise RecipeError(f"--set classifier: got {self.classifier}, expected mlp: that is for m2 and m1m2")
        if (self.first is None) == (self.model == "m1m2"):
            expected = "the folder of a run of model m1" if self.first is None else "none: it is for the model m1m2"
            raise RecipeError(f"--set first: got {self.first}, expected {expected}")

    @property
    def labelled_share(self) -> float:
        """Share of each batch that has labels."""
        if self.labels is None or not self.semi_supervised:
            return 1.0
        return labelled_in_batch(self.batch_size, self.unlabelled, self.labels) / self.batch_size

    def lam_record(self, dim: int) -> dict[str, Any]:
        if self.model == "hybrid":
            return super().lam_record(dim)
        bound = "none; loss = minus the bound of log p(x, y), or of log p(x) where there is no label, nats per example"
        if self.model == "m1":
            bound = "none; loss = minus the bound of log p(x), and -log p(y|z) for the classifier only"
        elif self.model != "ccvae":
            bound += f"; minus {self.label_weight:g} log q(y|x) in the mean over a batch"
        return {"lam_convention": bound}
