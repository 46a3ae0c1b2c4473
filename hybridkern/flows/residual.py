"""Residual flows: layers ``x + g(x)`` with a network that shrinks distances."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from hybridkern._arguments import as_flag, as_name, as_number, as_sizes, is_integer, is_sizes
from hybridkern._described import Described
from hybridkern._finite import check_finite_values
from hybridkern._tensors import total_dtype
from hybridkern._values import transformed, unwrapped
from hybridkern.distributions import DiagonalGaussian
from hybridkern.flows._initialized import (
    is_initialized,
    known_to_compiler,
    mark_initialized,
    starts_outside_of_graphs,
)
from hybridkern.flows._later import warn_once, watch_finite
from hybridkern.flows._statistics import finite_over_ranks
from hybridkern.flows.base import Context, Flow, FlowPass, check_count, check_images, check_shape, check_vectors
from hybridkern.lipschitz import DenseNet, LipschitzLayer, PlainNet, Weights, bounded_weights, iterate
from hybridkern.lipschitz.activations import ACTIVATIONS
from hybridkern.lipschitz.power import by_kind, norms
from hybridkern.transforms.residual import ResidualBlock, ResidualScale, Series
from hybridkern.transforms.residual.scale import Step
from hybridkern.transforms.squeeze import depth_to_space, space_to_depth

TRACES = ("auto", "exact", "estimate")
EXACT_DIMENSIONS = 8  # up to here the whole Jacobian costs no more than the series
EVALUATION_TERMS = 20


_STALE = (
    "inside a transform of torch.func the norms of weights are not followed, and these weights are not those of the "
    "last power iteration: write them into the flow and call update_lipschitz() outside, else the flow need not be a "
    "bijection"
)


def _is_known(layer: LipschitzLayer) -> bool:
    """Whether the singular vectors are those of the weight that transforms wrap."""
    return layer.is_followed(unwrapped(layer.weight))


class LipschitzError(ValueError):
    """A layer of a residual flow does not shrink distances, so that the flow need not be a bijection."""


class Residual(Described, Flow):
    """Layers ``x + g(x)``, ``g`` with a Lipschitz constant below one, over a standard Gaussian.

    Between the layers there are a scale and a shift per channel, which :meth:`initialize`, or the first batch in
    training mode, starts from data. Power iteration keeps the spectral norm of every weight at ``lipschitz``; it runs
    when the weights have changed since the last pass, as in each training step, and by :meth:`update_lipschitz`.
    Values on a device are not checked, so that a write through ``.data`` goes unnoticed. Inside transforms of
    ``torch.func`` it does not run; a warning says so if the weights have changed.

    **The log-determinant is exact up to 8 dimensions, and estimated above**: a power series cut at random, without
    bias, in evaluation too, so that two calls of ``log_prob`` differ; ``trace="exact"`` computes it from the Jacobian,
    ``D`` products per example and layer. **There is no closed-form inverse**: ``inverse`` iterates each example until
    ``|x + g(x) - y|`` is at most 1e-6 (float64: 1e-10) in every layer. First derivatives of estimates and of the
    inverse are supported, all derivatives of exact ones. ``torch.export`` takes exact densities only.

    Args:
        shape: dimensions of vectors, or ``(C, H, W)``.
        blocks: number of layers; for images one number for each scale, between which 2x2 pixels become channels.
        net: ``"mlp"`` (vectors), ``"conv"`` (images: 3x3, 1x1, 3x3), or ``"dense"``, the network of i-DenseNets;
            ``None`` is ``"mlp"`` or ``"conv"``.
        activation: ``"lipswish"`` or ``"clipswish"``.
        hidden: widths between the layers of a network; for ``"dense"`` the growth of each layer. ``None`` is
            ``(128, 128)``, for images ``(512, 512)``, for ``"dense"`` three layers that grow by 32, for images by 172.
        lipschitz: bound of each weight's norm, below one. It is part of ``state_dict``; that of another is refused.
        factor_out: half of the channels leave as latents after each scale but the last.
        terms, proposal, rate, vectors: of the series in training mode, see
            :class:`hybridkern.transforms.residual.Series`. In evaluation mode 20 terms are taken always.

    Raises:
        TypeError, ValueError: an argument of the wrong type, name or range.

    Source: Chen et al. 2019 (arXiv:1906.02735); ``"dense"``: Perugachi-Diaz et al. 2021 (arXiv:2102.02694).

    >>> import torch
    >>> flow = Residual(2, blocks=2, hidden=(16,))
    >>> x = torch.tensor([[0.5, -1.0]])
    >>> z, _ = flow(x)
    >>> bool((flow.inverse(z)[0] - x).abs().max() < 1e-4)
    True
    """

    _initialized: Tensor

    def __init__(
        self,
        shape: int | Sequence[int],
        *,
        blocks: int | Sequence[int] = 8,
        net: str | None = None,
        activation: str = "lipswish",
        hidden: Sequence[int] | None = None,
        lipschitz: float = 0.98,
        factor_out: bool = False,
        terms: int = 2,
        proposal: str = "poisson",
        rate: float = 2.0,
        vectors: int = 1,
    ) -> None:
        vector = not is_sizes(shape)
        counts = as_sizes("blocks", blocks) if is_sizes(blocks) else (check_count("blocks", blocks, 1),)
        if vector:
            if len(counts) > 1:
                raise ValueError(f"blocks: got {blocks!r}, expected one number for vectors")
            sizes: tuple[int, ...] = (check_count("dim", shape, 1),)
        else:
            factor = 2 ** (len(counts) - 1)
            sizes = check_shape("shape", shape, factor, f"{factor}, for {len(counts)} scales")
        dim = int(torch.Size(sizes).numel())
        super().__init__(dim, DiagonalGaussian(dim))
        self.shape = sizes
        self.factor_out = as_flag("factor_out", factor_out)
        self.lipschitz = as_number("lipschitz", lipschitz, lambda c: 0 < c < 1, "a number between 0 and 1")
        self.training_series = Series(terms, proposal, rate, vectors)
        self.evaluation_series = Series(max(EVALUATION_TERMS, self.training_series.terms), proposal, rate, vectors)
        build = _Networks(net, activation, hidden, self.lipschitz, vector)
        self.scales = nn.ModuleList(
            ResidualScale(state[0], [build(state, activate_first=bool(i or j)) for j in range(count)])
            for i, (state, count) in enumerate(zip(self._states(len(counts)), counts, strict=True))
        )
        self.register_buffer("_initialized", torch.zeros(()))  # a number: averaged models average buffers

    def numbers(self) -> tuple[float, ...]:
        """The bound of each weight's norm, with which the weights as they are stored become those that are used."""
        return (self.lipschitz,)

    def described(self) -> str:
        """The bound."""
        return f"lipschitz={self.lipschitz:g}"

    def _states(self, scales: int) -> list[tuple[int, ...]]:
        """Shape of one example in each scale."""
        found = [self.shape]
        for _ in range(scales - 1):
            c, h, w = found[-1]
            c = 4 * c // 2 if self.factor_out else 4 * c
            found.append((c, h // 2, w // 2))
        return found

    def _layers(self) -> list[LipschitzLayer]:
        return [module for module in self.modules() if isinstance(module, LipschitzLayer)]

    @torch.no_grad()
    def update_lipschitz(self) -> None:
        """Power iteration of every weight until it settles, such as after parameters were changed by hand."""
        for group in by_kind(self._layers()):
            iterate(group)

    def check_lipschitz(self) -> dict[str, float]:
        """The spectral norm of every weight as it is used, by power iteration from a fresh start; by name.

        Raises:
            LipschitzError: one of them is 1 or more, or not finite; the message names it.
        """
        names = {module: name for name, module in self.named_modules() if isinstance(module, LipschitzLayer)}
        found = norms(self._weights())
        for layer, norm in found.items():
            if not norm < 1:
                raise LipschitzError(
                    f"{names[layer]}: got a spectral norm of {norm:.4g}, expected at most {self.lipschitz}: "
                    "update_lipschitz() finds it anew"
                )
        return {names[layer]: norm for layer, norm in found.items()}

    def _weights(self) -> Weights:
        """Every weight with its norm bounded, after power iteration where the weights have changed."""
        groups = by_kind(self._layers())
        if transformed():
            self._watch_transformed()
        else:
            for group in groups:
                if torch.compiler.is_compiling() or not all(layer.is_followed() for layer in group):
                    iterate(group)
        return bounded_weights(groups, self.lipschitz)

    def _watch_transformed(self) -> None:
        """Warns once where ``torch.func``, inside which nothing iterates, gives weights of unknown norm."""
        if not torch.compiler.is_compiling() and not all(map(_is_known, self._layers())):
            warn_once(self, _STALE)

    def _is_exact(self, trace: str) -> bool:
        return as_name("trace", trace, TRACES) == "exact" or (trace == "auto" and self.dim <= EXACT_DIMENSIONS)

    def _series(self, terms: int | None) -> Series:
        own = self.training_series if self.training else self.evaluation_series
        return own if terms is None else Series(terms, own.proposal, own.rate, own.vectors)

    def _step(
        self, trace: str, series: Series, weights: Weights, generator: torch.Generator | None, variances: list[Tensor]
    ) -> Step:
        """How a layer is passed; the variances of estimates are put into the list."""
        if self._is_exact(trace):
            return lambda block, x: block.exact(x, weights)

        def estimated(block: ResidualBlock, x: Tensor) -> tuple[Tensor, Tensor]:
            y, log_det, variance = block.estimate(x, weights, series, generator)
            variances.append(variance)
            return y, log_det

        return estimated

    def _pass(
        self, x: Tensor, trace: str, series: Series, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Latents, log-determinant and its variance."""
        if len(self.shape) == 1:
            check_vectors("x", x, self.dim, self.base.dtype, self.base.device)
        else:
            check_images("x", x, self.shape, self.base.dtype, self.base.device)
        variances: list[Tensor] = []
        weights = self._weights()
        step = self._step(trace, series, weights, generator, variances)
        if self.training and torch.is_grad_enabled() and len(x) and not self._has_started():
            self.initialize(x)
        log_det = x.new_zeros(x.shape[0], dtype=total_dtype(x))
        left: list[Tensor] = []
        for i, scale in enumerate(self._scales()):
            x, log_det = scale(self._squeezed(x, left) if i else x, log_det, step)
        variance = torch.stack(variances).sum(0) if variances else torch.zeros_like(log_det)
        return torch.cat([part.flatten(1) for part in (*left, x)], 1), log_det, variance

    def _has_started(self) -> bool:
        return (known_to_compiler if torch.compiler.is_compiling() else is_initialized)(self._initialized)

    def _scales(self) -> list[ResidualScale]:
        return [cast(ResidualScale, scale) for scale in self.scales]

    def _squeezed(self, x: Tensor, left: list[Tensor]) -> Tensor:
        x = space_to_depth(x)
        if self.factor_out:
            x, gone = x.chunk(2, 1)
            left.append(gone)
        return x

    @torch.no_grad()
    def initialize(self, x: Tensor) -> None:
        """Starts the scales and shifts from data, so that each channel has mean 0 and deviation 1 between the layers.

        Under ``torch.distributed`` every rank must call this, each with its own ``x``: they start from the statistics
        of all ranks together.

        Args:
            x: ``(N, *shape)`` with at least one example.

        Raises:
            ValueError: a value that is not finite. Nothing is changed then.
        """
        if x.is_meta:
            return
        everywhere = finite_over_ranks("x", x)
        check_finite_values("x", x, "; nothing was changed")
        if everywhere is not None and not everywhere:
            raise ValueError("x: got a value that is not finite on another rank; nothing was changed")
        weights = self._weights()
        for i, scale in enumerate(self._scales()):
            x = scale.initialize(self._squeezed(x, []) if i else x, weights)
        mark_initialized(self._initialized)

    def forward(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        """Data -> latent.

        Args:
            x: ``(B, *shape)``, dtype of the parameters.
            context: ``None``: this flow has no condition.

        Returns:
            Latents ``(B, D)`` and ``log|det dz/dx|`` ``(B,)`` in nats, at least float32; estimated above 8 dimensions.

        Raises:
            TypeError, ValueError: another type, dtype or shape.
        """
        self.seen(context, x)
        z, log_det, _ = self._pass(x, "auto", self._series(None))
        return z, log_det

    def log_prob(
        self,
        x: Tensor,
        context: Tensor | None = None,
        *,
        trace: str = "auto",
        terms: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Log-density of ``x`` ``(B, *shape)`` in nats, ``(B,)``, at least float32.

        Args:
            x: data, dtype of the parameters.
            context: ``None``: this flow has no condition.
            trace: ``"exact"``, ``"estimate"``, or ``"auto"``: exact up to 8 dimensions.
            terms: of an estimate that are taken always; ``None`` is that of the mode.
            generator: source of randomness, on the flow's device; ``None`` is torch's default generator. The number of
                terms is drawn on the CPU.
        """
        self.seen(context, x)
        z, log_det, _ = self._pass(x, trace, self._series(terms), generator)
        return FlowPass(z, self.base(z), log_det).log_px

    def log_prob_and_error(
        self, x: Tensor, *, vectors: int = 16, terms: int | None = None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """An estimate of the log-density and its standard error, ``(B,)`` each, in nats.

        Args:
            x, terms, generator: see :meth:`log_prob`.
            vectors: number of independent estimates, at least 2.
        """
        own = self._series(terms)
        series = Series(own.terms, own.proposal, own.rate, check_count("vectors", vectors, 2))
        z, log_det, variance = self._pass(x, "estimate", series, generator)
        return FlowPass(z, self.base(z), log_det).log_px, variance.sqrt()

    def inverse(
        self, z: Tensor, context: Context = None, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Latent -> data, by iteration.

        Args:
            z: ``(B, D)``, dtype of the parameters.
            context: ``None``: this flow has no condition.
            generator: see :meth:`log_prob`.

        Returns:
            Data ``(B, *shape)`` and ``log|det dx/dz|`` ``(B,)`` in nats, at least float32; above 8 dimensions an
            estimate.

        Raises:
            TypeError, ValueError: another type, dtype or shape.
            ConvergenceError: a layer could not be inverted.
        """
        check_vectors("z", z, self.dim, self.base.dtype, self.base.device)
        self.seen(context, z)
        weights = self._weights()
        step = self._step("auto", self._series(None), weights, generator, [])
        log_det = z.new_zeros(z.shape[0], dtype=total_dtype(z))
        x, parts = self._latents_of(z)
        for i, scale in reversed(list(enumerate(self._scales()))):
            x, log_det = scale.inverse(x, log_det, weights, step)
            if i:
                x = depth_to_space(torch.cat((x, parts[i - 1]), 1) if self.factor_out else x)
        watch_finite(self, x)
        return x, log_det

    def _data_of(
        self, z: Tensor, given: tuple[Context, ...], generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        return self.inverse(z, *given, generator=generator)

    def _latents_of(self, z: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The tensor of the last scale, and what left after the scales before it."""
        states = self._states(len(self.scales))
        gone = states[1:] if self.factor_out else []
        sizes = [int(torch.Size(state).numel()) for state in (*gone, states[-1])]
        *parts, last = z.split(sizes, 1)
        return last.unflatten(1, states[-1]), [p.unflatten(1, s) for p, s in zip(parts, gone, strict=True)]


class _Networks:
    """Builds the networks of the layers.

    Raises:
        TypeError, ValueError: an unknown name, or widths that do not fit it.
    """

    def __init__(
        self, net: str | None, activation: str, hidden: Sequence[int] | None, bound: float, vector: bool
    ) -> None:
        self.net = ("mlp" if vector else "conv") if net is None else net
        as_name("net", self.net, ("mlp", "dense") if vector else ("conv", "dense"))
        self.activation, self.bound = as_name("activation", activation, tuple(ACTIVATIONS)), bound
        usual = ((32,) * 3 if vector else (172,) * 3) if self.net == "dense" else ((128,) * 2 if vector else (512,) * 2)
        self.hidden = usual if hidden is None else as_sizes("hidden", (hidden,) if is_integer(hidden) else hidden)
        if activation == "clipswish" and any(width % 2 for width in self.hidden):
            raise ValueError(f"hidden: got {hidden!r}, expected even widths for activation 'clipswish'")
        if self.net == "dense" and len(set(self.hidden)) > 1:
            raise ValueError(f"hidden: got {hidden!r}, expected one growth for net 'dense', once for each layer")

    def __call__(self, state: tuple[int, ...], activate_first: bool) -> nn.Module:
        size = None if len(state) == 1 else (state[1], state[2])
        if self.net == "dense":
            return DenseNet(state[0], self.hidden[0], len(self.hidden), self.activation, size, self.bound)
        return PlainNet(state[0], self.hidden, self.activation, size, activate_first)


starts_outside_of_graphs(Residual, "initialize")
