"""Recipe ``digits-vae``: a variational autoencoder that learns scikit-learn's digits from a hundred labels.

M2 (Kingma et al. 2014, arXiv:1406.5298), or another model of the same size: ``--set model=...``. Grey values 0 to 16
have a likelihood of discretized logistics, so that the bound is one of ``log P(x)`` of the digits as they are, in nats.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from hybridkern.lab.data import DataSet, load_digits, load_npz
from hybridkern.lab.recipes.errors import RecipeError
from hybridkern.lab.recipes.images.sources import few_labels
from hybridkern.lab.recipes.images.training import fit
from hybridkern.lab.recipes.recipe import Recipe
from hybridkern.lab.recipes.vae import results
from hybridkern.lab.recipes.vae.config import VAEConfig
from hybridkern.lab.recipes.vae.task import build

_NOT_HERE = ("data_root", "test_data", "ood", "ood_size", "train_size")


@dataclass(frozen=True)
class DigitsVAEConfig(VAEConfig):
    """Settings of the model; the validation part is that of the data."""

    epochs: int | None = 200
    batch_size: int = 64
    labels: int | None = 100
    latent: int = 8
    hidden: int = 256
    likelihood: str = "mixture"
    components: int = 3
    validation: int = 350
    checkpoint_steps: int = 100
    lr: float = 5e-3
    draws: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in _NOT_HERE:
            if getattr(self, name) is not None:
                raise RecipeError(f"--{name.replace('_', '-')}: the recipe 'digits-vae' has no such option")
        self._require("validation", self.validation == 350, "350: the data have a validation part of their own")


def _load(config: DigitsVAEConfig) -> DataSet:
    data = load_digits() if config.data is None else load_npz(config.data)
    train = few_labels(data.train, data.classes, config)
    if len(train) < config.batch_size:
        raise RecipeError(f"--batch-size: got {config.batch_size}, expected at most the {len(train)} training images")
    return dataclasses.replace(data, train=train)


RECIPE = Recipe(
    name="digits-vae",
    summary="variational autoencoder with 100 labels on scikit-learn's 8x8 digits",
    config=DigitsVAEConfig(),
    load=_load,
    build=build,
    fit=fit,
    evaluate=results.evaluate,
    draw=results.draw_run,
)
