"""A trained integer flow on images to one whose networks are integers."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from hybridkern.codec import coder
from hybridkern.codec.codec import Codec, as_flow, as_images, enlarged
from hybridkern.codec.convert import Converter
from hybridkern.codec.integers import IntegerNet
from hybridkern.codec.quantized import _CHANGES, IntegerCoupling, IntegerPrior, QuantizedIDF
from hybridkern.codec.scheme import array
from hybridkern.codec.tables import LOGIT_STEPS, MEAN_STEPS, SCALE_STEPS
from hybridkern.distributions import DiscretizedLogisticMixture
from hybridkern.flows import IDF
from hybridkern.flows._integer_levels import IntegerLevels
from hybridkern.flows._latents import split_latents, through_levels
from hybridkern.flows._multi_scale_prior import REACH, MultiScalePrior
from hybridkern.flows._slices import Known
from hybridkern.transforms import QuarterCoupling, RoundingCoupling

_MOST_IMAGES = 256  # that activations are looked at of
_CHECKSUM_BITS = 32  # of a stream
_CHANGE_STEPS = 64  # of the change of a log-scale, before it is bounded, in one nat


def quantize(model: nn.Module, images: Tensor | np.ndarray) -> QuantizedIDF:
    """An integer flow whose networks are integers, which gives the same latents and masses on every machine.

    Weights become 8-bit integers with one step per output channel, activations 8-bit integers with one step per layer,
    chosen from the images. Hidden channels of a ``ResNet`` that reach farthest are split in up to four, all are scaled
    to reach equally far, weights are fitted to what the layers before have lost and rounded so that sums change least,
    and biases keep the mean of each channel. Where networks have learned steps (:func:`learn_steps`), those are taken
    instead. The flow stays a bijection. What this costs in bits is in ``bits`` of the result.

    Args:
        model: an ``IDF`` on images, or a ``HybridModel`` on one, with networks ``nets.ConvNet``, ``nets.ResNet`` or
            ``nets.DenseNet`` without a norm (``net="conv"``, ``"resnet"`` or ``"densenet"``). It stays as it is.
        images: some of the data, integers ``(N, C, H, W)`` or with fewer rows or columns; the first 256 are used.

    Raises:
        TypeError, ValueError: another model, a network that has no such form, other images, or none.
    """
    flow = copy.deepcopy(as_flow(model)).to("cpu", torch.float64).eval()
    x = enlarged(as_images(images, flow.shape)[:_MOST_IMAGES], flow.shape)
    if not len(x):
        raise ValueError("images: got none, expected some of the data")
    for name, value in flow.state_dict().items():
        if not value.isfinite().all():
            raise ValueError(f"model: got NaN or infinity in {name}, expected finite numbers")
    assert isinstance(flow.couplings, IntegerLevels) and isinstance(flow.base, MultiScalePrior)
    with torch.no_grad():
        levels, latents = _levels(flow.couplings, x)
        slices = split_latents(flow.couplings.slices.join(latents), flow.base.shapes)
        prior = _prior(flow.base, slices)
        c, h, w = flow.shape
        found = QuantizedIDF((c, h, w), levels, prior, {})
        found.bits = _bits(flow, found, x)
    return found


def _levels(couplings: IntegerLevels, x: Tensor) -> tuple[list[list[IntegerCoupling]], list[Tensor]]:
    """The couplings of each level, made with the integers that they will see, and the latents."""
    made: list[list[IntegerCoupling]] = []

    def run(level: int, state: Tensor) -> Tensor:
        made.append([])
        for coupling in cast("nn.ModuleList", couplings.levels[level]):
            if isinstance(coupling, QuarterCoupling):
                made[-1].append(_quarter(coupling, state))
            else:
                made[-1].append(_parts(cast("RoundingCoupling", coupling), state))
            state = made[-1][-1](state)
        return state

    latents = through_levels(x, len(couplings.levels), run)
    return made, latents


def _quarter(coupling: QuarterCoupling, state: Tensor) -> IntegerCoupling:
    order = coupling.permutation.order
    kept, moved = coupling.sizes
    factors = coupling.beta.expand(moved)
    net = Converter(coupling.net, state[:, order[:kept]], factors).convert()
    return IntegerCoupling(order, coupling.sizes, [None, net], undone=True)


def _parts(coupling: RoundingCoupling, state: Tensor) -> IntegerCoupling:
    parts = list(state[:, coupling.permutation.order].split(coupling.sizes, 1))
    nets: list[IntegerNet | None] = []
    for i, net in enumerate(coupling.nets):
        others = torch.cat(parts[:i] + parts[i + 1 :], 1)
        made = Converter(net, others, torch.ones(coupling.sizes[i])).convert()
        parts[i] = parts[i] + made(others)
        nets.append(made)
    return IntegerCoupling(coupling.permutation.order, coupling.sizes, nets, undone=False)


def _prior(prior: MultiScalePrior, slices: list[Tensor]) -> IntegerPrior:
    marginal = prior.marginal
    logits = array(marginal.logits) if isinstance(marginal, DiscretizedLogisticMixture) else None
    on_grid = coder.on_grid(
        logits, *(array(p if prior.is_mixture else p[None]) for p in (marginal.mean, marginal.log_scale))
    )
    tables = [torch.from_numpy(table[0].astype(np.int64)) for table in on_grid]
    raw = (np.arange(_CHANGES) - _CHANGES // 2) / _CHANGE_STEPS
    change = torch.from_numpy(np.rint(SCALE_STEPS * REACH * np.tanh(raw / REACH)).astype(np.int64))
    nets = []
    for i, net in enumerate(prior.nets):
        channels = prior.slices.width(i) * prior.components
        kinds = ([LOGIT_STEPS] if prior.is_mixture else []) + [MEAN_STEPS * prior.scale, _CHANGE_STEPS]
        factors = torch.tensor(kinds, dtype=torch.float64).repeat_interleave(channels)
        seen = Known(prior.slices, slices[i + 1 :]).seen()
        assert seen is not None
        nets.append(Converter(net, seen, factors, prior.center, prior.scale).convert())
    return IntegerPrior(prior.slices, tables, change, nets)


def _bits(flow: IDF, found: QuantizedIDF, x: Tensor) -> dict[str, float]:
    """Bits a dimension of the images: of the flow in float64, and what the quantized one takes to store them."""
    z = torch.cat([flow(batch.double())[0] for batch in x.split(16)])
    log_p: Callable[[Tensor], Tensor] = flow.base.log_prob
    nats = -torch.cat([log_p(batch) for batch in z.split(16)]).mean().item()
    coded = Codec(found)._coded(x)
    sizes = [8 * len(stream) - _CHECKSUM_BITS for stream in coded if stream is not None]
    integers = sum(sizes) / len(sizes) / flow.dim if sizes else math.nan
    return {"float": nats / math.log(2) / flow.dim, "integers": integers}
