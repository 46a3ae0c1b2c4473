"""Prior of the latents of an integer flow on images: each slice given those after it and the coarser levels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hybridkern import ops
from hybridkern._arguments import as_draw
from hybridkern._ranks import over_ranks
from hybridkern._tensors import check_width
from hybridkern.distributions import (
    DiscretizedLogistic,
    DiscretizedLogisticMixture,
    Distribution,
    sample_logistic,
    sample_logistic_mixture,
)
from hybridkern.flows._latents import join_latents, split_latents
from hybridkern.flows._slices import Known, Slices
from hybridkern.flows.base import NetBuilder
from hybridkern.nets.prediction import start_at_prediction

# The most that a network changes a log-scale by: beyond a factor of 20 a step that overshoots takes training apart.
REACH = 3.0
_BATCH = 256  # images that a network sees at a time, when it starts from data


class MultiScalePrior(Distribution):
    """``p(z_S) prod_i p(z_i | z_{i+1}, ..., z_S)`` over slices, those of the finest level first: discretized logistics
    or mixtures of them.

    The last slice follows ``marginal``. Parameters of the others are those of ``marginal`` plus what a network computes
    from the slices after it: means move, log-scales change by ``3 tanh(r / 3)`` and so by less than 3, weights of a
    mixture change. With one slice a level, levels are given the coarser ones; with more, channels of a level are given
    channels of the same level too. Networks see all coarser latents as one image of the level below, which is where the
    level's own latents would stand: with couplings at their start it is the half of the channels that went on. So the
    prior depends on the latents alone, and not on the couplings. In the paper the networks see the half itself, which
    is the image of these latents under the coarser levels' inverse.

    Args:
        slices: of the latents of all levels.
        marginal: over all ``D`` latents, in the order of :meth:`~hybridkern.flows._slices.Slices.join`.
        net: builds a network: ``net(in_channels, out_channels)``, on images. One that starts at zero leaves
            ``marginal`` as it is.
        center, scale: networks see ``(z - center) / scale``, and means move in units of ``scale``.

    Source: Hoogeboom et al. 2019 (arXiv:1905.07376), section 3.2: factored-out latents under a conditional prior;
    slices: Minnen and Singh 2020 (arXiv:2007.08739), section 2.
    """

    _is_chosen = False
    discrete = True

    def __init__(
        self,
        slices: Slices,
        marginal: DiscretizedLogistic | DiscretizedLogisticMixture,
        net: NetBuilder,
        center: float = 0.0,
        scale: float = 1.0,
    ) -> None:
        super().__init__(sum(map(math.prod, slices.shapes)))
        self.slices = slices
        self.shapes = slices.shapes
        self.marginal = marginal
        self.center, self.scale = float(center), float(scale)
        self.is_mixture = isinstance(marginal, DiscretizedLogisticMixture)
        self.components = marginal.mean.shape[1] if self.is_mixture else 1
        # logits, means, log-scales of each component; a single logistic has no logit
        self._kinds = 3 if self.is_mixture else 2
        outputs = self._kinds * self.components
        self.nets = nn.ModuleList(net(slices.inputs(i), outputs * slices.width(i)) for i in range(len(self.shapes) - 1))

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of samples and parameters."""
        return self.marginal.dtype

    @property
    def device(self) -> torch.device:
        """Where samples lie."""
        return self.marginal.device

    def initialize(self, x: Tensor) -> None:
        """Starts from latents ``x`` ``(N, dim)``; draws no random numbers.

        Networks that give zeros start at the best linear prediction of a slice's latents, as its means, from those
        after it. Then ``marginal`` starts from what is left, as its own ``initialize`` describes.
        """
        if not (isinstance(x, Tensor) and x.ndim == 2 and x.shape[1] == self.dim):
            return self.marginal.initialize(x)  # which says what is wrong
        left: list[Tensor] = []
        known = Known(self.slices)
        for i, image in reversed(list(enumerate(split_latents(x.to(self.dtype), self.shapes)))):
            rows, context = join_latents([image]), known.seen()
            if context is not None:
                seen = (context - self.center) / self.scale
                self._start(i, seen, image)
                rows = rows - self._moved(i, seen)
            left.insert(0, rows)
            known.add(image)
        self.marginal.initialize(torch.cat(left, 1))

    def _start(self, i: int, seen: Tensor, image: Tensor) -> None:
        wanted = (self.slices.blocks(i, image) - self.center) / self.scale
        kinds, channels = self._kinds * self.components, wanted.shape[1]
        outputs = torch.arange(kinds * channels, device=image.device).view(kinds, channels)
        first = kinds - 2 * self.components  # logits come before the means
        places = list(outputs[first : first + self.components])
        start_at_prediction(self.nets[i], seen, wanted, outputs.numel(), places)

    def _moved(self, i: int, seen: Tensor) -> Tensor:
        """By how much the network moves the means of a slice's latents, over the components: ``(N, D_i)``."""
        kinds = self._kinds * self.components
        first = kinds - 2 * self.components
        moved = [
            self.slices.rows(i, self.nets[i](part), kinds)[:, first : first + self.components].mean(1)
            for part in seen.split(_BATCH)
        ]
        return self.scale * torch.cat(moved)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-probability of ``x`` ``(B, dim)`` in nats, ``(B,)``, at least float32."""
        check_width("x", x, self.dim)
        flat, images = self._split(x), split_latents(x, self.shapes)
        known = Known(self.slices)
        total: Tensor | None = None
        for i in reversed(range(len(images))):
            part = self._log_prob(flat[i], self._parameters_of(i, known.seen()))
            total = part if total is None else total + part
            known.add(images[i])
        assert total is not None
        return total

    def mean_log_prob(self, x: Tensor) -> Tensor:
        """The mean of :meth:`log_prob` over ``x`` ``(N, D)`` of all ranks, or some hundreds of them, evenly spaced."""
        parts = [self.log_prob(part) for part in x[:: max(1, len(x) // _BATCH)].split(_BATCH)]
        found = torch.cat(parts).double()
        total, count = over_ranks(torch.stack([found.sum(), found.new_full((), float(len(found)))]))
        mean: Tensor = total / count
        return mean

    @torch.no_grad()
    def sample(self, n: int, *, generator: torch.Generator | None = None, temperature: float = 1.0) -> Tensor:
        """``n`` integer samples, ``(n, dim)``, without gradient: the coarsest level first."""
        n, temperature = as_draw(n, temperature)
        known = Known(self.slices)
        drawn: list[Tensor] = []
        for i in reversed(range(len(self.shapes))):
            drawn.append(self._sample(n, self._parameters_of(i, known.seen()), generator, temperature))
            known.add(split_latents(drawn[-1], self.shapes[i : i + 1])[0])
        return torch.cat(drawn[::-1], 1)

    def parameters_of(self, i: int, known: Sequence[Tensor]) -> list[Tensor]:
        """Parameters of the distribution of a slice's latents given those of the slices after it.

        Args:
            i: counted from the first slice of the finest level, 0.
            known: latents ``(B, C, H, W)`` of the slices ``i + 1, ...``.

        Returns:
            Means and log-scales, of mixtures logits before them, in the order of the slice's part of joined latents:
            ``(D_i,)`` (mixtures ``(1, K, D_i)``) for the last slice, ``(B, D_i)`` (``(B, K, D_i)``) for others.
        """
        return self._parameters_of(i, Known(self.slices, known).seen())

    def _split(self, x: Tensor) -> tuple[Tensor, ...]:
        parts: tuple[Tensor, ...] = x.split([math.prod(shape) for shape in self.shapes], -1)
        return parts

    def _marginal_of(self, i: int) -> list[Tensor]:
        names = ("logits", "mean", "log_scale")[-self._kinds :]
        return [self._split(getattr(self.marginal, name))[i] for name in names]

    def _parameters_of(self, i: int, context: Tensor | None) -> list[Tensor]:
        """Parameters of the slice's latents ``(B, D_i)``: ``(D_i,)`` or ``(B, D_i)``, of mixtures ``(., K, D_i)``."""
        marginal = self._marginal_of(i)
        if context is None:
            return marginal
        change = self.nets[i]((context - self.center) / self.scale)
        change = self.slices.rows(i, change, self._kinds * self.components)
        if self._kinds == 2:
            mean, log_scale = change.unbind(1)
            return [marginal[0] + self.scale * mean, marginal[1] + _bounded(log_scale)]
        logits, mean, log_scale = change.unflatten(1, (3, self.components)).unbind(1)
        return [marginal[0] + logits, marginal[1] + self.scale * mean, marginal[2] + _bounded(log_scale)]

    def _log_prob(self, x: Tensor, parameters: list[Tensor]) -> Tensor:
        if self._kinds == 2:
            return ops.discretized_logistic_log_prob(x, *parameters, reduction="sum")
        return ops.discretized_logistic_mixture_log_prob(x, *parameters, reduction="sum")

    def _sample(
        self, n: int, parameters: list[Tensor], generator: torch.Generator | None, temperature: float
    ) -> Tensor:
        draw = sample_logistic if self._kinds == 2 else sample_logistic_mixture
        return draw(n, *parameters, generator=generator, temperature=temperature)

    def extra_repr(self) -> str:
        """The two numbers, for ``print``."""
        return f"center={self.center}, scale={self.scale}"


def _bounded(change: Tensor) -> Tensor:
    return REACH * torch.tanh(change / REACH)
