"""What the codec needs of a model: latents, their distributions on the coder's grid, and back; here in float64."""

from __future__ import annotations

import copy
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from hybridkern.codec.coder import on_grid
from hybridkern.codec.container import FINGERPRINT_BYTES
from hybridkern.codec.reference import Parameters
from hybridkern.flows import IDF
from hybridkern.flows._integer_levels import IntegerLevels
from hybridkern.flows._latents import Shape, split_latents
from hybridkern.flows._multi_scale_prior import MultiScalePrior


class Scheme(ABC):
    """A bijection between images and latents in slices, those of the finest level first, and what they are coded with.

    Attributes:
        shape: ``(C, H, W)`` of an image.
        shapes: of the latents of each slice.
        integers: whether nothing of it is computed in floating point.
    """

    shape: Shape
    shapes: list[Shape]
    integers: bool

    @abstractmethod
    def fingerprint(self) -> bytes:
        """16 bytes that differ where anything differs that decoding depends on."""

    @abstractmethod
    def latents(self, x: Tensor) -> Tensor:
        """Images, int64 ``(N, C, H, W)`` -> latents, int64 ``(N, D)``."""

    @abstractmethod
    def images(self, z: Tensor) -> Tensor:
        """Undoes :meth:`latents`."""

    @abstractmethod
    def parameters_of(self, i: int, known: Sequence[Tensor]) -> Parameters:
        """Distributions of the latents of a slice.

        Args:
            i: counted from the first slice of the finest level, 0.
            known: latents ``(N, C, H, W)``, int64, of the slices ``i + 1, ...``.

        Returns:
            In the order of the slice's part of joined latents; one row for all images where they do not depend on
            ``known``.
        """


def digest(parts: Iterable[bytes]) -> bytes:
    """A fingerprint of several parts, each with its length."""
    found = hashlib.sha256()
    for part in parts:
        found.update(len(part).to_bytes(8, "little") + part)
    return found.digest()[:FINGERPRINT_BYTES]


def array(x: Tensor) -> np.ndarray:
    """``x`` as a contiguous array on the CPU."""
    return np.ascontiguousarray(x.detach().cpu().numpy())


class FloatScheme(Scheme):
    """The flow in float64, one image at a time, so that batches give the same bits as single images.

    Two machines, or two versions of torch, can differ in the last bits of a sum, and so, at a rounding that is all but
    a tie, in an integer: about once in 1e13 roundings. Then an image does not decode, and its checksum says so.
    """

    integers = False

    def __init__(self, flow: IDF) -> None:
        self._given = flow
        self._flow = copy.deepcopy(flow).to("cpu", torch.float64).eval()
        assert isinstance(self._flow.base, MultiScalePrior) and isinstance(self._flow.couplings, IntegerLevels)
        self._base = self._flow.base
        c, h, w = self._flow.shape
        self.shape, self.shapes = (c, h, w), list(self._base.shapes)

    def fingerprint(self) -> bytes:
        """Of the weights as they were given, and of the numbers that no ``state_dict`` holds."""
        state = self._given.state_dict()
        parts = [repr((self.shape, self.shapes, self._given._unscaled, type(self._given).__name__)).encode()]
        for name in sorted(state):
            value = state[name]
            if isinstance(value, Tensor):
                parts += [f"{name} {value.dtype} {tuple(value.shape)}".encode(), array(value.double()).tobytes()]
        return digest(parts)

    @torch.no_grad()
    def latents(self, x: Tensor) -> Tensor:
        """Images, int64 ``(N, C, H, W)`` -> latents, int64 ``(N, D)``."""
        found = [self._flow(image.double())[0] for image in x.split(1)]
        return torch.cat(found).long()

    @torch.no_grad()
    def images(self, z: Tensor) -> Tensor:
        """Undoes :meth:`latents`."""
        return torch.cat([self._flow.inverse(row.double())[0] for row in z.split(1)]).long()

    @torch.no_grad()
    def parameters_of(self, i: int, known: Sequence[Tensor]) -> Parameters:
        """Distributions of the latents of a slice; see :class:`Scheme`."""
        rows = zip(*(latent.double().split(1) for latent in known), strict=True) if known else [()]
        found = [self._one(i, row) for row in rows]
        return Parameters(*(np.concatenate(tables) for tables in zip(*found, strict=True)))

    def _one(self, i: int, known: Sequence[Tensor]) -> Parameters:
        dims = 3 if self._base.is_mixture else 2
        found = self._base.parameters_of(i, known)
        *logits, mean, log_scale = (table if table.ndim == dims else table[None] for table in found)
        return on_grid(array(logits[0]) if logits else None, array(mean), array(log_scale))


def by_slice(z: Tensor, shapes: Sequence[Shape]) -> list[Tensor]:
    """Joined latents ``(N, D)`` as images, slice by slice."""
    return split_latents(z, shapes)
