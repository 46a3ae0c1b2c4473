"""An integer flow whose networks are integers too: what it gives is the same on every machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from hybridkern.codec.coder import MOST_COMPONENTS
from hybridkern.codec.integers import IntegerNet
from hybridkern.codec.reference import Parameters
from hybridkern.codec.scheme import Scheme, array, digest
from hybridkern.codec.tables import SCALES
from hybridkern.flows._latents import Shape, back_through_levels, through_levels
from hybridkern.flows._slices import Known, Slices

_CHANGES = 1024  # entries of the table of changes of a log-scale
_MOST_MEAN = 1 << 30


class IntegerCoupling(nn.Module):
    """Parts of the channels shifted in turn by integers computed from the others.

    Args:
        order: a permutation of the channels.
        sizes: channels of each part.
        nets: one network per part, or ``None`` for a part that stays.
        undone: whether the channels go back to where they stood.
    """

    order: Tensor

    def __init__(self, order: Tensor, sizes: Sequence[int], nets: Sequence[IntegerNet | None], undone: bool) -> None:
        super().__init__()
        self.register_buffer("order", order.clone())
        self.sizes, self.undone = tuple(sizes), undone
        self.moved = [i for i, net in enumerate(nets) if net is not None]
        self.nets = nn.ModuleList(net for net in nets if net is not None)

    def check(self, channels: int) -> None:
        """Looks at what a file may have made: raises ValueError where this is no bijection of so many channels."""
        order = self.order
        if order.dtype is not torch.int64 or not torch.equal(order.sort()[0], torch.arange(channels)):
            raise ValueError(f"order: got {order.tolist()[:20]}, expected a permutation of {channels} channels")
        if any(type(size) is not int or size < 0 for size in self.sizes) or sum(self.sizes) != channels:
            raise ValueError(f"sizes: got {self.sizes}, expected parts of {channels} channels")
        for i, net in zip(self.moved, self.nets, strict=True):
            cast("IntegerNet", net).check(channels - self.sizes[i], self.sizes[i])

    def forward(self, x: Tensor, inverse: bool = False) -> Tensor:
        """Integers ``(B, channels, H, W)``, int64 -> the same."""
        back = torch.argsort(self.order)
        parts = list((x if inverse and not self.undone else x[:, self.order]).split(self.sizes, 1))
        pairs = list(zip(self.moved, self.nets, strict=True))
        for i, net in reversed(pairs) if inverse else pairs:
            t = net(torch.cat(parts[:i] + parts[i + 1 :], 1))
            parts[i] = parts[i] - t if inverse else parts[i] + t
        y = torch.cat(parts, 1)
        return y[:, back] if self.undone or inverse else y


class IntegerPrior(nn.Module):
    """Distributions of the latents on the coder's grid.

    Args:
        slices: of the latents of all levels.
        marginal: logits, means and scale indices, int64 ``(K, D)`` each.
        change: table of the change of a scale index.
        nets: a network for each slice but the last.
    """

    logits: Tensor
    means: Tensor
    scales: Tensor
    change: Tensor

    def __init__(self, slices: Slices, marginal: Sequence[Tensor], change: Tensor, nets: Sequence[IntegerNet]) -> None:
        super().__init__()
        self.slices = slices
        for name, value in zip(("logits", "means", "scales", "change"), (*marginal, change), strict=True):
            self.register_buffer(name, value)
        self.nets = nn.ModuleList(nets)

    def check(self) -> None:
        """Looks at what a file may have made: raises ValueError where tables and networks do not fit the latents."""
        count = self.slices.count
        if type(count) is not int or count < 1:
            raise ValueError(f"slices: got {count!r}, expected a whole number from 1 on")
        dim, components = sum(c * h * w for c, h, w in self.slices.shapes), len(self.means)
        wanted = dict.fromkeys(("logits", "means", "scales"), (components, dim)) | {"change": (_CHANGES,)}
        for name, shape in wanted.items():
            value = self.get_buffer(name)
            if value.dtype is not torch.int64 or value.shape != shape:
                raise ValueError(f"{name}: got {value.dtype} of shape {tuple(value.shape)}, expected int64 of {shape}")
        if not 1 <= components <= MOST_COMPONENTS:
            raise ValueError(f"means: got {components} components, expected 1 to {MOST_COMPONENTS}")
        for i, net in enumerate(self.nets):
            own, each = cast("IntegerNet", net), self.slices.width(i) * components
            own.check(self.slices.inputs(i), 2 * each if components == 1 and own.outputs == 2 * each else 3 * each)

    def forward(self, i: int, known: Sequence[Tensor]) -> Parameters:
        """The distributions of a slice; see :class:`~hybridkern.codec.scheme.Scheme`."""
        begin = sum(c * h * w for c, h, w in self.slices.shapes[:i])
        c, h, w = self.slices.shapes[i]
        logits, means, scales = (t[None, :, begin : begin + c * h * w] for t in (self.logits, self.means, self.scales))
        seen = Known(self.slices, known).seen()
        if seen is not None:
            components = self.means.shape[0]
            found = self.nets[i](seen)
            kinds = found.shape[1] // (self.slices.width(i) * components)  # of a mixture a logit is the first
            rows = self.slices.rows(i, found, kinds * components)
            *by_logit, by_mean, by_scale = rows.unflatten(1, (kinds, components)).unbind(1)
            logits = logits + by_logit[0] if by_logit else logits.expand(len(found), -1, -1)
            means = means + by_mean
            scales = scales + self.change[(by_scale + _CHANGES // 2).clamp(0, _CHANGES - 1)]
        logits = (logits - logits.amax(1, keepdim=True)).clamp(-256, 0)
        return Parameters(
            *(
                array(t).astype(np.int32)
                for t in (logits, means.clamp(-_MOST_MEAN, _MOST_MEAN), scales.clamp(0, SCALES - 1))
            )
        )


class QuantizedIDF(nn.Module, Scheme):
    """An integer flow on images whose networks are integers: latents and masses are functions of integers alone.

    :func:`hybridkern.codec.quantize` makes it, :class:`~hybridkern.codec.Codec` takes it.

    Attributes:
        shape: ``(C, H, W)`` of an image.
        bits: bits per dimension of the images that it was made with: ``{"float": ..., "integers": ...}``, or empty.
    """

    integers = True

    def __init__(
        self, shape: Shape, levels: Sequence[Sequence[IntegerCoupling]], prior: IntegerPrior, bits: dict[str, float]
    ) -> None:
        super().__init__()
        self.shape, self.shapes, self.bits = shape, prior.slices.shapes, dict(bits)
        self.levels = nn.ModuleList(nn.ModuleList(couplings) for couplings in levels)
        self.prior = prior

    @property
    def device(self) -> torch.device:
        """Where the networks are computed: after ``.to("cuda")`` on a GPU, with the same integers."""
        return self.prior.means.device

    def check(self) -> None:
        """Looks at what a file may have made.

        Raises:
            ValueError: parts that do not fit each other; the message says which.
        """
        c, h, w = self.shape
        divided = all(type(size) is int and size >= 1 for size in self.shape) and (h | w) % 2 ** len(self.levels) == 0
        if not divided or not len(self.levels):
            raise ValueError(f"shape: got {self.shape}, expected that of images which {len(self.levels)} levels divide")
        for i, couplings in enumerate(self.couplings()):
            for coupling in couplings:
                coupling.check(4 * c * 2**i)
        self.prior.check()

    def couplings(self) -> list[list[IntegerCoupling]]:
        """The couplings of each level, finest first."""
        return [list(cast("nn.ModuleList", level)) for level in self.levels]  # type: ignore[arg-type]

    def fingerprint(self) -> bytes:
        """16 bytes that differ where an integer of the model differs."""
        parts = [repr((self.shape, self.shapes)).encode()]
        for couplings in self.couplings():
            parts += [repr((c.sizes, c.moved, c.undone)).encode() for c in couplings]
        for name, value in sorted(self.state_dict().items()):
            parts += [f"{name} {tuple(value.shape)}".encode(), array(value).astype("<i8").tobytes()]
        return digest(parts)

    @torch.no_grad()
    def latents(self, x: Tensor) -> Tensor:
        """Images, int64 ``(N, C, H, W)`` -> latents, int64 ``(N, D)``, in the order of ``IDF``."""
        couplings = self.couplings()

        def run(level: int, state: Tensor) -> Tensor:
            for coupling in couplings[level]:
                state = coupling(state)
            return state

        return self.prior.slices.join(through_levels(x.to(self.device), len(couplings), run)).to(x.device)

    @torch.no_grad()
    def images(self, z: Tensor) -> Tensor:
        """Undoes :meth:`latents`."""
        couplings = self.couplings()

        def undo(level: int, state: Tensor) -> Tensor:
            for coupling in reversed(couplings[level]):
                state = coupling(state, inverse=True)
            return state

        return back_through_levels(self.prior.slices.split(z.to(self.device)), undo).to(z.device)

    @torch.no_grad()
    def parameters_of(self, i: int, known: Sequence[Tensor]) -> Parameters:
        """Distributions of the latents of a slice; see :class:`~hybridkern.codec.scheme.Scheme`."""
        found: Parameters = self.prior(i, [latent.to(self.device) for latent in known])
        return found

    def forward(self, x: Tensor) -> Tensor:
        """:meth:`latents`."""
        return self.latents(x)
