"""Recipe ``svhn``: a multi-scale Glow with a classifier on its latents, on the cropped digits of SVHN.

The loss is ``-log p(y|x) - (lam / D) log p(x)``, nats per image, with uniform dequantization and training images moved
by up to three pixels, as in the experiment of Nalisnick et al. 2019 (arXiv:1902.02767), which trained 24 steps of Glow
with Highway networks on the whole training set.
"""

from __future__ import annotations

from hybridkern.lab.recipes.images.config import ImagesConfig
from hybridkern.lab.recipes.images.experiment import image_recipe
from hybridkern.lab.recipes.images.official import SVHN
from hybridkern.lab.recipes.images.published import SVHN_ROWS, by_lam

RECIPE = image_recipe(
    name="svhn",
    summary="Glow and classifier on SVHN's 32x32 digits",
    config=ImagesConfig(boost=50.0, head_hidden=512, head_dropout=0.2),
    official=SVHN,
    published=by_lam(SVHN_ROWS, "CIFAR-10"),
)
