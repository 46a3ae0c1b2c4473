"""Couplings of nflows: ``forward`` is data -> latent; a mask says which features are transformed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from nflows.transforms import coupling
from torch import Tensor

from hybridkern.integrations._layer import WIDE, Accelerated, Given, fits, has_own_parts
from hybridkern.integrations._network import run_network
from hybridkern.integrations._reads import READS, readable
from hybridkern.integrations.nflows._features import Arrangement, Lying, arrange, joined, parts, whole
from hybridkern.ops import affine_coupling
from hybridkern.ops.affine_coupling.form import CouplingForm, resolve_form

_ARRANGEMENT = "_hybridkern_arrangement"


class MaskedCoupling(Accelerated):
    """``affine_coupling`` on the features that the mask names."""

    REPLACEMENT = "affine_coupling; features by slices or one gather"
    NETWORKS = ("transform_net",)
    CACHES = (_ARRANGEMENT, READS)
    COUPLES = True
    FORM: ClassVar[CouplingForm]
    features: int
    identity_features: Tensor
    transform_features: Tensor
    transform_net: Any
    unconditional_transform: Any

    @classmethod
    def obstacle(cls, layer: Any) -> str:
        """A scale map of the user's own, which later versions of the library take."""
        return "a scale map of its own" if hasattr(layer, "scale_activation") else ""

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Data -> latent, as in the library."""
        done = self.on_parts(inputs, context, inverse=False)
        return super().forward(inputs, context) if done is None else (whole(done[0]), done[1])  # type: ignore[misc]

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Latent -> data, as in the library."""
        done = self.on_parts(inputs, context, inverse=True)
        return super().inverse(inputs, context) if done is None else (whole(done[0]), done[1])  # type: ignore[misc]

    def on_parts(self, x: Tensor | Lying, context: Tensor | None, inverse: bool) -> tuple[Tensor | Lying, Any] | None:
        """The features transformed, and the log-determinant; ``None`` where the operator does not fit."""
        if not isinstance(x, Lying) and (x.dim() not in (2, 4) or x.shape[1] != self.features or x.numel() == 0):
            return None  # the library says what is wrong
        if has_own_parts(self):
            return None
        arrangement = self._arrangement()
        kept, changed = parts(x, arrangement)
        if changed.dtype not in WIDE or kept.shape[1] + changed.shape[1] != self.features:
            return None
        kept = readable(self, self.transform_net, kept)
        log_det: Any = 0.0
        other = self.unconditional_transform
        if other is not None and inverse:
            kept, log_det = other.inverse(kept, context)
        by_turns = kept.ndim == 2 and kept.stride(1) != 1  # a product of matrices copies them, slowly
        given = kept.contiguous() if by_turns else kept
        params = run_network(self.transform_net, given, context, options=self._hybridkern)
        if not fits(changed, params, 2 * changed.shape[1] if self.FORM.has_scale else changed.shape[1]):
            x = whole(joined(kept, changed, arrangement))  # a network may have written into what it was given
            return self._by_library(x, context, inverse, params, (kept, log_det))
        changed, own = affine_coupling(changed, params, form=self.FORM, inverse=inverse)
        if other is not None and not inverse:
            kept, more = other(kept, context)
            own += more
        elif other is not None:
            log_det += own
            own = log_det
        return joined(kept, changed, arrangement), own

    def _by_library(
        self, x: Tensor, context: Tensor | None, inverse: bool, params: object, undone: tuple[Tensor, Any]
    ) -> tuple[Tensor, Any]:
        """What the library makes of the output of the network, and of what came before it."""
        given: Any = Given(self, transform_net=params)  # type: ignore[arg-type]
        if self.unconditional_transform is None:
            given.unconditional_transform = None
        elif inverse:
            given.unconditional_transform = SimpleNamespace(inverse=lambda *_: undone)
        run = coupling.CouplingTransform.inverse if inverse else coupling.CouplingTransform.forward
        return run(given, x, context)

    def _arrangement(self) -> Arrangement:
        kept, changed = self.identity_features, self.transform_features
        if torch.compiler.is_compiling():
            return arrange(kept, changed)
        found: Arrangement | None = self.__dict__.get(_ARRANGEMENT)
        if found is None or not found.holds(kept, changed):
            found = self.__dict__[_ARRANGEMENT] = arrange(kept, changed)
        return found


class AffineCouplingTransform(MaskedCoupling, coupling.AffineCouplingTransform):
    """``x*s + t`` with ``s = sigma(a + 2) + 1e-3``."""

    FORM = resolve_form("nflows")


class AdditiveCouplingTransform(MaskedCoupling, coupling.AdditiveCouplingTransform):
    """``x + t``."""

    FORM = resolve_form("additive")
