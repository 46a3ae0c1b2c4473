"""Integer discrete flow on vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from hybridkern.distributions import DiscretizedLogistic, DiscretizedLogisticMixture
from hybridkern.flows.base import Flow, NetBuilder, check_count, integers_as, net_builder
from hybridkern.nets import Scaled
from hybridkern.ops._check import total_dtype
from hybridkern.transforms import RoundingCoupling
from hybridkern.transforms.lattice import Lattice

PRIORS = ("logistic", "mixture")


def _prior(dim: int, prior: str, components: int) -> DiscretizedLogistic | DiscretizedLogisticMixture:
    if prior not in PRIORS:
        raise ValueError(f"prior: got {prior!r}, expected 'logistic' or 'mixture'")
    return DiscretizedLogistic(dim) if prior == "logistic" else DiscretizedLogisticMixture(dim, components)


def _scaled(build: NetBuilder, center: float, scale: float) -> NetBuilder:
    return lambda in_features, out_features: Scaled(build(in_features, out_features), center, scale)


class IDF(Flow):
    """Integer discrete flow: a learnt bijection of the integers under a learnt discretized prior.

    Every layer permutes the dimensions (a fixed random permutation, kept in ``state_dict``) and then updates each of
    the ``parts`` in turn from all the others by rounded translations. With its own networks an exact flow starts as
    a permutation (their last layer is zero).

    On the ``"exact"`` lattice integers stay integers, ``log_prob`` is a log-probability that sums to 1 over the
    integers, and ``inverse(forward(x))`` is ``x`` to the last bit in evaluation mode or without gradients, whatever
    the batch size; :mod:`hybridkern.transforms.lattice` says how. On the ``"tutorial"`` lattice,
    ``x + beta * round(t)``, latents leave the integers once ``beta`` is learnt: unit intervals around them overlap
    or leave gaps, so their masses no longer sum to 1 over the data and ``log_prob`` is not a log-likelihood. It is
    there for comparison.

    Args:
        dim: dimensions of one example.
        layers: number of layers, each with one network a part.
        parts: number of parts, from 2 to ``dim``; sizes differ by at most one.
        hidden: hidden sizes of each network; an ``int`` means two layers of it.
        lattice: ``"exact"`` or ``"tutorial"``.
        prior: ``"logistic"``, or ``"mixture"`` of ``components`` logistics a dimension.
        components: number of logistics of the mixture.
        net: builds a network instead, ``net(in_features, out_features)``; its own initialization is kept. It must
            run in float64 as well and be deterministic in evaluation mode.
        activation: builds the activations of the networks.
        dropout: dropout probability in the networks; training mode only, which is then not invertible.
        center, scale: networks, given ones too, see ``(x - center) / scale`` and return translations in units of
            ``scale``. Middle and half range of the data bring both to order 1, where networks learn faster. They are
            part of the model, not of ``state_dict``.

    Raises:
        TypeError, ValueError: an argument of the wrong type or range, or an unknown name.

    Source: Hoogeboom et al. 2019 (arXiv:1905.07376), sections 3 and 4; the update of the parts: Tomczak 2020
    (arXiv:2011.15056).

    >>> import torch
    >>> flow = IDF(4, layers=2, hidden=8).eval()
    >>> x = torch.tensor([[0, 3, 7, 16]])
    >>> z, _ = flow(x)
    >>> flow.inverse(z)[0].long().tolist()
    [[0, 3, 7, 16]]
    """

    def __init__(
        self,
        dim: int,
        *,
        layers: int = 8,
        parts: int = 4,
        hidden: int | Sequence[int] = 256,
        lattice: str = "exact",
        prior: str = "logistic",
        components: int = 5,
        net: NetBuilder | None = None,
        activation: Callable[[], nn.Module] = nn.LeakyReLU,
        dropout: float = 0.0,
        center: float = 0.0,
        scale: float = 1.0,
    ) -> None:
        super().__init__(check_count("dim", dim, 2), _prior(dim, prior, components))
        self.base: DiscretizedLogistic | DiscretizedLogisticMixture
        check_count("layers", layers, 1)
        if check_count("parts", parts, 2) > dim:
            raise ValueError(f"parts: got {parts}, expected at most dim = {dim}")
        self.lattice = lattice
        self._lattice = Lattice(lattice)
        self.discrete = lattice == "exact"
        # beta * round(t) with beta = 0 and t = 0 would have no gradient at all: only the exact lattice starts at 0
        build = net_builder(hidden, net, activation=activation, dropout=dropout, zero_last=self.discrete)
        if (center, scale) != (0.0, 1.0):
            build = _scaled(build, center, scale)
        sizes = [dim // parts + (i < dim % parts) for i in range(parts)]
        self.couplings = nn.ModuleList(RoundingCoupling(sizes, build, lattice=lattice) for _ in range(layers))

    @torch.no_grad()
    def initialize(self, x: Tensor) -> None:
        """Starts the prior from the latents of ``x``, as its own ``initialize`` describes; draws no random numbers.

        Args:
            x: a sample of the data, ``(N, dim)`` with ``N >= 1``, as :meth:`forward` takes it.

        Raises:
            TypeError, ValueError: what :meth:`forward` raises, or no rows.
        """
        training = self.training
        self.eval()
        try:
            self.base.initialize(self(x)[0])
        finally:
            self.train(training)

    def _run(self, name: str, x: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        x = integers_as(name, x, self.dim, self.base.dtype)
        y = self._lattice.run(partial(self._transform, inverse), name, x, self.training)
        return y, x.new_zeros(x.shape[0], dtype=total_dtype(x))

    def _transform(self, inverse: bool, x: Tensor, exact: bool) -> Tensor:
        order = range(len(self.couplings))
        for i in reversed(order) if inverse else order:
            x = self.couplings[i](x, inverse=inverse, exact=exact)
        return x

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Data -> latent.

        Args:
            x: integers ``(B, dim)``, in the dtype of the parameters or any integer dtype.

        Returns:
            Latents ``(B, dim)`` in the dtype of the parameters, integers on the exact lattice, and the
            log-determinant, ``(B,)`` zeros.

        Raises:
            TypeError: another type or dtype.
            ValueError: another shape; on the exact lattice also a value that is no integer, or data or latents of
                magnitude 2**24 and more in float32 (checked on every batch but those of training after the first,
                and not in compiled graphs).
        """
        return self._run("x", x, inverse=False)

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Latent -> data; arguments, results and errors as for :meth:`forward`."""
        return self._run("z", z, inverse=True)
