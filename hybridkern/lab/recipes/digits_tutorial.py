"""Recipe ``digits-tutorial``: the HybridIDF experiment on scikit-learn's digits, with the settings of its tutorial.

The tutorial (J. M. Tomczak, Deep Generative Modeling) trains an integer discrete flow and a classifier on its latents
together: two couplings, networks of two hidden layers of 256 units, Adamax, early stopping on the validation loss. Its
coupling adds ``beta * round(t)`` (``lattice="tutorial"``), which leaves the integers and so gives no likelihood;
``round(beta * t)`` (``lattice="exact"``) stays on them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from hybridkern.hybrid import HybridIDF
from hybridkern.lab.data import DataSet, load_digits, load_npz
from hybridkern.lab.recipes.config import LATTICES, Config
from hybridkern.lab.recipes.errors import RecipeError
from hybridkern.lab.recipes.recipe import DataShape, Published, Recipe
from hybridkern.lab.recipes.task import Task, Terms
from hybridkern.nets import mlp

_HIDDEN = 256
_FLOWS = 2
# Runs of the tutorial's own code (tutorial lattice: seeds 0 to 2), test set of 447, by (lattice, parts); lam = 1/D.
_PUBLISHED = {
    ("tutorial", 1): {"test_error": "9.0-11.9 %", "test_nll_nats": "150.3-152.4", "lattice_share": "2-3 %"},
    ("tutorial", 4): {"test_error": "9.2-12.5 %", "test_nll_nats": "134.6-136.7", "lattice_share": "0.1 %"},
    ("exact", 1): {"test_error": "10.1-11.2 %", "test_nll_nats": "141.4-150.2", "lattice_share": "100 %"},
}


@dataclass(frozen=True)
class TutorialConfig(Config):
    """Settings of the tutorial.

    Attributes:
        lattice: ``"exact"`` or ``"tutorial"``, see the module.
        parts: 1: couplings of two halves; 4: of four quarters, each given the other three.
    """

    epochs: int = 1000
    optimizer: str = "adamax"
    lattice: str = "exact"
    parts: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_one_of("lattice", LATTICES)
        self.require_one_of("parts", (1, 4))


class TutorialTask(Task):
    """``hybridkern.HybridIDF`` as a task; its classifier gives probabilities, as the tutorial's does."""

    def __init__(self, model: HybridIDF, lam: float) -> None:
        super().__init__(lam)
        self.model = model

    def _logits(self, z: Tensor) -> Tensor:
        assert isinstance(self.model.classnet, nn.Sequential)
        return self.model.classnet[:-1](z)  # short of the softmax, whose logarithm may underflow

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        loss: Tensor = self.model(x, y)
        return loss

    def terms(self, x: Tensor, y: Tensor) -> Terms:
        z = self.model.f(x)
        logits = self._logits(z)
        class_nll = F.cross_entropy(logits, y, reduction="none")
        return Terms(class_nll, -self.model.log_prior(z), logits.argmax(1))

    def latent(self, x: Tensor) -> Tensor:
        return self.model.f(x)

    def invert(self, z: Tensor) -> Tensor:
        return self.model.f_inv(z)

    def sample(self, n: int, temperature: float = 1.0, label: int | None = None) -> Tensor:
        if temperature != 1 or label is not None:
            name, got, wanted = ("temperature", temperature, 1) if label is None else ("class", label, "none")
            raise ValueError(f"{name}: got {got}, expected {wanted}: HybridIDF has no such option")
        return self.model.sample(n).reshape(n, -1)


def _load(config: TutorialConfig) -> DataSet:
    return load_digits() if config.data is None else load_npz(config.data)


def _build(config: TutorialConfig, data: DataShape) -> TutorialTask:
    pieces = max(config.parts, 2)
    if data.dim % pieces:
        raise RecipeError(f"--data: images of {data.dim} values cannot be divided into {pieces} equal parts")
    outputs = data.dim // pieces
    net = partial(mlp, data.dim - outputs, outputs, (_HIDDEN, _HIDDEN))
    classifier = nn.Sequential(*mlp(data.dim, data.classes, (_HIDDEN, _HIDDEN)), nn.Softmax(dim=1))
    lam = config.weight(data.dim)
    model = HybridIDF([net] * config.parts, classifier, _FLOWS, alpha=lam, D=data.dim, lattice=config.lattice)
    return TutorialTask(model, lam)


def _published(config: TutorialConfig) -> Published:
    if config.data is not None or config.lam is not None:
        return Published()
    figures = _PUBLISHED.get((config.lattice, config.parts), {})
    return Published("tutorial's code" if config.lattice == "tutorial" else "tutorial, round(beta t)", figures)


RECIPE = Recipe(
    name="digits-tutorial",
    summary="the tutorial's HybridIDF on scikit-learn's 8x8 digits",
    config=TutorialConfig(),
    load=_load,
    build=_build,
    likelihood=lambda config: config.lattice == "exact",
    published=_published,
)
