"""Linear and convolutional layers that know the singular vectors of their weight, from which their norm is read."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, NamedTuple
from weakref import ref

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hybridkern._finite import is_plain, readable
from hybridkern._values import version_of

_TRUSTED = 0.1  # what loaded vectors may be off, of their norm: beyond, they belong to other weights


class _Followed(NamedTuple):
    """The weight whose singular vectors are known: the tensor, its version and place, and on the CPU its values.

    Some optimizers write through ``.data``, which gives no new version. Reading values would wait for a device.
    """

    weight: ref[Tensor]
    version: int
    place: int
    values: Tensor | None

    @classmethod
    def of(cls, weight: Tensor) -> _Followed:
        values = weight.detach().clone() if readable(weight) else None
        return cls(ref(weight), version_of(weight), _place(weight), values)

    def holds(self, weight: Tensor) -> bool:
        if self.values is not None and readable(weight):
            return self.values.dtype is weight.dtype and torch.equal(self.values, weight.detach())
        return self.weight() is weight and (self.version, self.place) == (version_of(weight), _place(weight))


def _place(weight: Tensor) -> int:
    return weight.data_ptr() if is_plain(weight) else 0


class LipschitzLayer(nn.Module, ABC):
    """A linear map with an approximate pair of its leading singular vectors, kept as buffers.

    The map is applied with a weight that is handed over: dividing the weight by its norm once per step serves all
    calls in that step.

    Attributes:
        weight, bias: as of :class:`torch.nn.Linear` or :class:`torch.nn.Conv2d`.
        left, right: unit vectors, approximately ``W right = sigma left``; shapes of an output and an input.
        settled: whether power iteration has run to its end once.
    """

    left: Tensor
    right: Tensor
    settled: Tensor

    def __init__(self, weight: Tensor, outputs: tuple[int, ...], inputs: tuple[int, ...]) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros(weight.shape[0]))
        for name, shape in (("left", outputs), ("right", inputs)):
            vector = torch.randn(shape)
            self.register_buffer(name, vector / vector.norm())
        self.register_buffer("settled", torch.zeros(()))  # a number: averaged models average buffers
        self._followed: _Followed | None = None

    def is_followed(self, weight: Tensor | None = None) -> bool:
        """Whether the singular vectors are those of the weight as it is now; on a device, as far as writes tell.

        ``weight`` takes the place of the layer's own.
        """
        return self._followed is not None and self._followed.holds(self.weight if weight is None else weight)

    def _mark(self) -> None:
        self._followed = _Followed.of(self.weight)

    def follow(self, left: Tensor, right: Tensor) -> None:
        """Takes new singular vectors of the weight."""
        self.left.copy_(left)
        self.right.copy_(right)
        self.settled.fill_(True)
        if not torch.compiler.is_compiling():  # a compiled pass iterates always
            self._mark()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_followed": self.is_followed()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # a copy has a weight of its own
        super().__setstate__(state | {"_followed": None})  # type: ignore[no-untyped-call]
        if state["_followed"]:
            self._mark()

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        given = state_dict.get(f"{prefix}settled")
        if given is not None and not given.is_meta and given and is_plain(self.weight) and self._fits():
            self._mark()

    def _save_to_state_dict(self, destination: dict[str, Tensor], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if is_plain(self.settled) and not self.is_followed():  # so that a loaded layer iterates, as this one will
            destination[f"{prefix}settled"] = torch.zeros_like(self.settled)

    @torch.no_grad()
    def _fits(self) -> bool:
        """Whether loaded vectors belong to the loaded weight: those of averaged checkpoints do not."""
        weights, left, right = (value.detach()[None] for value in (self.weight, self.left, self.right))
        image = self.images(weights, right)
        off = torch.stack([(image - image.norm() * left).norm() / image.norm(), right.norm() - 1, left.norm() - 1])
        return bool((off.abs() < _TRUSTED).all())

    @property
    def kind(self) -> tuple[object, ...]:
        """Layers of one kind can share one batched iteration."""
        return type(self), tuple(self.weight.shape), tuple(self.right.shape)

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        """The map of ``x``, with ``weight`` in the place of the layer's own."""
        return self.mapped(x, weight, self.bias)

    @staticmethod
    @abstractmethod
    def mapped(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The map of ``x``; without a bias that of directions."""

    @staticmethod
    @abstractmethod
    def images(weights: Tensor, rights: Tensor) -> Tensor:
        """``W v`` for ``L`` layers at once: weights ``(L, *weight)``, vectors ``(L, *input)`` -> ``(L, *output)``."""

    @staticmethod
    @abstractmethod
    def preimages(weights: Tensor, lefts: Tensor) -> Tensor:
        """``W^T u`` for ``L`` layers at once."""


class LipschitzLinear(LipschitzLayer):
    """On vectors ``(B, inputs)``, or on images with a 1x1 kernel: there its norm is that of the matrix.

    Args:
        inputs, outputs: features, or channels.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        bound = 1 / math.sqrt(inputs)
        super().__init__(torch.empty(outputs, inputs).uniform_(-bound, bound), (outputs,), (inputs,))

    @staticmethod
    def mapped(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """See :class:`LipschitzLayer`."""
        if x.ndim == 4:
            return F.conv2d(x, weight[:, :, None, None], bias)
        return F.linear(x, weight, bias)

    @staticmethod
    def images(weights: Tensor, rights: Tensor) -> Tensor:
        """See :class:`LipschitzLayer`."""
        return (weights * rights[:, None]).sum(2)  # as products of matrices it takes three to five times as long

    @staticmethod
    def preimages(weights: Tensor, lefts: Tensor) -> Tensor:
        """See :class:`LipschitzLayer`."""
        return (lefts[:, None] @ weights)[:, 0]


class LipschitzConv2d(LipschitzLayer):
    """3x3 convolution with zeros around the image; its norm is that of the map on images of the given size.

    Args:
        inputs, outputs: channels.
        size: height and width of the images.
    """

    def __init__(self, inputs: int, outputs: int, size: tuple[int, int]) -> None:
        bound = 1 / math.sqrt(9 * inputs)
        weight = torch.empty(outputs, inputs, 3, 3).uniform_(-bound, bound)
        super().__init__(weight, (outputs, *size), (inputs, *size))

    @staticmethod
    def mapped(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """See :class:`LipschitzLayer`."""
        return F.conv2d(x, weight, bias, padding=1)

    @staticmethod
    def images(weights: Tensor, rights: Tensor) -> Tensor:
        """See :class:`LipschitzLayer`."""
        count, outputs = weights.shape[:2]
        size = rights.shape[2:]
        found = F.conv2d(rights.reshape(1, -1, *size), weights.flatten(0, 1), padding=1, groups=count)
        return found.view(count, outputs, *size)

    @staticmethod
    def preimages(weights: Tensor, lefts: Tensor) -> Tensor:
        """See :class:`LipschitzLayer`."""
        count, _, inputs = weights.shape[:3]
        size = lefts.shape[2:]
        found = F.conv_transpose2d(lefts.reshape(1, -1, *size), weights.flatten(0, 1), padding=1, groups=count)
        return found.view(count, inputs, *size)
