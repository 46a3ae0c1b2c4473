"""Linear layers whose matrix is a product of triangles, as nflows has them and normflows took them over."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hybridkern._autocast import has_autocast
from hybridkern.integrations._layer import Accelerated, has_own_parts

_PLACES = "_hybridkern_places"
Pair = tuple[Tensor, Tensor]


class LULinear(Accelerated):
    """The triangles filled by one call, and one product with the batch in place of two.

    The library fills them in five calls, by lists of indices that lie on the host.
    """

    REPLACEMENT = "triangles filled in one pass, and multiplied with each other before the batch"
    CACHES = (_PLACES,)
    COUPLES = True
    features: int
    bias: Tensor
    lower_entries: Tensor
    upper_entries: Tensor
    upper_diag: Tensor

    @classmethod
    def obstacle(cls, layer: Any) -> str:
        """Entries that do not go into one tensor."""
        kinds = {value.dtype for value in (layer.lower_entries, layer.upper_entries, layer.unconstrained_upper_diag)}
        return "" if len(kinds) == 1 else "its entries have different dtypes"

    def _create_lower_upper(self) -> Pair:
        """Both triangles ``(D, D)``, as in the library."""
        if has_own_parts(self):
            theirs: Pair = super()._create_lower_upper()  # type: ignore[misc]
            return theirs
        return self._filled(self.upper_diag)

    def forward_no_cache(self, inputs: Tensor) -> Pair:
        """Data -> latent, as in the library."""
        if has_own_parts(self) or has_autocast(inputs.device):
            theirs: Pair = super().forward_no_cache(inputs)  # type: ignore[misc]
            return theirs
        return self.product(inputs, None)

    def inverse_no_cache(self, inputs: Tensor) -> Pair:
        """Latent -> data, as in the library, by solutions that take the batch as it lies."""
        if has_own_parts(self) or has_autocast(inputs.device) or inputs.ndim != 2:
            theirs: Pair = super().inverse_no_cache(inputs)  # type: ignore[misc]
            return theirs
        diagonal = self.upper_diag
        lower, upper = self._filled(diagonal)
        solve = torch.linalg.solve_triangular
        half = solve(lower.T, inputs - self.bias, upper=True, left=False, unitriangular=True)  # row by row x (L U)^T
        outputs = solve(upper.T, half, upper=False, left=False)
        return outputs, (-diagonal.log().sum()).expand(inputs.shape[0]).clone()

    def product(self, inputs: Tensor, columns: Tensor | None) -> Pair:
        """``L U x + b``, the columns of ``L U`` in the order ``columns`` ``(D,)``, and the log-determinant ``(B,)``."""
        diagonal = self.upper_diag
        lower, upper = self._filled(diagonal)
        matrix = lower @ upper
        if columns is not None:
            matrix = matrix.index_select(1, columns)
        return F.linear(inputs, matrix, self.bias), diagonal.log().sum().expand(inputs.shape[0]).clone()

    def _filled(self, diagonal: Tensor) -> Pair:
        start, places = self._places(diagonal)
        # out of place, with a backward pass that is one gather
        both = start.scatter(0, places, torch.cat([self.lower_entries, self.upper_entries, diagonal]))
        lower, upper = both.view(2, self.features, self.features)
        return lower, upper

    def _places(self, like: Tensor) -> Pair:
        """Both matrices, one after the other, without their entries; and where these lie."""
        if torch.compiler.is_compiling():
            return _places(self.features, like)
        found: Pair | None = self.__dict__.get(_PLACES)
        if found is None or found[0].device != like.device or found[0].dtype is not like.dtype:
            with torch.inference_mode(False):  # it is kept, for training too
                found = self.__dict__[_PLACES] = _places(self.features, like)
        return found


def _places(size: int, like: Tensor) -> Pair:
    device = like.device
    below = torch.tril_indices(size, size, -1, device=device)
    above = torch.triu_indices(size, size, 1, device=device)
    diagonal = torch.arange(size, device=device) * (size + 1)
    upper = size * size
    start = torch.cat([torch.eye(size, device=device, dtype=like.dtype), like.new_zeros(size, size)]).view(-1)
    return start, torch.cat([below[0] * size + below[1], upper + above[0] * size + above[1], upper + diagonal])
