"""Heads: the distribution of the target given the latents of a flow."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from hybridkern.hybrid._labels import log_prob_of_labels
from hybridkern.nets import mlp


class Categorical(nn.Module):
    """Classification: ``p(y|x) = softmax(head(z))``. Logits in and out; the softmax is never formed to take its log.

    Args:
        dim: dimensions of the latents.
        classes: number of classes, at least 2.
        hidden: hidden sizes; empty is a generalized linear model, otherwise a perceptron.
        activation: builds the activations.
        dropout: dropout probability in the hidden layers.

    Raises:
        ValueError: a size or probability out of range.

    Source: Nalisnick et al. 2019 (arXiv:1902.02767).
    """

    def __init__(
        self,
        dim: int,
        classes: int,
        hidden: Sequence[int] = (),
        *,
        activation: Callable[[], nn.Module] = nn.LeakyReLU,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if not isinstance(classes, int) or classes < 2:
            raise ValueError(f"classes: got {classes!r}, expected an integer of at least 2")
        self.dim = dim
        self.classes = classes
        self.net = mlp(dim, classes, hidden, activation=activation, dropout=dropout)

    def forward(self, z: Tensor) -> Tensor:
        """Logits ``(B, classes)`` for latents ``z`` ``(B, dim)``."""
        logits: Tensor = self.net(z)
        return logits

    def log_prob(self, prediction: Tensor, y: Tensor) -> Tensor:
        """``log p(y|x)`` in nats, ``(B,)``, at least float32.

        Args:
            prediction: logits ``(B, classes)``.
            y: labels ``(B,)`` in ``0 .. classes-1``, any integer dtype.

        Raises:
            TypeError: ``y`` is not an integer tensor.
            ValueError: ``y`` has another shape or a label out of range; -1 (unlabelled) is out of range too.
        """
        return log_prob_of_labels(torch.log_softmax(_at_least_float32(prediction), 1), y)

    def probabilities(self, prediction: Tensor) -> Tensor:
        """``p(y|x)`` of every class, ``(B, classes)``, from logits."""
        return torch.softmax(_at_least_float32(prediction), 1)

    def predict(self, prediction: Tensor) -> Tensor:
        """The most probable class, ``(B,)`` int64, from logits."""
        return prediction.argmax(1)


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
