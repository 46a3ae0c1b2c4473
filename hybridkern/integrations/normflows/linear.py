"""Linear layers of normflows that gain."""

from __future__ import annotations

from typing import Any

from normflows.flows import mixing
from torch import Tensor, nn

from hybridkern._autocast import has_autocast
from hybridkern.integrations import _lu
from hybridkern.integrations._layer import Accelerated, has_hooks, has_own_parts


class LULinear(_lu.LULinear, mixing._LULinear):
    """``L U x + b``."""


class LULinearPermute(Accelerated, mixing.LULinearPermute):
    """Data -> latent, the columns of the matrix are put in order and not the batch; the other way part by part."""

    REPLACEMENT = "triangles filled in one pass, and the permutation folded into their product"
    COUPLES = True

    @classmethod
    def folds(cls, layer: Any) -> tuple[nn.Module, ...]:
        """The permutation."""
        return (layer.permutation,) if type(layer.permutation) is mixing._RandomPermutation else ()

    def inverse(self, z: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        """Data -> latent, as in the library."""
        if not self._folded(z):
            done: tuple[Tensor, Tensor] = super().inverse(z, context)
            return done
        linear: Any = self.linear
        folded: tuple[Tensor, Tensor] = linear.product(z, self.permutation._inverse_permutation)
        return folded

    def _folded(self, z: Any) -> bool:
        parts = self.permutation, self.linear
        known = type(parts[0]) is mixing._RandomPermutation and type(parts[1]) is LULinear
        if not known or has_hooks(parts) or any(has_own_parts(part) for part in parts[1:]):
            return False
        cached = parts[1].using_cache and not parts[1].training
        fits = isinstance(z, Tensor) and z.ndim == 2 and z.shape[1] == len(parts[0]._permutation)
        return fits and not cached and not has_autocast(z.device)
