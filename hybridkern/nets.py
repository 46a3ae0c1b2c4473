"""Networks for coupling layers and heads."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor, nn


def mlp(
    in_features: int,
    out_features: int,
    hidden: Sequence[int] = (256, 256),
    *,
    activation: Callable[[], nn.Module] = nn.LeakyReLU,
    dropout: float = 0.0,
    input_dropout: float = 0.0,
    zero_last: bool = False,
) -> nn.Sequential:
    """Multi-layer perceptron ``(B, in_features) -> (B, out_features)``.

    Args:
        in_features, out_features: sizes of input and output.
        hidden: sizes of the hidden layers; empty gives one linear layer.
        activation: builds the activation after each hidden layer. The default has no transcendental function, so
            that its value does not depend on a mathematical library.
        dropout: probability of dropping a hidden unit in training; 0 adds no layer.
        input_dropout: the same for the inputs.
        zero_last: start from zero output, so that a flow made of such networks starts as the identity.

    Raises:
        ValueError: a size is not a positive integer, or a dropout probability is outside ``[0, 1)``.
    """
    sizes = (in_features, *hidden, out_features)
    if any(not isinstance(size, int) or size < 1 for size in sizes):
        raise ValueError(f"mlp: got layer sizes {sizes}, expected positive integers")
    for name, value in (("dropout", dropout), ("input_dropout", input_dropout)):
        if not 0 <= value < 1:
            raise ValueError(f"{name}: got {value!r}, expected a probability in [0, 1)")
    layers: list[nn.Module] = [nn.Dropout(input_dropout)] if input_dropout else []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), activation()]
        if dropout:
            layers.append(nn.Dropout(dropout))
    layers = layers[: len(layers) - (2 if dropout else 1)]
    last = layers[-1]
    if zero_last:
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
    return nn.Sequential(*layers)


class Scaled(nn.Module):
    """``scale * net((x - center) / scale)``: a network for integers far from 0 that itself sees numbers of order 1.

    Args:
        net: the network, on the scaled values.
        center, scale: middle and half range of the data, in their units.

    Raises:
        ValueError: ``center`` is not finite, or ``scale`` not finite and positive.
    """

    def __init__(self, net: nn.Module, center: float = 0.0, scale: float = 1.0) -> None:
        super().__init__()
        if not math.isfinite(center):
            raise ValueError(f"center: got {center!r}, expected a finite number")
        if not (math.isfinite(scale) and scale > 0):
            raise ValueError(f"scale: got {scale!r}, expected a finite number greater than 0")
        self.net = net
        self.center = float(center)
        self.scale = float(scale)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` ``(B, in_features)`` -> ``(B, out_features)``, both in the units of the data."""
        y: Tensor = self.net((x - self.center) / self.scale)
        return self.scale * y

    def extra_repr(self) -> str:
        """The two numbers, for ``print``."""
        return f"center={self.center}, scale={self.scale}"
