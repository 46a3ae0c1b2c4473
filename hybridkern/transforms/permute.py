"""A fixed permutation of the dimensions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from hybridkern._arguments import as_size
from hybridkern._finite import readable
from hybridkern._saved.built import Built
from hybridkern._tensors import shape_text
from hybridkern._values import transformed, unwrapped


class _Permute(torch.autograd.Function):
    # The gradient of a permutation is the opposite permutation; autograd's own rule for index_select scatters with
    # additions, one index after the other. It has no rule for forward mode, which torch.compile would refuse.
    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, opposite: Tensor) -> Tensor:
        ctx.save_for_backward(opposite)
        return x.index_select(1, order)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (opposite,) = ctx.saved_tensors
        return grad.index_select(1, opposite), None, None


_permute: Callable[[Tensor, Tensor, Tensor], Tensor] = _Permute.apply


class Permutation(Built, nn.Module):
    """Reorders dim 1 by a permutation drawn once, at construction, from torch's default generator.

    The permutation is the buffer ``order``: it is part of ``state_dict``, so a loaded model permutes as the saved
    one did. Its log-determinant is zero.

    Args:
        dim: number of dimensions.

    Raises:
        TypeError, ValueError: ``dim`` is not a positive integer.
    """

    order: Tensor
    # the values that were last seen to be a permutation: a write through .data gives no new version
    _known: Tensor | None = None

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("order", torch.randperm(as_size("dim", dim)))

    def _check(self, opposite: Tensor) -> None:
        """Averages of buffers, for one, make no permutation of several."""
        if not torch.equal(self.order[opposite], torch.arange(len(opposite))):
            raise ValueError(
                f"order: got {self.order.tolist()}, expected a permutation; averages of models must copy this buffer"
            )
        self._known = unwrapped(self.order.clone())  # the copy outlives the transform that runs

    def _is_checked(self) -> bool:
        known = self._known
        return known is not None and known.dtype is self.order.dtype and torch.equal(known, self.order)

    def forward(self, x: Tensor, *, inverse: bool = False) -> Tensor:
        """``x`` ``(B, dim, *S)`` with dim 1 reordered; ``inverse=True`` puts it back.

        Raises:
            ValueError: ``x`` has another shape, or ``order`` is no permutation.
        """
        if x.ndim < 2 or x.shape[1] != len(self.order):  # of more dimensions the last would be left out
            raise ValueError(f"x: got shape {shape_text(x.shape)}, expected (B, {len(self.order)}, *S)")
        # argsort rather than a second buffer: two buffers could be loaded or edited apart.
        opposite = torch.argsort(self.order)
        if readable(self.order) and not self._is_checked():
            self._check(opposite)
        if transformed():
            return x.index_select(1, opposite if inverse else self.order)
        return _permute(x, opposite, self.order) if inverse else _permute(x, self.order, opposite)
