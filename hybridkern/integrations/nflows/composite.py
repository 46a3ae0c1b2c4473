"""Sequences of nflows: features stay apart from coupling to coupling."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from nflows.transforms import base
from torch import Tensor

from hybridkern.integrations._features import Lying, whole
from hybridkern.integrations._layer import Accelerated, has_hooks, has_own_parts
from hybridkern.integrations._masked_coupling import MaskedCoupling


class CompositeTransform(Accelerated, base.CompositeTransform):
    """Joins what a coupling gives only where the next layer needs it joined."""

    REPLACEMENT = "features stay apart from coupling to coupling"

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Data -> latent, as in the library."""
        if has_own_parts(self):
            return super().forward(inputs, context)
        return _run(self._transforms, inputs, context, inverse=False)

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Latent -> data, as in the library."""
        if has_own_parts(self):
            return super().inverse(inputs, context)
        return _run(reversed(self._transforms), inputs, context, inverse=True)


def _run(transforms: Iterable[Any], inputs: Tensor, context: Tensor | None, inverse: bool) -> tuple[Tensor, Tensor]:
    x: Tensor | Lying = inputs
    log_det = inputs.new_zeros(len(inputs))
    for transform in transforms:
        done = None
        if isinstance(transform, MaskedCoupling) and not has_hooks((transform,)):  # type: ignore[arg-type]
            done = transform.on_parts(x, context, inverse)
        if done is None:
            x = whole(x)
            done = transform.inverse(x, context) if inverse else transform(x, context)
        x, own = done
        log_det += own  # in place as in the library: ``own`` may be one number, and the sum keeps its dtype
    return whole(x), log_det
