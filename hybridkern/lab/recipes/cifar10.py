"""Recipe ``cifar10``: Glow with a classifier on its latents, on the photographs of CIFAR-10.

The loss is that of the recipe ``svhn``. What it is for: the likelihood of such a model is higher for the digits of SVHN
than for its own test part, see :mod:`hybridkern.hybrid.scores`. As a classifier it is weak.
"""

from __future__ import annotations

from hybridkern.lab.recipes.images.config import ImagesConfig
from hybridkern.lab.recipes.images.experiment import image_recipe
from hybridkern.lab.recipes.images.official import CIFAR10

RECIPE = image_recipe(
    name="cifar10",
    summary="Glow and classifier on CIFAR-10's 32x32 photographs",
    config=ImagesConfig(),
    official=CIFAR10,
    published={},
)
