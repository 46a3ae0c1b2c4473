"""Integer coupling as a layer: the parts of a vector are shifted in turn, each by integers computed from the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from hybridkern import ops
from hybridkern._arguments import as_builder, as_name, as_sizes, built
from hybridkern.nets.prediction import start_at_shift
from hybridkern.transforms.lattice import LATTICES, evaluate
from hybridkern.transforms.permute import Permutation


def shift(x: Tensor, t: Tensor, beta: Tensor | None, lattice: str, inverse: bool) -> Tensor:
    """``x`` shifted by the rounded translation ``t`` (back, for ``inverse``), with the straight-through gradient.

    ``"exact"``: ``x + round(beta t)``, which keeps integers integers. ``"tutorial"``: ``x + beta round(t)``, which
    does not as soon as ``beta`` is not an integer; ``beta`` must be given.
    """
    if lattice == "exact":
        return ops.rounding_coupling(x, t, beta=beta, inverse=inverse)
    assert beta is not None
    step = ops.rounding_coupling(torch.zeros_like(x), t)
    return torch.addcmul(x, step, beta, value=-1 if inverse else 1)


def update_part(
    parts: list[Tensor],
    index: int,
    net: nn.Module,
    beta: Tensor | None,
    *,
    lattice: str,
    inverse: bool,
    exact: bool,
    mirrored: bool = False,
    seen: Tensor | None = None,
) -> None:
    """Replace ``parts[index]`` by its shift, computed by ``net`` from all the other parts.

    Args:
        parts: ``(B, D_i, *S)`` each; the list is changed, no tensor is.
        index: the part to update.
        net: maps the other parts, joined in their order, ``(B, D - D_index, *S)``, to
            ``(B, D_index, *S)``.
        beta: factor of the translation, one element, or ``None`` for 1.
        lattice: see :func:`shift`.
        inverse: undo the update.
        exact: evaluate the network in float64, see :mod:`hybridkern.transforms.lattice`.
        mirrored: the network sees, and returns, the dimensions in the opposite order.
        seen: a condition ``(B, c)`` that the network sees beside them, or ``None``.

    Source: Tomczak 2020 (arXiv:2011.15056), the general invertible transformation; with two parts of which one is
    updated it is the coupling of Hoogeboom et al. 2019 (arXiv:1905.07376), section 3.
    """
    others = parts[:index] + parts[index + 1 :] + ([] if seen is None else [seen.to(parts[index].dtype)])
    others = others or [parts[index][:, :0]]  # of a single dimension, nothing
    kept = others[0] if len(others) == 1 else torch.cat(others, 1)
    if mirrored:
        kept = kept.flip(1)
    t = evaluate(net, kept) if exact else net(kept)
    parts[index] = shift(parts[index], t.flip(1) if mirrored else t, beta, lattice, inverse)


class RoundingCoupling(nn.Module):
    """One layer of an integer flow: permute the dimensions, then update every part in turn from all the others.

    Permuting first lets dimensions that shared a part, and so could not depend on each other, meet in the next layer.

    Args:
        sizes: dimensions of each part; at least two parts, or a single dimension.
        net: builds a network: ``net(in_features, out_features)``, called once per part.
        lattice: ``"exact"``: ``x + round(t)``; ``"tutorial"``: ``x + beta * round(t)`` with ``beta`` learnt from 0.

    Raises:
        TypeError, ValueError: an argument of the wrong type or range.

    Source: Tomczak 2020 (arXiv:2011.15056), the general invertible transformation.
    """

    beta: Tensor | None

    def __init__(self, sizes: Sequence[int], net: Callable[[int, int], nn.Module], *, lattice: str = "exact") -> None:
        super().__init__()
        self.sizes = as_sizes("sizes", sizes)
        if len(self.sizes) < 2 and self.sizes != (1,):
            raise ValueError(f"sizes: got {self.sizes}, expected at least two parts")
        self.lattice = as_name("lattice", lattice, LATTICES)
        as_builder("net", net, "a callable (in_features, out_features) -> nn.Module")
        dim = sum(self.sizes)
        self.permutation = Permutation(dim)
        self.nets = nn.ModuleList(built("net", net(dim - size, size)) for size in self.sizes)
        self.register_parameter("beta", nn.Parameter(torch.zeros(())) if lattice == "tutorial" else None)

    def forward(self, x: Tensor, *, inverse: bool = False, exact: bool = False, seen: Tensor | None = None) -> Tensor:
        """Data -> latent, or back.

        Args:
            x: ``(B, D)``, or images ``(B, D, H, W)``, whose channels are permuted and updated.
            inverse: undo the layer.
            exact: evaluate the networks in float64; ``x`` is float64 then.
            seen: a condition ``(B, c)`` that all networks see beside the other parts, or ``None``.

        Returns:
            Like ``x``. The log-determinant is zero: integers are only moved about.
        """
        parts = list((x if inverse else self.permutation(x)).split(self.sizes, 1))
        order = range(len(parts))
        for index in reversed(order) if inverse else order:
            net = self.nets[index]
            update_part(parts, index, net, self.beta, lattice=self.lattice, inverse=inverse, exact=exact, seen=seen)
        y = torch.cat(parts, 1)
        return self.permutation(y, inverse=True) if inverse else y

    def initialize(self, x: Tensor, predicted: Tensor) -> None:
        """Starts the networks for images as those of :class:`~hybridkern.transforms.QuarterCoupling`, in turn.

        Args:
            x: what the layer sees, ``(N, D, H, W)``.
            predicted: the channels of its result that may be predicted.
        """
        parts = list(self.permutation(x).split(self.sizes, 1))
        numbers = torch.arange(len(self.permutation.order), device=x.device).split(self.sizes)
        for index, net in enumerate(self.nets):
            others = torch.cat(parts[:index] + parts[index + 1 :], 1)
            start_at_shift(net, others, parts[index], numbers[index], predicted, None)
            update_part(parts, index, net, None, lattice="exact", inverse=False, exact=False)


class RoundingCouplings(nn.ModuleList):
    """``layers`` of :class:`RoundingCoupling` in a row, with its arguments and its ``forward``."""

    def __init__(
        self, sizes: Sequence[int], layers: int, net: Callable[[int, int], nn.Module], *, lattice: str = "exact"
    ) -> None:
        super().__init__(RoundingCoupling(sizes, net, lattice=lattice) for _ in range(layers))

    def forward(self, x: Tensor, exact: bool = False, *, inverse: bool = False, seen: Tensor | None = None) -> Tensor:
        """Data -> latent, or back."""
        for coupling in reversed(self) if inverse else self:
            x = coupling(x, inverse=inverse, exact=exact, seen=seen)
        return x
