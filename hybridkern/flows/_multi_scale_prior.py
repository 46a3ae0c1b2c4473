"""Prior of the latents of an integer flow on images: each level given those of the coarser ones."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hybridkern import ops
from hybridkern._ranks import over_ranks
from hybridkern._tensors import check_width
from hybridkern.distributions import (
    DiscretizedLogistic,
    DiscretizedLogisticMixture,
    Distribution,
    sample_logistic,
    sample_logistic_mixture,
)
from hybridkern.flows._latents import Shape, join_latents, split_latents
from hybridkern.flows.base import NetBuilder
from hybridkern.nets.prediction import start_at_prediction
from hybridkern.transforms import squeeze, unsqueeze

# The most that a network changes a log-scale by: beyond a factor of 20 a step that overshoots takes training apart.
REACH = 3.0
_BATCH = 256  # images that a network sees at a time, when it starts from data


class MultiScalePrior(Distribution):
    """``p(z_L) prod_l p(z_l | z_{l+1}, ..., z_L)``, level 1 the finest: discretized logistics or mixtures of them.

    The coarsest level follows ``marginal``. Parameters of the other levels are those of ``marginal`` plus what a
    network computes from all coarser latents: means move, log-scales change by ``3 tanh(r / 3)`` and so by less than
    3, weights of a mixture change. The networks see the coarser latents as one image of the level below, which is
    where the level's own latents would stand: with couplings at their start it is the half of the channels that went
    on. So the prior depends on the latents alone, and not on the couplings. In the paper the networks see the half
    itself, which is the image of these latents under the coarser levels' inverse.

    Args:
        shapes: ``(C, H, W)`` of each level's latents, finest first.
        marginal: over all ``D`` latents, in the order of :func:`~hybridkern.flows._latents.join_latents`.
        net: builds a network: ``net(in_channels, out_channels)``, on images. One that starts at zero leaves
            ``marginal`` as it is.
        center, scale: networks see ``(z - center) / scale``, and means move in units of ``scale``.

    Source: Hoogeboom et al. 2019 (arXiv:1905.07376), section 3.2: factored-out latents under a conditional prior.
    """

    _is_chosen = False

    def __init__(
        self,
        shapes: Sequence[Shape],
        marginal: DiscretizedLogistic | DiscretizedLogisticMixture,
        net: NetBuilder,
        center: float = 0.0,
        scale: float = 1.0,
    ) -> None:
        super().__init__(sum(map(math.prod, shapes)))
        self.shapes = list(shapes)
        self.marginal = marginal
        self.center, self.scale = float(center), float(scale)
        self.is_mixture = isinstance(marginal, DiscretizedLogisticMixture)
        self.components = marginal.mean.shape[1] if self.is_mixture else 1
        # logits, means, log-scales of each component; a single logistic has no logit
        self._kinds = 3 if self.is_mixture else 2
        outputs = self._kinds * self.components
        self.nets = nn.ModuleList(net(4 * c, outputs * 4 * c) for c, _, _ in self.shapes[:-1])

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

        Networks that give zeros start at the best linear prediction of a level's latents, as its means, from the
        coarser ones. Then ``marginal`` starts from what is left, as its own ``initialize`` describes.
        """
        if not (isinstance(x, Tensor) and x.ndim == 2 and x.shape[1] == self.dim):
            return self.marginal.initialize(x)  # which says what is wrong
        latents = split_latents(x.to(self.dtype), self.shapes)
        left = [latents[-1].permute(0, 2, 3, 1).flatten(1)]
        context = latents[-1]
        for level in reversed(range(len(self.shapes) - 1)):
            seen = (context - self.center) / self.scale
            self._start(level, seen, latents[level])
            left.insert(0, join_latents(latents[level : level + 1]) - self._moved(level, seen))
            context = joined(context, latents[level]) if level else context
        self.marginal.initialize(torch.cat(left, 1))

    def _start(self, level: int, seen: Tensor, latent: Tensor) -> None:
        wanted = (torch.cat(squeeze(latent), 1) - self.center) / self.scale
        kinds, channels = self._kinds * self.components, wanted.shape[1]
        outputs = torch.arange(kinds * channels, device=latent.device).view(kinds, channels)
        first = kinds - 2 * self.components  # logits come before the means
        places = list(outputs[first : first + self.components])
        start_at_prediction(self.nets[level], seen, wanted, outputs.numel(), places)

    def _moved(self, level: int, seen: Tensor) -> Tensor:
        """By how much the network moves the means of a level's latents, over the components: ``(N, D_l)``."""
        kinds = self._kinds * self.components
        first = kinds - 2 * self.components
        moved = [
            unsqueezed_parameters(self.nets[level](part), kinds)[:, first : first + self.components].mean(1)
            for part in seen.split(_BATCH)
        ]
        return self.scale * torch.cat(moved)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-probability of ``x`` ``(B, dim)`` in nats, ``(B,)``, at least float32."""
        check_width("x", x, self.dim)
        flat, latents = self._split(x), split_latents(x, self.shapes)
        context: Tensor | None = None
        total: Tensor | None = None
        for level in reversed(range(len(self.shapes))):
            part = self._log_prob(flat[level], self._parameters_of(level, context))
            total = part if total is None else total + part
            context = joined(context, latents[level]) if level else None
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
        context: Tensor | None = None
        drawn: list[Tensor] = []
        for level in reversed(range(len(self.shapes))):
            values = self._sample(n, self._parameters_of(level, context), generator, temperature)
            drawn.append(values)
            if level:
                (image,) = split_latents(values, self.shapes[level : level + 1])
                context = joined(context, image)
        return torch.cat(drawn[::-1], 1)

    def parameters_of(self, level: int, coarser: Sequence[Tensor]) -> list[Tensor]:
        """Parameters of the distribution of a level's latents given those of the levels beyond it.

        Args:
            level: counted from the finest, 0.
            coarser: latents ``(B, C_l, H_l, W_l)`` of the levels ``level + 1, ...``.

        Returns:
            Means and log-scales, of mixtures logits before them, in the order of the level's part of joined latents:
            ``(D_l,)`` (mixtures ``(1, K, D_l)``) for the coarsest level, ``(B, D_l)`` (``(B, K, D_l)``) for others.
        """
        context: Tensor | None = None
        for latent in reversed(coarser):
            context = joined(context, latent)
        return self._parameters_of(level, context)

    def _split(self, x: Tensor) -> tuple[Tensor, ...]:
        parts: tuple[Tensor, ...] = x.split([math.prod(shape) for shape in self.shapes], -1)
        return parts

    def _marginal_of(self, level: int) -> list[Tensor]:
        names = ("logits", "mean", "log_scale")[-self._kinds :]
        return [self._split(getattr(self.marginal, name))[level] for name in names]

    def _parameters_of(self, level: int, context: Tensor | None) -> list[Tensor]:
        """Parameters of the level's latents ``(B, D_l)``: ``(D_l,)`` or ``(B, D_l)``, of mixtures ``(., K, D_l)``."""
        marginal = self._marginal_of(level)
        if context is None:
            return marginal
        change = self.nets[level]((context - self.center) / self.scale)
        change = unsqueezed_parameters(change, self._kinds * self.components)
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


def joined(context: Tensor | None, latent: Tensor) -> Tensor:
    """All latents from this level on as one image of the level: coarser ones in place of the half that went on."""
    if context is None:
        return latent
    first, second = context.chunk(2, 1)
    return torch.cat([unsqueeze(first, second), latent], 1)


def unsqueezed_parameters(x: Tensor, kinds: int) -> Tensor:
    """``(B, kinds * 4c, h, w)`` -> ``(B, kinds, 2h * 2w * c)``, in the order of joined latents ``(c, 2h, 2w)``."""
    b, channels, h, w = x.shape
    # row and column within a block before the channel, as squeeze has them
    x = x.reshape(b, kinds, 2, 2, channels // (4 * kinds), h, w)
    return x.permute(0, 1, 5, 2, 6, 3, 4).flatten(2)
