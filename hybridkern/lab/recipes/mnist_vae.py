"""Recipe ``mnist-vae``: a variational autoencoder that learns MNIST's digits from few labels.

M2 (Kingma et al. 2014, arXiv:1406.5298), or another model of the same size: ``--set model=...``. Pixels are black or
white, so that the bound of ``log P(x)`` is that of the binarized digits.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from hybridkern.lab.recipes.images import sources
from hybridkern.lab.recipes.images.official import MNIST, fetch
from hybridkern.lab.recipes.images.training import fit
from hybridkern.lab.recipes.recipe import Recipe
from hybridkern.lab.recipes.vae import results
from hybridkern.lab.recipes.vae.config import VAEConfig
from hybridkern.lab.recipes.vae.task import build


@dataclass(frozen=True)
class MnistVAEConfig(VAEConfig):
    """Settings of the model."""

    labels: int | None = 1000
    validation: int = 2000
    checkpoint_steps: int = 200
    translation: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("ood", self.ood is None, "none: the recipe scores no other data")


def _fetch(config: MnistVAEConfig) -> None:
    if config.data_root is not None:
        fetch(MNIST, Path(config.data_root))


RECIPE = Recipe(
    name="mnist-vae",
    summary="variational autoencoder with 1000 labels on MNIST's 28x28 digits",
    config=MnistVAEConfig(),
    load=partial(sources.load, official=MNIST),
    build=build,
    files=partial(sources.files, official=MNIST),
    fetch=_fetch,
    fit=fit,
    evaluate=results.evaluate,
    draw=results.draw_run,
)
