"""Autoregressive layers as nflows has them and normflows took them over: a network, and a map of each number.

``forward`` is one pass through the network; ``inverse`` as many as there are numbers, each on all of them.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from hybridkern.integrations._durkan import KIND, Done, kind_of, reason_left, run_spline, scale_of
from hybridkern.integrations._layer import WIDE, Accelerated, Given, fits, has_own_parts
from hybridkern.integrations._network import run_network
from hybridkern.integrations._splines import by_element
from hybridkern.ops import affine_coupling
from hybridkern.ops.affine_coupling.form import CouplingForm


class Autoregressive(Accelerated):
    """An operator on all numbers in place of the library's map of each."""

    NETWORKS = ("autoregressive_net",)
    COUPLES = True
    autoregressive_net: Any
    _elementwise_inverse: Any

    def mapped(self, x: Tensor, params: Any, inverse: bool) -> Done | None:
        """``x`` ``(B, D)`` by what the network gave, and the log-determinant; ``None`` where it does not fit."""
        raise NotImplementedError

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> Done:
        """Data -> latent, as in the library."""
        if not self._serves(inputs):
            done: Done = super().forward(inputs, context)  # type: ignore[misc]
            return done
        params = run_network(self.autoregressive_net, inputs, context, options=self._hybridkern)
        mapped = self.mapped(inputs, params, inverse=False)
        if mapped is None:
            theirs: Any = self.library_class()
            mapped = theirs.forward(Given(self, autoregressive_net=params), inputs, context)  # type: ignore[arg-type]
        return mapped

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> Done:
        """Latent -> data, as in the library, whose networks see at each pass what it makes of the one before."""
        if not self._serves(inputs):
            done: Done = super().inverse(inputs, context)  # type: ignore[misc]
            return done
        outputs, log_det = torch.zeros_like(inputs), None
        for _ in range(inputs.shape[1]):
            params = run_network(self.autoregressive_net, outputs, context, options=self._hybridkern)
            mapped = self.mapped(inputs, params, inverse=True)
            outputs, log_det = self._elementwise_inverse(inputs, params) if mapped is None else mapped
        assert log_det is not None
        return outputs, log_det

    def _serves(self, inputs: Any) -> bool:
        is_vectors = isinstance(inputs, Tensor) and inputs.ndim == 2 and inputs.dtype in WIDE and inputs.numel() > 0
        return is_vectors and not has_own_parts(self)


class AffineAutoregressive(Autoregressive):
    """``affine_coupling`` on all numbers, scale and shift by turns."""

    REPLACEMENT = "affine_coupling on all numbers"
    FORM: ClassVar[CouplingForm]
    features: int

    def mapped(self, x: Tensor, params: Any, inverse: bool) -> Done | None:
        """As :class:`Autoregressive` has it."""
        if x.shape[1] != self.features or not fits(x, params, 2 * self.features):
            return None
        return affine_coupling(x, params, form=self.FORM, inverse=inverse)


class SplineAutoregressive(Autoregressive):
    """``rational_quadratic_spline`` on all numbers."""

    REPLACEMENT = "rational_quadratic_spline on all numbers"
    CACHES = (KIND,)
    TAILS: ClassVar[tuple[str, ...]]
    num_bins: int

    @classmethod
    def obstacle(cls, layer: Any) -> str:
        """Numbers that the operator does not take."""
        return reason_left(layer, layer.num_bins, cls.TAILS)

    def mapped(self, x: Tensor, params: Any, inverse: bool) -> Done | None:
        """As :class:`Autoregressive` has it."""
        gain = scale_of(self.autoregressive_net, ("hidden_features",))
        kind = None if gain is None else kind_of(self, self.num_bins, gain, x)
        return None if kind is None else run_spline(x, by_element(x, params, kind.spline.count), kind, inverse)
