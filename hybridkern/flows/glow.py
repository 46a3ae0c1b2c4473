"""Glow: a multi-scale flow for images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from hybridkern._arguments import as_flag, as_name
from hybridkern._modes import evaluating
from hybridkern._tensors import total_dtype
from hybridkern._values import transformed
from hybridkern.distributions import DiagonalGaussian
from hybridkern.flows._form_state import FormedFlow
from hybridkern.flows._initialized import is_initialized, known_to_compiler, mark_initialized, starts_outside_of_graphs
from hybridkern.flows._latents import join_latents, latent_shapes, split_latents
from hybridkern.flows._later import warn_once, watch_finite
from hybridkern.flows._statistics import channel_statistics, finite_over_ranks, whitening
from hybridkern.flows.base import (
    Context,
    NetBuilder,
    check_count,
    check_images,
    check_shape,
    check_vectors,
    checked_builder,
)
from hybridkern.flows.memory import check_mode, run_steps
from hybridkern.nets import ConvNet, HighwayNet
from hybridkern.ops.affine_coupling.form import CouplingForm, form_text, resolve_form
from hybridkern.transforms.glow_step import GlowStep, PairStatistics
from hybridkern.transforms.mixing import PERMUTATIONS, Mixing
from hybridkern.transforms.squeeze import Pair, squeeze, unsqueeze

DEFAULT_FORM = "bounded"
# up to version 0.1, whose state dicts do not say it
_FORMER_DEFAULT = "glow"
NETS: dict[str, Callable[..., nn.Module]] = {"conv": ConvNet, "highway": HighwayNet}
NORMS = ("actnorm", "batchnorm")
NOT_INITIALIZED = (
    "used before it was initialized: actnorm has scale 1 and shift 0 still, and likelihoods and samples are those of "
    "an untrained flow. Call flow.initialize(x) with a batch of data, or load a state_dict"
)


class GlowLevel(nn.Module):
    """The steps between two changes of scale, on a pair of halves.

    Args:
        channels: channels of both halves together.
        steps: number of steps.
        net: builds a coupling network from its numbers of input and output channels.
        form, norm, permutation, memory: as :class:`Glow` takes them.
        context: width of the condition that the networks see.
    """

    def __init__(
        self,
        channels: int,
        steps: int,
        net: NetBuilder,
        form: CouplingForm,
        norm: str,
        permutation: str,
        memory: str,
        context: int = 0,
    ) -> None:
        super().__init__()
        self.memory = memory
        self.mixing = Mixing(steps, channels, permutation)
        half = channels // 2
        outputs = 2 * half if form.has_scale else half
        self.steps = nn.ModuleList(
            GlowStep(net(half + context, outputs), form, PairStatistics(channels) if norm == "batchnorm" else None)
            for _ in range(steps)
        )

    def forward(
        self, state: Pair, log_det: Tensor, seen: Tensor | None = None, *, inverse: bool = False
    ) -> tuple[Pair, Tensor, Tensor]:
        """Data -> latent, or back: the halves, ``log_det`` plus that of the couplings, and of the mixing a scalar."""
        mixed = self.mixing(inverse=inverse)
        given = () if seen is None else (seen,)
        inputs = [(*own, *given) for own in zip(mixed.weight.unbind(0), mixed.bias.unbind(0), strict=True)]
        mixing_log_det = mixed.log_det * math.prod(state[0].shape[2:])
        if inverse:
            for step, own in zip(reversed(self.steps), reversed(inputs), strict=True):
                state, log_det = step(state, log_det, *own, inverse=True)
            return state, log_det, mixing_log_det
        (first, second), log_det = run_steps(list(self.steps), state, log_det, inputs, memory=self.memory)
        return (first, second), log_det, mixing_log_det

    @torch.no_grad()
    def initialize(self, state: Pair, whiten: bool, split: bool, seen: Tensor | None = None) -> Pair:
        """Data-dependent initialization of every step in turn; returns the halves after the last.

        Args:
            state: the halves.
            whiten: every mixing decorrelates its input, too.
            split: the second half leaves after the last step, which then sorts the channels.
            seen: the conditions that the networks see.
        """
        log_det = state[0].new_zeros(len(state[0]), dtype=total_dtype(state[0]))
        for i, step in enumerate(self.steps):
            assert isinstance(step, GlowStep)
            mean, std = channel_statistics(*state)
            if step.statistics is None:
                self.mixing.normalize(i, mean, std)
            else:
                step.statistics.initialize(mean, std)
            if whiten:
                matrices = whitening(mean, std, *state)
                last = split and i + 1 == len(self.steps)
                self.mixing.multiply_by(i, matrices.slow_first if last else matrices.symmetric, alone=last)
            mixed = self.mixing()
            state, log_det = step(state, log_det, mixed.weight[i], mixed.bias[i], seen)
        return state


class Glow(FormedFlow):
    """Multi-scale flow for images: squeeze, steps of mixing and affine coupling, half of the channels factored out.

    A level turns blocks of 2x2 pixels into channels and runs ``steps`` steps; after each but the last, half of the
    channels leave as latents. A step is actnorm and an invertible 1x1 convolution, folded into one matrix, and an
    affine coupling. A level carries its tensor as two halves, so that nothing is joined or split on the way. The base
    is a standard Gaussian over all latents. Images are real-valued, of about unit width:
    :func:`hybridkern.transforms.dequantize` makes them from integers.

    Actnorm is initialized from data by :meth:`initialize`, or by the first batch in training mode. Before that, scale
    is 1 and shift 0. Latents ``(B, D)`` hold the levels one after the other, each with its channels last;
    :meth:`latents` gives them back as images.

    Args:
        shape: ``(C, H, W)`` of one image; ``H`` and ``W`` divisible by ``2**levels``.
        levels: number of levels.
        steps: steps per level.
        hidden: width of the coupling networks named by ``net``.
        form: affine form, a name or a :class:`~hybridkern.ops.CouplingForm`: by default ``"bounded"``, whose scale
            lies between ``1/e`` and ``e``. The paper's ``"glow"`` bounds it from above only: on data with many equal
            values the inverse then divides by almost zero, and samples are infinite. The form is part of
            ``state_dict``; loading that of another form is an error.
        net: ``"conv"`` (:class:`~hybridkern.nets.ConvNet`), ``"highway"`` (:class:`~hybridkern.nets.HighwayNet`) or a
            callable ``(in_channels, out_channels) -> nn.Module``.
        norm: ``"actnorm"``, or ``"batchnorm"`` before actnorm's (learnt) scale and shift: statistics of the batch in
            training mode, running ones in evaluation mode and in every inverse. Its log-determinant takes the
            statistics as constants, as in the literature, which holds exactly in evaluation mode.
        permutation: ``"conv1x1"`` (learnt), or a fixed ``"shuffle"`` or ``"reverse"`` of the channels.
        memory: what training keeps: ``"store"``, ``"recompute"`` or ``"invert"``; see :mod:`hybridkern.flows.memory`.
        context: width of a condition that the coupling networks see at every pixel, as further channels, or a module
            that makes it from the condition given.

    Raises:
        TypeError, ValueError: an argument of the wrong type or range, or an unknown name.

    Source: Kingma and Dhariwal 2018 (arXiv:1807.03039); batch norm: Dinh et al. 2017 (arXiv:1605.08803), section 3.7.

    >>> import torch
    >>> flow = Glow((3, 8, 8), levels=2, steps=2, hidden=16)
    >>> flow.initialize(torch.rand(16, 3, 8, 8) - 0.5)
    >>> flow.log_prob(torch.rand(5, 3, 8, 8) - 0.5).shape
    torch.Size([5])
    >>> [tuple(z.shape) for z in flow.latents(torch.randn(5, flow.dim))]
    [(5, 6, 4, 4), (5, 24, 2, 2)]
    """

    _settings = ("memory",)
    _initialized: Tensor

    def __init__(
        self,
        shape: Sequence[int],
        *,
        levels: int = 3,
        steps: int = 8,
        hidden: int = 512,
        form: str | CouplingForm = DEFAULT_FORM,
        net: str | NetBuilder = "conv",
        norm: str = "actnorm",
        permutation: str = "conv1x1",
        memory: str = "store",
        context: int | nn.Module = 0,
    ) -> None:
        levels, steps = check_count("levels", levels, 1), check_count("steps", steps, 1)
        hidden = check_count("hidden", hidden, 1)
        shape = check_shape("shape", shape, 2**levels, f"2**levels = {2**levels}")
        resolved = resolve_form(form)
        as_name("norm", norm, NORMS)
        as_name("permutation", permutation, PERMUTATIONS)
        super().__init__(math.prod(shape), DiagonalGaussian(math.prod(shape)), context)
        self.shape = shape
        self.form = resolved
        self._form_is_new = isinstance(form, str) and form == DEFAULT_FORM
        self.norm = norm
        self.permutation = permutation
        check_mode(memory)
        build = _net_builder(net, hidden)
        channels, self._shapes = shape[0], latent_shapes(shape, levels)
        self.levels = nn.ModuleList()
        for _ in range(levels):
            level = GlowLevel(4 * channels, steps, build, resolved, norm, permutation, memory, self.context_width)
            self.levels.append(level)
            channels *= 2
        self.memory = memory
        # 0 or 1, and a float: averages of models, buffers included, subtract and scale what they average
        self.register_buffer("_initialized", torch.tensor(float(norm != "actnorm")))
        # of a batch on a device: whether the values that actnorm started from were finite; looked at in the next call
        self._started_finite: Tensor | None = None

    @property
    def memory(self) -> str:
        """What training keeps; may be set anew, for the forward passes from then on."""
        level = self.levels[0]
        assert isinstance(level, GlowLevel)
        return level.memory

    @memory.setter
    def memory(self, memory: str) -> None:
        check_mode(memory)
        for module in self.modules():
            if isinstance(module, GlowLevel):
                module.memory = memory
            if hasattr(module, "save_hidden"):
                setattr(module, "save_hidden", memory == "store")  # noqa: B010

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        says = prefix + "_extra_state" in state_dict
        if not says and prefix + "_initialized" in state_dict and self._form_is_new:
            raise ValueError(
                f"form: got a state_dict that does not say it, as version 0.1 wrote them, expected Glow(..., "
                f"form={_FORMER_DEFAULT!r}), the default then, or the form that the flow was trained with"
            )
        super()._load_from_state_dict(state_dict, prefix, *args)

    @torch.no_grad()
    def initialize(self, x: Tensor, context: Context = None, *, whiten: bool = False) -> None:
        """Starts actnorm so that, on ``x``, every channel before every mixing has mean 0 and standard deviation 1.

        With ``whiten`` the 1x1 convolutions start from data as well: what a mixing returns is uncorrelated, and after
        the last step of a level, what goes on to the next one are the channels that vary most slowly over the image.
        So the flow starts as the best linear model of its kind, which gradient descent takes thousands of steps to
        find: the logarithms of the scales of natural images' components range over six units.

        A channel that hardly varies (standard deviation below 1e-4) keeps its scale. Under ``torch.distributed`` every
        rank must call this, each with its own ``x``: they start from the statistics of all ranks together. Draws no
        random numbers but those of the networks (dropout is off here). With batch norm, which takes
        actnorm's place, the running averages are set, and only where ``whiten`` is asked for.

        Args:
            x: images ``(N, C, H, W)``, dtype of the parameters.
            context: their conditions, in a flow that has them.
            whiten: start the 1x1 convolutions from data, too; needs ``permutation="conv1x1"``.

        Raises:
            TypeError, ValueError: another type, dtype or shape; a value that is not finite, before anything is
                changed (on a GPU that comes from the next call of the flow, so that nothing waits here); ``whiten``
                without 1x1 convolutions.
        """
        check_images("x", x, self.shape, self.base.dtype, self.base.device)
        if as_flag("whiten", whiten) and self.permutation != "conv1x1":
            raise ValueError(f"whiten: got True, expected permutation='conv1x1', and it is {self.permutation!r}")
        seen = self.seen(context, x)
        if self.norm == "actnorm" or whiten:
            self._started_finite = finite_over_ranks("x", x)
            with evaluating(self):
                state = squeeze(x.to(self.base.dtype))
                for i, level in enumerate(self.levels):
                    assert isinstance(level, GlowLevel)
                    first, second = level.initialize(state, whiten, i + 1 < len(self.levels), seen)
                    state = squeeze(first) if i + 1 < len(self.levels) else (first, second)
        mark_initialized(self._initialized)

    def _prepare(self, x: Tensor, context: Context) -> None:
        """Starts from ``x`` if that is still to be done; in evaluation mode says so."""
        self._check_start()
        if is_initialized(self._initialized):
            return
        if self.training and len(x):
            if transformed():
                raise RuntimeError(
                    "actnorm: the first batch in training mode sets its parameters, which a transform of torch.func or "
                    "forward mode cannot follow: expected initialize(x) before it, or eval()"
                )
            self.initialize(x, context)
        elif not self.training:
            warn_once(self, NOT_INITIALIZED)

    def _check_start(self) -> None:
        """Raises ValueError where values on a device, from which an earlier call started actnorm, were not finite."""
        finite, self._started_finite = self._started_finite, None
        if finite is not None and not finite:
            self._initialized.fill_(False)
            raise ValueError("x: got a value that is not finite in the batch that started actnorm, expected finite "
                             "numbers only; the next batch in training mode starts it again")  # fmt: skip

    def forward(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        """Data -> latent.

        Args:
            x: images ``(B, C, H, W)``, dtype of the parameters.
            context: condition, ``(B, width)`` or ``(width,)``; ``None`` in a flow without one.

        Returns:
            Latents ``(B, D)`` and ``log|det dz/dx|`` ``(B,)`` in nats, at least float32.

        Raises:
            TypeError, ValueError: another type, dtype or shape.
            RuntimeError: the first batch of an actnorm in training mode, inside a transform of ``torch.func``.
        """
        check_images("x", x, self.shape, self.base.dtype, self.base.device)
        seen = self.seen(context, x)
        if not (torch.compiler.is_compiling() and known_to_compiler(self._initialized)):
            self._prepare(x, context)
        x = x.to(self.base.dtype)
        log_det = x.new_zeros(x.shape[0], dtype=total_dtype(x))
        mixings, latents = [], []
        for level in self.levels:
            (x, second), log_det, mixing_log_det = level(squeeze(x), log_det, seen)
            mixings.append(mixing_log_det)
            latents.append(second)
        latents[-1] = torch.cat([x, second], 1)
        return join_latents(latents), log_det + torch.stack(mixings).sum()

    def inverse(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        """Latent -> data.

        Args:
            z: ``(B, D)``, dtype of the parameters.
            context: as :meth:`forward` takes it.

        Returns:
            Images ``(B, C, H, W)`` and ``log|det dx/dz|`` ``(B,)`` in nats, at least float32.

        Raises:
            TypeError, ValueError: another type, dtype or shape.
        """
        check_vectors("z", z, self.dim, self.base.dtype, self.base.device)
        seen = self.seen(context, z)
        if not torch.compiler.is_compiling() and not is_initialized(self._initialized):
            warn_once(self, NOT_INITIALIZED)
        z = z.to(self.base.dtype)
        log_det = z.new_zeros(z.shape[0], dtype=total_dtype(z))
        latents, mixings = self.latents(z), []
        x, second = latents[-1].chunk(2, 1)
        for i in reversed(range(len(self.levels))):
            state, log_det, mixing_log_det = self.levels[i]((x, second), log_det, seen, inverse=True)
            mixings.append(mixing_log_det)
            x = unsqueeze(*state)
            second = latents[i - 1]
        watch_finite(self, x)
        return x, log_det + torch.stack(mixings).sum()

    def latents(self, z: Tensor) -> list[Tensor]:
        """The latents of each level, finest first: views of ``z`` ``(B, D)`` as images ``(B, C_i, H_i, W_i)``.

        Raises:
            TypeError, ValueError: ``z`` is no such tensor.
        """
        check_vectors("z", z, self.dim, self.base.dtype, self.base.device)
        return split_latents(z, self._shapes)

    def extra_repr(self) -> str:
        """Shape, form, norm and memory, for ``print``."""
        return f"shape={self.shape}, form={form_text(self.form)}, norm={self.norm!r}, memory={self.memory!r}"


def _net_builder(net: str | NetBuilder, hidden: int) -> NetBuilder:
    if callable(net):
        return checked_builder(net)
    as_name("net", net, tuple(NETS), " or a callable (in_channels, out_channels)")
    return partial(NETS[net], hidden=hidden)


starts_outside_of_graphs(Glow, "_prepare")
