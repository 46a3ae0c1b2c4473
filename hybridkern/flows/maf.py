"""Masked and inverse autoregressive flows on vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from hybridkern.flows._context import width_of
from hybridkern.flows.base import check_count, widths_of
from hybridkern.flows.compose import Compose
from hybridkern.nets import MADE
from hybridkern.ops.affine_coupling.form import CouplingForm
from hybridkern.transforms import Autoregressive
from hybridkern.transforms.elements import AffineElement, Element


def autoregressive_layers(
    dim: int,
    layers: int,
    element: Element,
    hidden: int | Sequence[int],
    context: int | nn.Module,
    activation: Callable[[], nn.Module],
    inverted: bool = False,
) -> list[nn.Module]:
    """``layers`` of :class:`~hybridkern.transforms.Autoregressive`, every second one in the opposite order."""
    orders = (range(dim), range(dim)[::-1])
    return [
        Autoregressive(
            MADE(
                dim,
                element.outputs,
                widths_of(hidden),
                context=width_of(context),
                order=orders[i % 2],
                activation=activation,
                zero_last=True,
            ),
            element,
            inverted=inverted,
        )
        for i in range(layers)
    ]


class MAF(Compose):
    """Masked autoregressive flow: every number is scaled and shifted by what a network computes from those before it.

    Data -> latent, and so ``log_prob``, takes one pass through each network. **Latent -> data takes ``dim`` passes**
    through the layer, one after the other, each of which computes what the next number needs and nothing else;
    :class:`IAF` is the other way round. Every second layer takes the numbers in the opposite order. The flow starts
    as the identity of its form.

    Args:
        dim: dimensions of one example.
        layers: number of layers, with one :class:`~hybridkern.nets.MADE` each.
        hidden: hidden sizes of each network; an ``int`` means two layers of it.
        context: width of a condition that the networks see, or a module that makes it from the condition given.
        form: affine form, a name or a :class:`~hybridkern.ops.CouplingForm`; its layout does not count.
        activation: builds the activations of the networks, element by element.
        memory: what training keeps, see :class:`Compose`; ``"invert"`` takes ``dim`` passes per layer.

    Raises:
        TypeError, ValueError: an argument of the wrong type or range.

    Source: Papamakarios et al. 2017 (arXiv:1705.07057).

    >>> import torch
    >>> flow = MAF(3, layers=2, hidden=8, context=2)
    >>> flow.log_prob(torch.zeros(5, 3), torch.zeros(5, 2)).shape
    torch.Size([5])
    >>> flow.sample(4, torch.zeros(5, 2)).shape
    torch.Size([5, 4, 3])
    """

    _inverted = False

    def __init__(
        self,
        dim: int,
        *,
        layers: int = 5,
        hidden: int | Sequence[int] = (64, 64),
        context: int | nn.Module = 0,
        form: str | CouplingForm = "realnvp",
        activation: Callable[[], nn.Module] = nn.ReLU,
        memory: str = "store",
    ) -> None:
        dim, layers = check_count("dim", dim, 1), check_count("layers", layers, 1)
        element = AffineElement(form)
        made = autoregressive_layers(dim, layers, element, hidden, context, activation, self._inverted)
        super().__init__(dim, made, context=context, memory=memory)


class IAF(MAF):
    """Inverse autoregressive flow: :class:`MAF` the other way round, with its arguments.

    Latent -> data, and so ``sample_and_log_prob``, takes one pass through each network; data -> latent, and so
    ``log_prob`` and training by maximum likelihood, ``dim`` passes.

    Source: Kingma et al. 2016 (arXiv:1606.04934).
    """

    _inverted = True
