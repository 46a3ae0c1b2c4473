"""A recipe on images from its settings and its data set."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from hybridkern.lab.recipes.images import results, sources
from hybridkern.lab.recipes.images.config import ImagesConfig
from hybridkern.lab.recipes.images.model import build
from hybridkern.lab.recipes.images.official import BY_NAME, Official, fetch
from hybridkern.lab.recipes.images.published import PAPER
from hybridkern.lab.recipes.images.training import fit
from hybridkern.lab.recipes.recipe import Published, Recipe


def image_recipe(
    name: str, summary: str, config: ImagesConfig, official: Official, published: dict[float, dict[str, str]]
) -> Recipe:
    """A recipe that trains Glow with a classifier.

    ``published`` holds a paper's figures by ``lam`` per dimension, of models that were trained on all labels.
    """

    def of_paper(config: ImagesConfig) -> Published:
        if config.labels is not None:
            return Published()
        lam = 1.0 if config.lam is None else config.lam
        return Published(PAPER, published.get(lam, {}))

    return Recipe(
        name=name,
        summary=summary,
        config=config,
        load=partial(sources.load, official=official),
        build=build,
        published=of_paper,
        files=partial(sources.files, official=official),
        fetch=partial(_fetch, official),
        fit=fit,
        evaluate=results.evaluate,
        draw=results.draw_run,
        draw_ood=results.draw_ood,
    )


def _fetch(official: Official, config: ImagesConfig) -> None:
    """The files of the recipe, and those of the other set where the configuration names one."""
    if config.data_root is not None:
        fetch(official, Path(config.data_root))
        if config.ood in BY_NAME:
            fetch(BY_NAME[config.ood], Path(config.data_root))
