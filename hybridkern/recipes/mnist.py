"""Recipe ``mnist``: Glow with a classifier on its latents, on the digits of MNIST.

The loss is ``-log p(y|x) - (lam / D) log p(x)``, nats per image, with uniform dequantization. A side of 28 can be
halved twice, so there are two levels.
"""

from __future__ import annotations

from hybridkern.recipes.images.config import ImagesConfig
from hybridkern.recipes.images.experiment import image_recipe
from hybridkern.recipes.images.official import MNIST

# Nalisnick et al. 2019, table 2: the whole training set; another set is notMNIST
_PUBLISHED = {
    1.0: {"test_error": "2.22 %", "test_bits_per_dim": "1.26", "test_class_nll_nats": "0.081"}
    | {"ood_bits_per_dim": "6.13", "ood_entropy_nats": "2.300"},
    10.0: {"test_error": "4.01 %", "test_bits_per_dim": "1.25", "test_class_nll_nats": "0.145"}
    | {"ood_bits_per_dim": "6.17", "ood_entropy_nats": "2.300"},
    0.01: {"test_error": "0.73 %", "test_bits_per_dim": "1.83", "test_class_nll_nats": "0.035"}
    | {"ood_bits_per_dim": "5.84", "ood_entropy_nats": "2.300"},
}

RECIPE = image_recipe(
    name="mnist",
    summary="Glow and classifier on MNIST's 28x28 digits",
    config=ImagesConfig(levels=2, hidden=128, translation=2),
    official=MNIST,
    published=_PUBLISHED,
)
