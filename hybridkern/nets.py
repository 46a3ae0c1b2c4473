"""Networks for coupling layers and heads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import nn


def mlp(
    in_features: int,
    out_features: int,
    hidden: Sequence[int] = (256, 256),
    *,
    activation: Callable[[], nn.Module] = nn.LeakyReLU,
    dropout: float = 0.0,
    zero_last: bool = False,
) -> nn.Sequential:
    """Multi-layer perceptron ``(B, in_features) -> (B, out_features)``.

    Args:
        in_features, out_features: sizes of input and output.
        hidden: sizes of the hidden layers; empty gives one linear layer.
        activation: builds the activation after each hidden layer. The default has no transcendental function, so
            that its value does not depend on a mathematical library.
        dropout: probability of dropping a hidden unit in training; 0 adds no layer.
        zero_last: start from zero output, so that a flow made of such networks starts as the identity.

    Raises:
        ValueError: a size is not a positive integer, or ``dropout`` is outside ``[0, 1)``.
    """
    sizes = (in_features, *hidden, out_features)
    if any(not isinstance(size, int) or size < 1 for size in sizes):
        raise ValueError(f"mlp: got layer sizes {sizes}, expected positive integers")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout: got {dropout!r}, expected a probability in [0, 1)")
    layers: list[nn.Module] = []
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
