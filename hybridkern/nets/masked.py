"""Masked networks: what they return for one feature depends on the features before it alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybridkern._arguments import as_builder, as_flag, as_size, as_sizes, built, short
from hybridkern._finite import is_plain
from hybridkern._saved.built import Built
from hybridkern._tensors import check_width
from hybridkern.nets.constant import Constant


class MaskedLinear(nn.Linear):
    """A linear layer some of whose weights are zero, whatever is written into them, and however.

    The weights are multiplied by the mask at each call. Zeros that were written into the weights once would not stay:
    a moving average of another model's weights, written through ``.data``, leaves no trace that could be looked for.

    Args:
        mask: ones and zeros, ``(out_features, in_features)``.

    Source: Germain et al. 2015 (arXiv:1502.03509), equation 9.
    """

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__(mask.shape[1], mask.shape[0])
        self.register_buffer("mask", mask.to(self.weight.dtype))

    def masked_weight(self) -> Tensor:
        """The weights with their zeros, ``(out_features, in_features)``."""
        return self.weight * self.mask

    def forward(self, x: Tensor) -> Tensor:
        """``x`` ``(B, in_features)`` -> ``(B, out_features)``."""
        return F.linear(x, self.masked_weight(), self.bias)


class MADE(Built, nn.Module):
    """Masked autoregressive network: ``outputs`` numbers per feature, computed from the features before it.

    The hidden units are sorted by their degree, the position of the last feature that they see. So the passes of an
    inverse (:class:`~hybridkern.transforms.Autoregressive`) compute each of them once, in blocks.

    Args:
        features: number of features ``D``.
        outputs: numbers that belong to one feature.
        hidden: sizes of the hidden layers; may be empty.
        context: width of a condition that all outputs see, or 0. It is added to the first hidden layer by weights of
            its own; without hidden layers, to the outputs.
        order: the features, 0 to ``D - 1``, in the order in which they are computed; by default as they stand.
        activation: builds the activation after each hidden layer, which must work element by element.
        zero_last: start from zero output.

    Attributes:
        order: as given.
        units: of each hidden layer the number of units of each degree, from 0 on.

    Raises:
        TypeError, ValueError: an argument of the wrong type or range.

    Source: Germain et al. 2015 (arXiv:1502.03509), section 4; degrees are spread evenly and not drawn. With a context
    there are hidden units of degree 0, which see it alone: the first feature depends on it too.

    >>> import torch
    >>> net = MADE(3, 2, hidden=(8,))
    >>> net(torch.zeros(5, 3)).shape
    torch.Size([5, 6])
    """

    def __init__(
        self,
        features: int,
        outputs: int = 2,
        hidden: Sequence[int] = (64, 64),
        *,
        context: int = 0,
        order: Sequence[int] | None = None,
        activation: Callable[[], nn.Module] = nn.ReLU,
        zero_last: bool = False,
    ) -> None:
        super().__init__()
        self.features, self.outputs = as_size("features", features), as_size("outputs", outputs)
        self.context_width = as_size("context", context, 0)
        sizes = as_sizes("hidden", hidden)
        as_builder("activation", activation, "a function that builds an activation, such as nn.ReLU")
        self.order = _checked_order(order, self.features)
        self.activations = nn.ModuleList()
        self.condition: nn.Module | None = None
        self.layers = nn.ModuleList()
        self.units: list[list[int]] = []
        if self.features == 1 and not self.context_width:  # nothing to see
            self.layers.append(Constant(self.outputs))
            return
        hidden_degrees = [self._hidden_degrees(size) for size in sizes]
        self.units += [torch.bincount(own, minlength=self.features).tolist() for own in hidden_degrees]
        masks = self._masks()
        device, dtype = torch.get_default_device(), torch.get_default_dtype()
        self.layers.extend(MaskedLinear(mask.to(dtype).to(device)) for mask in masks)
        self.activations.extend(built("activation", activation()) for _ in sizes)
        if self.context_width and self.features > 1:
            self.condition = nn.Linear(self.context_width, masks[0].shape[0], bias=False)
        if as_flag("zero_last", zero_last):
            last = self.layers[-1]
            assert isinstance(last, MaskedLinear)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def _places(self) -> Tensor:
        """Of each feature: 1 for the first in the order, ``features`` for the last."""
        places = torch.empty(self.features, dtype=torch.int64, device="cpu")
        places[list(self.order)] = torch.arange(1, self.features + 1, device="cpu")
        return places

    def _hidden_degrees(self, size: int) -> Tensor:
        least = 0 if self.context_width else 1
        return least + torch.arange(size, device="cpu") * (self.features - least) // size

    def _masks(self) -> list[Tensor]:
        """What each layer sees of the one before, true and false, on the CPU."""
        # a single feature sees the context alone, which then takes the place of the input
        seen = (
            torch.zeros(self.context_width, dtype=torch.int64, device="cpu") if self.features == 1 else self._places()
        )
        degrees = [seen, *(self._hidden_degrees(sum(counts)) for counts in self.units)]
        last = self._places().repeat_interleave(self.outputs) - 1
        return [later[:, None] >= before for before, later in pairwise([*degrees, last])]

    def check_state(self, state_dict: dict[str, Tensor], prefix: str) -> None:
        """The masks may have no more ones than those of this network: the order of its inverse is that of its masks.

        Raises:
            ValueError: ``state_dict`` holds others under ``prefix``, or such that are not ones and zeros.
        """
        masks = [] if self.features == 1 and not self.context_width else self._masks()
        for i, mask in enumerate(masks):
            given = state_dict.get(f"{prefix}layers.{i}.mask")
            if given is None or given.shape != mask.shape or not is_plain(given):
                continue
            if ((given != 0) & (given != 1)).any():
                raise ValueError(f"{prefix}layers.{i}.mask: got other values than 0 and 1")
            if (given.cpu().bool() & ~mask).any():  # fewer ones are those of someone who took connections away
                raise ValueError(f"order: got a state_dict of masks of another order, expected {short(self.order)}")

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        self.check_state(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def check(self, x: Tensor, context: Tensor | None) -> None:
        """The features and the condition must be those that the network was built for.

        Raises:
            TypeError, ValueError: another type or shape.
        """
        check_width("x", x, self.features)
        if not self.context_width:
            return
        check_width("context", context, self.context_width)
        assert context is not None
        if context.shape[0] != x.shape[0]:
            raise ValueError(f"context: got {context.shape[0]} rows, expected {x.shape[0]}, as x has")

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """All numbers of all features.

        Args:
            x: ``(B, features)``.
            context: ``(B, context)``; a network without one does not look at it.

        Returns:
            ``(B, features * outputs)``, those of a feature together.

        Raises:
            TypeError, ValueError: another type or shape.
        """
        self.check(x, context)
        h = x
        if self.features == 1 and context is not None:
            h = context
        for i, layer in enumerate(self.layers):
            h = layer(h)
            if i == 0 and self.condition is not None:
                h = h + self.condition(context)
            if i < len(self.activations):
                h = self.activations[i](h)
        return h

    def extra_repr(self) -> str:
        """Sizes, for ``print``."""
        return f"features={self.features}, outputs={self.outputs}, context={self.context_width}"


def _checked_order(order: object, features: int) -> tuple[int, ...]:
    if order is None:
        return tuple(range(features))
    given = as_sizes("order", order, 0)
    if sorted(given) != list(range(features)):
        raise ValueError(f"order: got {short(order)}, expected each of 0 to {features - 1} once")
    return given
