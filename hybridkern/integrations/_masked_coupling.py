"""Couplings whose mask says which features are transformed, as nflows has them and normflows took them over.

``forward`` is data -> latent. A network gets the features that stay; an unconditional transform may map those too.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from torch import Tensor

from hybridkern.integrations._durkan import KIND, kind_of, reason_left, run_spline, scale_of, warn_unscaled
from hybridkern.integrations._features import Arrangement, Lying, arrange, joined, parts, whole
from hybridkern.integrations._layer import WIDE, Accelerated, Given, has_own_parts
from hybridkern.integrations._network import run_network
from hybridkern.integrations._reads import readable
from hybridkern.integrations._splines import by_element

_ARRANGEMENT = "_hybridkern_arrangement"
Done = tuple[Tensor, Tensor]


class MaskedCoupling(Accelerated):
    """An operator on the features that the mask names."""

    NETWORKS = ("transform_net",)
    CACHES: ClassVar[tuple[str, ...]] = (_ARRANGEMENT,)
    COUPLES = True
    features: int
    identity_features: Tensor
    transform_features: Tensor
    transform_net: Any
    unconditional_transform: Any

    def coupled(self, x: Tensor, params: Any, inverse: bool) -> Done | None:
        """``x`` transformed by what the network gave, and the log-determinant; ``None`` where it does not fit."""
        raise NotImplementedError

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
        kept = readable(self.transform_net, kept)
        log_det: Any = 0.0
        other = self.unconditional_transform
        if other is not None and inverse:
            kept, log_det = other.inverse(kept, context)
        by_turns = kept.ndim == 2 and kept.stride(1) != 1  # a product of matrices copies them, slowly
        given = kept.contiguous() if by_turns else kept
        params = run_network(self.transform_net, given, context, options=self._hybridkern)
        done = self.coupled(changed, params, inverse)
        if done is None:
            x = whole(joined(kept, changed, arrangement))  # a network may have written into what it was given
            return self._by_library(x, context, inverse, params, (kept, log_det))
        changed, own = done
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
        theirs: Any = self.library_class()
        done: tuple[Tensor, Any] = (theirs.inverse if inverse else theirs.forward)(given, x, context)
        return done

    def _arrangement(self) -> Arrangement:
        kept, changed = self.identity_features, self.transform_features
        if torch.compiler.is_compiling():
            return arrange(kept, changed)
        found: Arrangement | None = self.__dict__.get(_ARRANGEMENT)
        if found is None or not found.holds(kept, changed):
            found = self.__dict__[_ARRANGEMENT] = arrange(kept, changed)
        return found


class SplineCoupling(MaskedCoupling):
    """``rational_quadratic_spline`` on the features that the mask names."""

    REPLACEMENT = "rational_quadratic_spline; features by slices or one gather"
    CACHES = (*MaskedCoupling.CACHES, KIND)
    TAILS: ClassVar[tuple[str, ...]]
    num_bins: int

    @classmethod
    def obstacle(cls, layer: Any) -> str:
        """Numbers that the operator does not take."""
        return reason_left(layer, layer.num_bins, cls.TAILS)

    def coupled(self, x: Tensor, params: Any, inverse: bool) -> Done | None:
        """As :class:`MaskedCoupling` has it."""
        gain = scale_of(self.transform_net)
        kind = None if gain is None or not x.numel() else kind_of(self, self.num_bins, gain, x)
        done = None if kind is None else run_spline(x, by_element(x, params, kind.spline.raw), kind, inverse)
        if done is not None:
            warn_unscaled(self.transform_net)
        return done
