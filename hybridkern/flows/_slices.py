"""The latents of all levels of an image flow cut into slices of channels, which a prior takes one after the other."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hybridkern.flows._latents import Shape, join_latents, split_latents
from hybridkern.transforms import squeeze, unsqueeze


class Slices:
    """Slices of channels, those of the finest level first; each is known from the ones after it.

    Args:
        shapes: ``(C, H, W)`` of each level's latents, finest first.
        count: slices of a level, as many as it has channels at most; sizes differ by at most one.

    Attributes:
        shapes: ``(C, H, W)`` of each slice.

    Source: channels coded slice by slice, Minnen and Singh 2020 (arXiv:2007.08739), section 2.
    """

    def __init__(self, shapes: Sequence[Shape], count: int = 1) -> None:
        self.count = count
        self.shapes: list[Shape] = []
        self._sizes: list[list[int]] = []
        self._levels: list[int] = []
        for level, (c, h, w) in enumerate(shapes):
            cut = min(count, c)
            self._sizes.append([c // cut + (i < c % cut) for i in range(cut)])
            self.shapes += [(size, h, w) for size in self._sizes[-1]]
            self._levels += [level] * cut

    def join(self, latents: Sequence[Tensor]) -> Tensor:
        """Latents ``(B, C_l, H_l, W_l)`` of each level -> ``(B, D)``, slice by slice."""
        pairs = zip(latents, self._sizes, strict=True)
        return join_latents([part for latent, sizes in pairs for part in latent.split(sizes, 1)])

    def split(self, z: Tensor) -> list[Tensor]:
        """Undoes :meth:`join`."""
        parts = split_latents(z, self.shapes)
        whole = []
        for sizes in self._sizes:
            own, parts = parts[: len(sizes)], parts[len(sizes) :]
            whole.append(own[0] if len(own) == 1 else torch.cat(own, 1))
        return whole

    def is_coarsest(self, i: int) -> bool:
        """Whether slice ``i`` is of the coarsest level, whose networks see its own pixels and not blocks of them."""
        return self._levels[i] == self._levels[-1]

    def width(self, i: int) -> int:
        """Channels that a network sees slice ``i`` as."""
        return self.shapes[i][0] * (1 if self.is_coarsest(i) else 4)

    def inputs(self, i: int) -> int:
        """Channels of what the network of slice ``i`` sees."""
        own = [k for k in range(i + 1, len(self.shapes)) if self._levels[k] == self._levels[i]]
        coarser = 0 if self.is_coarsest(i) else 4 * sum(self._sizes[self._levels[i]])  # as many channels went on
        return coarser + sum(map(self.width, own))

    def completes(self, i: int) -> bool:
        """Whether a level is known once slice ``i`` is."""
        return i == 0 or self._levels[i - 1] != self._levels[i]

    def blocks(self, i: int, x: Tensor) -> Tensor:
        """Slice ``i`` as networks see it and give their outputs: of all levels but the coarsest in blocks of 2x2."""
        return x if self.is_coarsest(i) else torch.cat(squeeze(x), 1)

    def rows(self, i: int, x: Tensor, kinds: int) -> Tensor:
        """A network's output for slice ``i`` -> ``(B, kinds, D_i)``, in the order of joined latents."""
        b, _, h, w = x.shape
        if self.is_coarsest(i):
            return x.reshape(b, kinds, self.shapes[i][0], h, w).permute(0, 1, 3, 4, 2).flatten(2)
        # row and column within a block before the channel, as squeeze has them
        x = x.reshape(b, kinds, 2, 2, self.shapes[i][0], h, w)
        return x.permute(0, 1, 5, 2, 6, 3, 4).flatten(2)


class Known:
    """The slices known so far, from the last one on."""

    def __init__(self, slices: Slices, known: Sequence[Tensor] = ()) -> None:
        self._slices = slices
        self._coarser: Tensor | None = None
        self._own: list[Tensor] = []
        self.next = len(slices.shapes) - 1
        for image in reversed(known):
            self.add(image)

    def add(self, image: Tensor) -> None:
        """``image`` ``(B, C, H, W)`` is slice :attr:`next`."""
        self._own.insert(0, image)
        if self._slices.completes(self.next):
            level = self._own[0] if len(self._own) == 1 else torch.cat(self._own, 1)
            self._coarser, self._own = _joined(self._coarser, level), []
        self.next -= 1

    def seen(self) -> Tensor | None:
        """What the network of slice :attr:`next` sees, ``None`` where nothing is known.

        The coarser latents as one image, where the level's own latents would stand, then the level's known slices.
        """
        own = [self._slices.blocks(self.next, image) for image in self._own]
        parts = own if self._coarser is None else [self._coarser, *own]
        return None if not parts else parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def _joined(context: Tensor | None, latent: Tensor) -> Tensor:
    """All latents from this level on as one image of the level: coarser ones in place of the half that went on."""
    if context is None:
        return latent
    first, second = context.chunk(2, 1)
    return torch.cat([unsqueeze(first, second), latent], 1)
