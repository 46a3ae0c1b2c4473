"""RealNVP on vectors and on images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from hybridkern._arguments import is_sizes
from hybridkern._tensors import total_dtype
from hybridkern.distributions import DiagonalGaussian
from hybridkern.flows._form_state import FormedFlow
from hybridkern.flows._latents import join_latents, latent_shapes, split_latents
from hybridkern.flows._later import watch_finite
from hybridkern.flows.base import (
    Context,
    NetBuilder,
    check_count,
    check_images,
    check_shape,
    check_vectors,
    image_net_builder,
    net_builder,
    no_context,
    with_context,
)
from hybridkern.ops.affine_coupling.form import CouplingForm, resolve_form
from hybridkern.transforms import AffineCoupling, squeeze, unsqueeze
from hybridkern.transforms.checkerboard import ImageCouplings
from hybridkern.transforms.coupling import joined


class RealNVP(FormedFlow):
    """Affine couplings that transform the two halves of a vector in turn, over a standard Gaussian.

    The halves stay apart through the whole flow and are joined once, at its end. An odd ``dim`` gives the first half
    the extra dimension; a single dimension changes by what the context says, or by constants. With its own networks
    the flow starts as the identity of its form (their last layer is zero).

    Given a shape ``(C, H, W)``, it is the multi-scale flow for images: on each level couplings with checkerboard masks,
    2x2 pixels turned into channels, couplings with channel masks, half of the channels factored out; the last level has
    checkerboard couplings only. Networks are :class:`~hybridkern.nets.ConvNet`. Latents are ``(B, D)``, level by level.

    Args:
        dim: dimensions of one example, or the shape ``(C, H, W)`` of an image, with ``H`` and ``W``
            divisible by ``2**levels``.
        layers: number of couplings (for images: on each level, half of them of each kind); even ones transform the
            second half, odd ones the first.
        hidden: hidden sizes of each coupling network; an ``int`` means two layers of it (for images: one number).
        form: affine form, a name or a :class:`~hybridkern.ops.CouplingForm`: ``"realnvp"`` (``log s`` bounded by 2),
            ``"exp"``, ``"glow"``, ``"additive"`` and the others of :func:`hybridkern.ops.affine_coupling`.
        net: builds a coupling network instead, ``net(in_features, out_features)``; its own initialization is kept.
        activation: builds the activations of the networks.
        dropout: dropout probability in the networks; training steps only. For images give ``net``.
        levels: number of levels, for images.
        context: width of a condition that the networks see beside the half that is kept, or a module that makes it
            from the condition given; for vectors.

    Raises:
        TypeError, ValueError: an argument of the wrong type or range, or an unknown form.

    Source: Dinh et al. 2017 (arXiv:1605.08803), equations 7 and 8.

    >>> import torch
    >>> flow = RealNVP(3, layers=2, hidden=8)
    >>> flow.log_prob(torch.zeros(5, 3)).shape
    torch.Size([5])
    >>> RealNVP((3, 8, 8), layers=2, hidden=8, levels=2).sample(4).shape
    torch.Size([4, 3, 8, 8])
    """

    def __init__(
        self,
        dim: int | Sequence[int],
        layers: int = 8,
        hidden: int | Sequence[int] = (256, 256),
        form: str | CouplingForm = "realnvp",
        *,
        net: NetBuilder | None = None,
        activation: Callable[[], nn.Module] = nn.LeakyReLU,
        dropout: float = 0.0,
        levels: int = 2,
        context: int | nn.Module = 0,
    ) -> None:
        layers = check_count("layers", layers, 1)
        resolved = resolve_form(form)
        levels = check_count("levels", levels, 1)
        if is_sizes(dim):
            no_context(context)
            shape = check_shape("dim", dim, 2**levels, f"2**levels = {2**levels}")
            super().__init__(math.prod(shape), DiagonalGaussian(math.prod(shape)))
            self.shape, self.form = shape, resolved
            build = image_net_builder(hidden, net, activation=activation, dropout=dropout)
            self._build_levels(layers, levels, build)
            return
        dim = check_count("dim", dim, 1)
        super().__init__(dim, DiagonalGaussian(dim), context)
        self.form = resolved
        self.sizes = (dim - dim // 2, dim // 2) if dim > 1 else (0, 1)
        build = with_context(
            net_builder(hidden, net, activation=activation, dropout=dropout, zero_last=True), self.context_width
        )
        outputs = 2 if self.form.has_scale else 1
        self.couplings = nn.ModuleList()
        for i in range(layers):
            side = self._kept(i)
            fixed, changed = self.sizes[side], self.sizes[1 - side]
            self.couplings.append(AffineCoupling(build(fixed, outputs * changed), self.form))

    def _build_levels(self, layers: int, levels: int, build: NetBuilder) -> None:
        channels = self.shape[0]
        self.levels = nn.ModuleList()
        for i in range(levels):
            channelwise = layers // 2 if i + 1 < levels else 0
            self.levels.append(ImageCouplings(channels, layers - channelwise, channelwise, build, self.form))
            channels *= 2

    def _image_forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        log_det = x.new_zeros(x.shape[0], dtype=total_dtype(x))
        latents = []
        for level in self.levels:
            (x, second), log_det = level(squeeze(x), log_det)
            latents.append(second)
        latents[-1] = torch.cat([x, second], 1)
        return join_latents(latents), log_det

    def _image_inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        log_det = z.new_zeros(z.shape[0], dtype=total_dtype(z))
        latents = split_latents(z, latent_shapes(self.shape, len(self.levels)))
        x, second = latents[-1].chunk(2, 1)
        for i in reversed(range(len(self.levels))):
            state, log_det = self.levels[i]((x, second), log_det, inverse=True)
            x, second = unsqueeze(*state), latents[i - 1]
        return x, log_det

    def _kept(self, i: int) -> int:
        """Which half coupling ``i`` keeps; of a single dimension, the empty one."""
        return i % 2 if self.dim > 1 else 0

    def _run(self, x: Tensor, context: Context, inverse: bool) -> tuple[Tensor, Tensor]:
        seen = self.seen(context, x)
        halves = list(x.split(self.sizes, 1))
        log_det: Tensor | None = None
        order = range(len(self.couplings))
        for i in reversed(order) if inverse else order:
            fixed, changed = self._kept(i), 1 - self._kept(i)
            kept = joined(halves[fixed], seen)
            halves[changed], log_det = self.couplings[i](halves[changed], kept, log_det, inverse=inverse)
        assert log_det is not None
        return torch.cat(halves, 1), log_det

    def forward(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        """Data -> latent.

        Args:
            x: ``(B, dim)``, or images ``(B, C, H, W)``; dtype of the parameters.
            context: condition, ``(B, width)`` or ``(width,)``; ``None`` in a flow without one.

        Returns:
            Latents ``(B, dim)`` and ``log|det dz/dx|`` ``(B,)`` in nats, at least float32.

        Raises:
            TypeError, ValueError: another type, dtype or shape.
        """
        if len(self.shape) == 3:
            check_images("x", x, self.shape, self.base.dtype, self.base.device)
            self.seen(context, x)
            return self._image_forward(x)
        check_vectors("x", x, self.dim, self.base.dtype, self.base.device)
        return self._run(x, context, inverse=False)

    def inverse(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        """Latent -> data.

        Args:
            z: ``(B, dim)``, dtype of the parameters.
            context: as :meth:`forward` takes it.

        Returns:
            Data, shaped as ``forward`` takes it, and ``log|det dx/dz|`` ``(B,)`` in nats, at least float32.

        Raises:
            TypeError, ValueError: another type, dtype or shape.
        """
        check_vectors("z", z, self.dim, self.base.dtype, self.base.device)
        if len(self.shape) == 3:
            self.seen(context, z)
            x, log_det = self._image_inverse(z)
        else:
            x, log_det = self._run(z, context, inverse=True)
        watch_finite(self, x)
        return x, log_det
