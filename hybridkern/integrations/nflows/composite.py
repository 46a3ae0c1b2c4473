"""Sequences of nflows: features stay apart from coupling to coupling, with one running log-determinant."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from nflows.transforms import base
from torch import Tensor

from hybridkern.integrations._layer import Accelerated, has_hooks
from hybridkern.integrations.nflows._features import Lying, whole


class CompositeTransform(Accelerated, base.CompositeTransform):
    """Joins what a coupling gives only where the next layer needs it joined."""

    REPLACEMENT = "features stay apart from coupling to coupling; one log-determinant"

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Data -> latent, as in the library."""
        return _run(self._transforms, inputs, context, inverse=False)

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Latent -> data, as in the library."""
        return _run(reversed(self._transforms), inputs, context, inverse=True)


def _run(transforms: Iterable[Any], inputs: Tensor, context: Tensor | None, inverse: bool) -> tuple[Tensor, Tensor]:
    x: Tensor | Lying = inputs
    total: Tensor | None = None
    for transform in transforms:
        done = None
        if hasattr(transform, "on_parts") and not has_hooks((transform,)):
            done = transform.on_parts(x, context, total, inverse)
        if done is None:
            x = whole(x)
            x, own = transform.inverse(x, context) if inverse else transform(x, context)
            done = x, (own if total is None else total + own)
        x, total = done
    return whole(x), inputs.new_zeros(len(inputs)) if total is None else total
