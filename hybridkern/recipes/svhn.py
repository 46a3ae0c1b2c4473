"""Recipe ``svhn``: a multi-scale Glow with a classifier on its latents, on the cropped digits of SVHN.

The loss is ``-log p(y|x) - (lam / D) log p(x)``, nats per image, with uniform dequantization and training images moved
by up to three pixels, as in the experiment of Nalisnick et al. 2019 (arXiv:1902.02767), which trained 24 steps of Glow
with Highway networks on the whole training set.
"""

from __future__ import annotations

from hybridkern.recipes.images.config import ImagesConfig
from hybridkern.recipes.images.experiment import image_recipe
from hybridkern.recipes.images.official import SVHN

# Nalisnick et al. 2019, table 3: the whole training set; another set is CIFAR-10
_PUBLISHED = {
    1.0: {"test_error": "5.23 %", "test_bits_per_dim": "2.40", "test_class_nll_nats": "0.253"}
    | {"ood_bits_per_dim": "6.16", "ood_entropy_nats": "1.677"},
    10.0: {"test_error": "7.27 %", "test_bits_per_dim": "2.23", "test_class_nll_nats": "0.268"}
    | {"ood_bits_per_dim": "7.03", "ood_entropy_nats": "2.143"},
    0.1: {"test_error": "4.86 %", "test_bits_per_dim": "3.35", "test_class_nll_nats": "0.260"}
    | {"ood_bits_per_dim": "7.06", "ood_entropy_nats": "1.153"},
}

RECIPE = image_recipe(
    name="svhn",
    summary="Glow and classifier on SVHN's 32x32 digits",
    config=ImagesConfig(),
    official=SVHN,
    published=_PUBLISHED,
)
