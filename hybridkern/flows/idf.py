"""Integer discrete flow on vectors and on images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from hybridkern._arguments import as_name, as_size, is_sizes, short
from hybridkern._modes import evaluating
from hybridkern._tensors import total_dtype
from hybridkern.distributions import DiscretizedLogistic, DiscretizedLogisticMixture
from hybridkern.flows._integer_levels import IntegerLevels
from hybridkern.flows._multi_scale_prior import MultiScalePrior
from hybridkern.flows.base import (
    Context,
    Flow,
    NetBuilder,
    check_count,
    check_shape,
    image_net_builder,
    integers_as,
    net_builder,
    no_context,
    with_context,
)
from hybridkern.nets import Scaled, as_center_and_scale
from hybridkern.transforms.lattice import LATTICES, Lattice, check_integers, evaluate
from hybridkern.transforms.rounding_coupling import RoundingCouplings

PRIORS = ("logistic", "mixture")
COUPLINGS = ("parts", "quarter")


def _prior(dim: int, prior: str, components: int) -> DiscretizedLogistic | DiscretizedLogisticMixture:
    as_name("prior", prior, PRIORS)
    components = as_size("components", components)
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

    Given a shape ``(C, H, W)``, it is the multi-scale flow for images: on each level 2x2 pixels turned into channels,
    layers that permute and update the channels, half of the channels factored out. Networks are
    :class:`~hybridkern.nets.ConvNet`. Latents are ``(B, D)``, level by level, and those of all levels but the
    coarsest have a prior whose parameters a network computes from the coarser latents, whose influence starts at zero.

    Args:
        dim: dimensions of one example, or the shape ``(C, H, W)`` of an image, ``H`` and ``W`` divisible by
            ``2**levels``.
        layers: number of layers (for images: on each level), each with one network per part.
        parts: number of parts, from 2 to ``dim`` (for images: to ``4 C``, the channels of the first level); sizes
            differ by at most one. A single dimension is one part.
        hidden: hidden sizes of each network; an ``int`` means two layers of it (for images: one number).
        lattice: ``"exact"``, or ``"tutorial"``, which is for vectors.
        prior: ``"logistic"``, or ``"mixture"`` of ``components`` logistics per dimension.
        components: number of logistics of the mixture.
        net: builds a network instead, ``net(in_features, out_features)``; its own initialization is kept. It must
            run in float64 as well and be deterministic in evaluation mode. For images also a name: ``"conv"`` (the
            default), ``"resnet"``, ``"densenet"`` or ``"groupnorm-swish"``, a DenseNet with these.
        activation: builds the activations of the networks; for images give ``net``.
        dropout: dropout probability in the networks; training mode only, which is then not invertible. For images
            give ``net``.
        center, scale: networks, given ones too, see ``(x - center) / scale`` and return translations in units of
            ``scale``. Middle and half range of the data bring both to order 1, where networks learn faster. They are
            part of the model, not of ``state_dict``.
        levels: number of levels, for images.
        coupling: ``"parts"``, or for images ``"quarter"``, that of IDF++: a layer has one network, which updates a
            quarter of the channels with a learnt factor before the rounding, and its permutation is undone
            (:class:`~hybridkern.transforms.QuarterCoupling`). ``parts`` has no meaning then.
        slices: of the channels that leave a level, for images: each is coded given those after it, and the coarser
            levels. More make the prior stronger and decoding slower.
        shape: another name for ``dim`` where it is the shape of an image; one of the two must be given.
        context: width of a condition that the networks see as it is, or a module that makes it from the condition
            given; for vectors. That module too must run in float64 and be deterministic in evaluation mode.

    Raises:
        TypeError, ValueError: an argument of the wrong type or range, or an unknown name.

    Source: Hoogeboom et al. 2019 (arXiv:1905.07376), sections 3 and 4 (for images its conditional prior sees the
    coarser latents instead of the half they come from, so that ``base`` is a distribution by itself); the update of
    the parts: Tomczak 2020 (arXiv:2011.15056); the coupling of a quarter: van den Berg et al. 2021 (arXiv:2006.12459).

    >>> import torch
    >>> flow = IDF(4, layers=2, hidden=8).eval()
    >>> x = torch.tensor([[0, 3, 7, 16]])
    >>> z, _ = flow(x)
    >>> flow.inverse(z)[0].long().tolist()
    [[0, 3, 7, 16]]
    >>> IDF((1, 8, 8), layers=1, hidden=8).sample(4).shape
    torch.Size([4, 1, 8, 8])
    """

    def __init__(
        self,
        dim: int | Sequence[int] | None = None,
        *,
        layers: int = 8,
        parts: int = 4,
        hidden: int | Sequence[int] = 256,
        lattice: str = "exact",
        prior: str = "logistic",
        components: int = 5,
        net: NetBuilder | str | None = None,
        activation: Callable[[], nn.Module] = nn.LeakyReLU,
        dropout: float = 0.0,
        center: float = 0.0,
        scale: float = 1.0,
        levels: int = 2,
        coupling: str = "parts",
        slices: int = 1,
        shape: Sequence[int] | None = None,
        context: int | nn.Module = 0,
    ) -> None:
        if (dim is None) == (shape is None):
            raise TypeError(f"dim: got {short(dim)} with shape {short(shape)}, expected one of the two")
        name, size = ("dim", dim) if shape is None else ("shape", shape)
        images = is_sizes(size) or shape is not None
        levels, layers = check_count("levels", levels, 1), check_count("layers", layers, 1)
        parts, slices = check_count("parts", parts, 2), check_count("slices", slices, 1)
        center, scale = as_center_and_scale(center, scale)
        if images:
            sizes: tuple[int, ...] = check_shape(name, size, 2**levels, f"2**levels = {2**levels}")
            most, limit = 4 * sizes[0], "4 C"
        else:
            sizes = (check_count(name, size, 1),)
            most, limit = sizes[0], "dim"
            parts = parts if most > 1 else 1
        if parts > most:
            raise ValueError(f"parts: got {parts}, expected at most {limit} = {most}")
        as_name("lattice", lattice, LATTICES)
        if as_name("coupling", coupling, COUPLINGS) == "quarter" and not images:
            raise ValueError("coupling: got 'quarter', expected 'parts' for vectors")
        if slices > 1 and not images:
            raise ValueError(f"slices: got {slices}, expected 1 for vectors")
        if isinstance(net, str) and not images:
            raise TypeError(f"net: got {short(net)}, expected a callable for vectors")
        if lattice == "tutorial" and images:
            raise ValueError("lattice: got 'tutorial', expected 'exact' for images")
        if images:
            no_context(context)
        super().__init__(math.prod(sizes), _prior(math.prod(sizes), prior, components), context)
        self._unscaled = (center, scale)
        self.base: DiscretizedLogistic | DiscretizedLogisticMixture | MultiScalePrior
        self.shape = sizes
        self.lattice = lattice
        self._lattice = Lattice(lattice)
        self.discrete = lattice == "exact"
        # beta * round(t) with beta = 0 and t = 0 would have no gradient at all: only the exact lattice starts at 0
        plain = (
            image_net_builder(hidden, net, activation=activation, dropout=dropout)
            if images
            else net_builder(
                hidden,
                cast("NetBuilder | None", net),
                activation=activation,
                dropout=dropout,
                zero_last=self.discrete,
            )
        )
        build = plain if (center, scale) == (0.0, 1.0) else _scaled(plain, center, scale)
        if len(sizes) == 3:
            updated = None if coupling == "quarter" else parts
            self.couplings: nn.Module = IntegerLevels(sizes, levels, layers, updated, build, slices)
            self.base = MultiScalePrior(self.couplings.slices, self.base, plain, center, scale)
        else:
            parted = [most // parts + (i < most % parts) for i in range(parts)]
            self.couplings = RoundingCouplings(parted, layers, with_context(build, self.context_width), lattice=lattice)

    @torch.no_grad()
    def initialize(self, x: Tensor, context: Tensor | None = None) -> None:
        """Starts the flow from a sample; draws no random numbers.

        The prior starts from the latents, as its own ``initialize`` describes. On images networks start before that,
        at the best linear prediction of the channels that they shift, by least squares from 3x3 neighborhoods of the
        others, on each level for the channels that leave it; then the prior's networks likewise. Those are
        :class:`~hybridkern.nets.ConvNet`, :class:`~hybridkern.nets.ResNet` and :class:`~hybridkern.nets.DenseNet`
        whose last layer is still zero; all others stay as they are. All networks stay as they are where that makes
        the sample no likelier, as on drawings, whose pixels are mostly the same number.

        Under ``torch.distributed`` every rank must call this, each with its own ``x``: all start from all of it.

        Args:
            x: a sample of the data, ``(N, *shape)`` with ``N >= 1``, as :meth:`forward` takes it.
            context: its conditions, in a flow that has them.

        Raises:
            TypeError, ValueError: what :meth:`forward` raises, or no rows.
        """
        with evaluating(self):
            if isinstance(self.couplings, IntegerLevels):
                x = integers_as("x", x, self.shape, self.base.dtype, self.base.device)
                self.seen(context, x)  # refuses one
                if not x.is_meta:
                    check_integers("x", x)
                self._start(self.couplings, x)
            else:
                self.base.initialize(self(x, context)[0])

    def _start(self, couplings: IntegerLevels, x: Tensor) -> None:
        """From images, with a linear prediction or without, whichever makes them likelier."""
        assert isinstance(self.base, MultiScalePrior)
        before = [(value, value.clone()) for value in self.parameters()]
        latents = couplings.latents(x)
        self.base.marginal.initialize(latents)
        plain = self.base.mean_log_prob(latents)
        predicted = couplings.initialize(x)
        self.base.initialize(predicted)
        if not x.is_meta and not self.base.mean_log_prob(predicted) > plain:
            for value, old in before:
                value.copy_(old)
            self.base.marginal.initialize(latents)

    def marginal_parameters(self) -> list[nn.Parameter]:
        """The parameters of the prior that belong to one latent each: for images, those outside of its networks."""
        base = self.base.marginal if isinstance(self.base, MultiScalePrior) else self.base
        return list(base.parameters())

    def _embed(self, context: Tensor) -> Tensor:
        """As exactly as the couplings are computed: what it gives must not depend on the batch."""
        assert self.embedding is not None
        if self.lattice == "exact" and not (self.training and torch.is_grad_enabled()):
            return evaluate(self.embedding, context)
        return super()._embed(context)

    def _run(self, name: str, x: Tensor, context: Context, inverse: bool) -> tuple[Tensor, Tensor]:
        x = integers_as(name, x, (self.dim,) if inverse else self.shape, self.base.dtype, self.base.device)
        seen, (center, scale) = self.seen(context, x), self._unscaled
        given = {} if seen is None else {"seen": seen * scale + center}  # which the networks undo
        y = self._lattice.run(partial(self.couplings, inverse=inverse, **given), name, x, self.training)
        return y, x.new_zeros(x.shape[0], dtype=total_dtype(x))

    def forward(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        """Data -> latent.

        Args:
            x: integers ``(B, dim)``, or images of them ``(B, C, H, W)``, in the dtype of the parameters or any integer
                dtype.
            context: condition, ``(B, width)`` or ``(width,)``; ``None`` in a flow without one.

        Returns:
            Latents ``(B, dim)`` in the dtype of the parameters, integers on the exact lattice, and the
            log-determinant, ``(B,)`` zeros.

        Raises:
            TypeError: another type or dtype.
            ValueError: another shape; on the exact lattice also a value that is no integer, or data or latents of
                magnitude 2**24 and more in float32 (checked on every batch but those of training after the first,
                and not in compiled graphs).
        """
        return self._run("x", x, context, inverse=False)

    def inverse(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        """Latents ``(B, dim)`` -> data, shaped as :meth:`forward` takes it; errors as there."""
        return self._run("z", z, context, inverse=True)
