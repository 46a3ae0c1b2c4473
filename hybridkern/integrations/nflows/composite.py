"""Sequences of nflows: features stay apart from coupling to coupling."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import zip_longest
from typing import Any

import torch
from nflows.transforms import base, permutations
from torch import Tensor

from hybridkern._autocast import has_autocast
from hybridkern.integrations._features import Lying, whole
from hybridkern.integrations._layer import Accelerated, has_hooks, has_own_parts
from hybridkern.integrations._masked_coupling import MaskedCoupling
from hybridkern.integrations._seen import Seen
from hybridkern.integrations.nflows.linear import LULinear

_REVERSALS = "_hybridkern_reversals"


class CompositeTransform(Accelerated, base.CompositeTransform):
    """Joins what a coupling gives only where the next layer needs it joined; permutes matrices instead of batches."""

    REPLACEMENT = "features stay split between couplings, permutations are folded into the next linear layer"
    CACHES = (_REVERSALS,)

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Data -> latent, as in the library."""
        if has_own_parts(self):
            return super().forward(inputs, context)
        return _run(self, self._transforms, inputs, context, inverse=False)

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Latent -> data, as in the library."""
        if has_own_parts(self):
            return super().inverse(inputs, context)
        return _run(self, reversed(self._transforms), inputs, context, inverse=True)


_PERMUTATIONS = (permutations.Permutation, permutations.RandomPermutation, permutations.ReversePermutation)
_METHODS = frozenset({"_permute", "_inverse_permutation"})


def _run(
    owner: CompositeTransform, transforms: Iterable[Any], inputs: Tensor, context: Tensor | None, inverse: bool
) -> tuple[Tensor, Tensor]:
    x: Tensor | Lying = inputs
    log_det = inputs.new_zeros(len(inputs))
    layers, skip = list(transforms), False
    for transform, following in zip_longest(layers, layers[1:]):
        if skip:
            skip = False
            continue
        done: tuple[Tensor | Lying, Any] | None = None if inverse else _folded(transform, following, x)
        skip = done is not None
        turned = _turned(owner, transform, x) if done is None else None
        if turned is not None:  # its log-determinant is 0
            x = turned
            continue
        if isinstance(transform, MaskedCoupling) and not has_hooks((transform,)):  # type: ignore[arg-type]
            done = transform.on_parts(x, context, inverse)
        if done is None:
            x = whole(x)
            done = transform.inverse(x, context) if inverse else transform(x, context)
        x, own = done
        log_det += own  # in place as in the library: ``own`` may be one number, and the sum keeps its dtype
    return whole(x), log_det


def _turned(owner: CompositeTransform, order: Any, x: Tensor | Lying) -> Tensor | None:
    """``x`` in reverse order, where that is what a permutation does: its gradient is a reversal, and no sum."""
    if type(order) not in _PERMUTATIONS or order._dim != 1 or not _METHODS.isdisjoint(order.__dict__):
        return None
    permutation = order._permutation
    if not permutation.is_cpu or has_hooks((order,)) or torch.compiler.is_compiling():
        return None
    if not _is_reversal(owner, permutation):
        return None
    x = whole(x)
    return x.flip(1) if x.ndim == 2 and x.shape[1] == len(permutation) else None


def _is_reversal(owner: CompositeTransform, permutation: Tensor) -> bool:
    """Whether it is that of all features, as it is now: loading a state dict writes into it."""
    known: dict[int, tuple[Seen, bool]] = owner.__dict__.setdefault(_REVERSALS, {})
    found = known.get(id(permutation))
    if found is None or not found[0].holds((permutation,)):
        is_one = permutation.tolist() == list(range(len(permutation) - 1, -1, -1))
        found = known[id(permutation)] = (Seen((permutation,)), is_one)
    return found[1]


def _folded(order: Any, linear: Any, x: Tensor | Lying) -> tuple[Tensor, Any] | None:
    """A permutation and the linear layer after it: the columns of the matrix are put in order, and not the batch."""
    if type(linear) is not LULinear or type(order) not in _PERMUTATIONS or has_hooks((order, linear)):
        return None
    features = len(order._permutation)
    if order._dim != 1 or linear.features != features or not _METHODS.isdisjoint(order.__dict__):
        return None
    if isinstance(x, Tensor) and (x.ndim != 2 or x.shape[1] != features):
        return None
    x = whole(x)
    cached = linear.using_cache and not linear.training
    if x.ndim != 2 or x.shape[1] != features or cached or has_own_parts(linear) or has_autocast(x.device):
        return None
    done: tuple[Tensor, Any] = linear.product(x, order._inverse_permutation)
    return done
