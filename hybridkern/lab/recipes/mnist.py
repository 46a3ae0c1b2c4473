"""Recipe ``mnist``: Glow with a classifier on its latents, on the digits of MNIST.

The loss is ``-log p(y|x) - (lam / D) log p(x)``, nats per image, with uniform dequantization. A side of 28 can be
halved twice, so there are two levels.
"""

from __future__ import annotations

from hybridkern.lab.recipes.images.config import ImagesConfig
from hybridkern.lab.recipes.images.experiment import image_recipe
from hybridkern.lab.recipes.images.official import MNIST
from hybridkern.lab.recipes.images.published import MNIST_ROWS, by_lam

RECIPE = image_recipe(
    name="mnist",
    summary="Glow and classifier on MNIST's 28x28 digits",
    config=ImagesConfig(levels=2, hidden=128, translation=2),
    official=MNIST,
    published=by_lam(MNIST_ROWS, "notMNIST"),
)
