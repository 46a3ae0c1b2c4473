"""Recipe ``digits``: an integer discrete flow with a classifier on its latents, on scikit-learn's digits."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from hybridkern.data import DataSet, load_digits, load_npz
from hybridkern.flows import IDF
from hybridkern.hybrid import HybridModel, heads, objectives
from hybridkern.recipes.config import LATTICES, Config
from hybridkern.recipes.errors import RecipeError
from hybridkern.recipes.recipe import DataShape, Published, Recipe
from hybridkern.recipes.task import Task, Terms


@dataclass(frozen=True)
class DigitsConfig(Config):
    """Settings of the model.

    Attributes:
        lattice: ``"exact"`` or ``"tutorial"``, see :class:`hybridkern.flows.IDF`.
        layers, parts, hidden: of the flow; every coupling network has two hidden layers of ``hidden`` units.
        prior, components: ``"logistic"``, or a ``"mixture"`` of ``components`` logistics a dimension.
        dropout: in the coupling networks.
        head_hidden: units of the classifier's two hidden layers; 0 makes it linear.
        head_dropout: in the classifier.
    """

    epochs: int = 100
    optimizer: str = "adamw"
    lr: float = 2e-3
    weight_decay: float = 1e-2
    schedule: str = "onecycle"
    patience: int = 100
    ema: float | None = 0.99
    lattice: str = "exact"
    layers: int = 2
    parts: int = 4
    hidden: int = 128
    prior: str = "mixture"
    components: int = 5
    dropout: float = 0.0
    head_hidden: int = 256
    head_dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_one_of("lattice", LATTICES)


class HybridTask(Task):
    """A :class:`hybridkern.hybrid.HybridModel` with a categorical head as a task."""

    def __init__(self, model: HybridModel, lam: float) -> None:
        super().__init__(lam)
        self.model = model
        self.objective = objectives.Weighted(lam)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        return self.model.loss(x, y, self.objective)

    def terms(self, x: Tensor, y: Tensor) -> Terms:
        out = self.model(x)
        head = self.model.head
        return Terms(-head.log_prob(out.prediction, y), -out.log_px, head.predict(out.prediction))

    def latent(self, x: Tensor) -> Tensor:
        return self.model(x).z

    def invert(self, z: Tensor) -> Tensor:
        return self.model.flow.inverse(z)[0]

    def sample(self, n: int) -> Tensor:
        return self.model.sample(n)


def _load(config: DigitsConfig) -> DataSet:
    return load_digits() if config.data is None else load_npz(config.data)


def _build(config: DigitsConfig, data: DataShape) -> HybridTask:
    if not 2 <= config.parts <= data.dim:
        raise RecipeError(f"--parts: got {config.parts}, expected a number from 2 to the {data.dim} values of an image")
    flow = IDF(
        data.dim,
        layers=config.layers,
        parts=config.parts,
        hidden=config.hidden,
        lattice=config.lattice,
        prior=config.prior,
        components=config.components,
        dropout=config.dropout,
    )
    hidden = (config.head_hidden,) * 2 if config.head_hidden else ()
    head = heads.Categorical(data.dim, data.classes, hidden, dropout=config.head_dropout)
    return HybridTask(HybridModel(flow, head), config.weight(data.dim))


def _published(config: DigitsConfig) -> Published:
    if config.data is not None:
        return Published()
    figures = {"test_error": "10.1-11.2 %", "test_nll_nats": "141.4-150.2", "lattice_share": "100 %"}
    return Published("tutorial, round(beta t)", figures)


RECIPE = Recipe(
    name="digits",
    summary="integer flow and classifier on scikit-learn's 8x8 digits",
    config=DigitsConfig(),
    load=_load,
    build=_build,
    likelihood=lambda config: config.lattice == "exact",
    published=_published,
)
