"""Splines whose parameters are the layer's own, shared by the batch."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from hybridkern.integrations._durkan import KIND, Done, kind_of, reason_left, run_spline
from hybridkern.integrations._layer import WIDE, Accelerated, has_own_parts


class SharedSpline(Accelerated):
    """``rational_quadratic_spline`` with one set of parameters for the batch."""

    REPLACEMENT = "rational_quadratic_spline with parameters shared by the batch"
    CACHES = (KIND,)
    COUPLES = True
    TAILS: ClassVar[tuple[str, ...]]
    unnormalized_widths: Tensor
    unnormalized_heights: Tensor
    unnormalized_derivatives: Tensor

    @classmethod
    def obstacle(cls, layer: Any) -> str:
        """Numbers that the operator does not take."""
        return reason_left(layer, layer.unnormalized_widths.shape[-1], cls.TAILS)

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> Done:
        """Data -> latent, as in the library."""
        done = self._shared(inputs, inverse=False)
        return super().forward(inputs, context) if done is None else done  # type: ignore[misc]

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> Done:
        """Latent -> data, as in the library."""
        done = self._shared(inputs, inverse=True)
        return super().inverse(inputs, context) if done is None else done  # type: ignore[misc]

    def _shared(self, inputs: Any, inverse: bool) -> Done | None:
        """``None`` where the operator does not fit."""
        if not isinstance(inputs, Tensor) or inputs.ndim < 2 or not inputs.numel() or has_own_parts(self):
            return None
        given = self.unnormalized_widths, self.unnormalized_heights, self.unnormalized_derivatives
        widths, heights, derivatives = given
        if inputs.dtype not in WIDE or any(value.dtype is not inputs.dtype for value in given):
            return None
        if widths.shape[:-1] != inputs.shape[1:] or widths.shape != heights.shape:
            return None
        x, bins = inputs.flatten(1), widths.shape[-1]
        kind = kind_of(self, bins, 1.0, x if inputs.ndim == 2 else inputs)
        if kind is None or derivatives.shape != (*widths.shape[:-1], kind.spline.raw - 2 * bins):
            return None
        done = run_spline(x, torch.cat(given, -1).view(1, x.shape[1], kind.spline.raw), kind, inverse)
        return None if done is None else (done[0].view(inputs.shape), done[1])
