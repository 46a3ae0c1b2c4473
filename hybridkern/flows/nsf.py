"""Neural spline flow on vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from hybridkern._arguments import as_flag
from hybridkern.flows._context import width_of
from hybridkern.flows.base import check_count, net_builder, with_context
from hybridkern.flows.compose import Compose
from hybridkern.flows.maf import autoregressive_layers
from hybridkern.ops.rational_quadratic_spline.form import SplineForm
from hybridkern.transforms import Coupling, LULinear
from hybridkern.transforms.elements import SplineElement


class NSF(Compose):
    """Neural spline flow: monotonic rational-quadratic splines, by couplings or autoregressive.

    The splines work on ``[-bound, bound]``; outside of it values stay as they are, so that data should be of about
    unit width. Couplings transform the two halves of the vector in turn (an odd ``dim`` gives the first half the extra
    number), autoregressive layers all numbers, every second layer in the opposite order; both directions of a coupling
    take one pass, latent -> data of an autoregressive layer ``dim`` passes. Between layers the numbers are mixed by a
    :class:`~hybridkern.transforms.LULinear`. The flow starts as the identity.

    Args:
        dim: dimensions of one example.
        layers: number of spline layers, with one network each.
        bins: bins of each spline.
        bound: half the width of the interval on which the splines work, in the units of the data.
        hidden: hidden sizes of each network; an ``int`` means two layers of it.
        autoregressive: autoregressive layers instead of couplings.
        context: width of a condition that the networks see, or a module that makes it from the condition given.
        spline: parametrization, a name or a :class:`~hybridkern.ops.SplineForm`; see
            :func:`hybridkern.ops.rational_quadratic_spline`.
        lu: mix the numbers between layers.
        activation: builds the activations of the networks, element by element.
        memory: what training keeps, see :class:`Compose`.

    Raises:
        TypeError, ValueError: an argument of the wrong type or range.

    Source: Durkan et al. 2019 (arXiv:1906.04032).

    >>> import torch
    >>> flow = NSF(3, layers=2, hidden=8)
    >>> flow.log_prob(torch.zeros(5, 3)).shape
    torch.Size([5])
    """

    def __init__(
        self,
        dim: int,
        *,
        layers: int = 5,
        bins: int = 8,
        bound: float = 5.0,
        hidden: int | Sequence[int] = (64, 64),
        autoregressive: bool = False,
        context: int | nn.Module = 0,
        spline: str | SplineForm = "nflows_identity",
        lu: bool = True,
        activation: Callable[[], nn.Module] = nn.ReLU,
        memory: str = "store",
    ) -> None:
        dim, layers = check_count("dim", dim, 1), check_count("layers", layers, 1)
        element = SplineElement(spline, bins, bound)
        if as_flag("autoregressive", autoregressive):
            made = autoregressive_layers(dim, layers, element, hidden, context, activation)
        else:
            plain = net_builder(hidden, None, activation=activation, dropout=0.0, zero_last=True)
            build = with_context(plain, width_of(context))
            made = [_coupling(dim, element, build, first=i % 2 == 1) for i in range(layers)]
        if as_flag("lu", lu) and dim > 1:
            made = [part for layer in made for part in (LULinear(dim), layer)][1:]
        super().__init__(dim, made, context=context, memory=memory)


def _coupling(dim: int, element: SplineElement, build: Callable[[int, int], nn.Module], first: bool) -> nn.Module:
    changed = dim - dim // 2 if first or dim == 1 else dim // 2
    return Coupling(build(dim - changed, changed * element.outputs), element, changed, first=first)
