"""Classification by a softmax."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from hybridkern._tensors import check_width
from hybridkern.hybrid.heads.base import Classifier, at_least_float32, standardization
from hybridkern.nets import mlp


class Categorical(Classifier):
    """Classification: ``p(y|x) = softmax(head(z))``. Logits in and out; the softmax is never formed to take its log.

    The network sees ``(z - center) / scale``, two buffers ``(dim,)`` and ``()`` that start at 0 and 1 and that
    :meth:`initialize` sets from a sample.

    Args:
        dim: dimensions of the latents.
        classes: number of classes, at least 2.
        hidden: hidden sizes; empty is a generalized linear model, otherwise a perceptron.
        activation: builds the activations.
        dropout: dropout probability in the hidden layers.
        input_dropout: dropout probability of the latents.

    Raises:
        TypeError, ValueError: a size or probability out of range, or an argument of the wrong type.

    Source: Nalisnick et al. 2019 (arXiv:1902.02767).
    """

    center: Tensor
    scale: Tensor

    def __init__(
        self,
        dim: int,
        classes: int,
        hidden: Sequence[int] = (),
        *,
        activation: Callable[[], nn.Module] = nn.LeakyReLU,
        dropout: float = 0.0,
        input_dropout: float = 0.0,
    ) -> None:
        super().__init__(dim, classes)
        self.net = mlp(
            self.dim, self.classes, hidden, activation=activation, dropout=dropout, input_dropout=input_dropout
        )
        self.register_buffer("center", torch.zeros(self.dim))
        self.register_buffer("scale", torch.ones(()))

    @torch.no_grad()
    def initialize(self, z: Tensor, y: Tensor | None = None) -> None:
        """Sets ``center`` to the mean of each latent and ``scale`` to the standard deviation of all of them together.

        One scale for all, since a latent that hardly varies in the sample would be blown up by its own.

        Args:
            z: a sample of the latents, ``(N, dim)`` with ``N >= 1``, any dtype.
            y: taken as every head takes it; labels need no preparation.

        Raises:
            TypeError, ValueError: no tensor, another shape, a value that is not finite, or latents that do not vary.
        """
        center, scale = standardization(z, self.dim)
        self.center.copy_(center)
        self.scale.copy_(scale)

    def forward(self, z: Tensor) -> Tensor:
        """Logits ``(B, classes)`` for latents ``z`` ``(B, dim)``.

        Raises:
            TypeError, ValueError: ``z`` is no tensor, or has another shape.
        """
        check_width("z", z, self.dim)
        logits: Tensor = self.net((z - self.center) / self.scale)
        return logits

    def log_probabilities(self, prediction: Tensor) -> Tensor:
        """``log p(y|x)`` of every class in nats, ``(B, classes)``, at least float32, from logits."""
        return torch.log_softmax(at_least_float32(prediction), 1)

    def probabilities(self, prediction: Tensor) -> Tensor:
        """``p(y|x)`` of every class, ``(B, classes)``, from logits."""
        return torch.softmax(at_least_float32(prediction), 1)

    def predict(self, prediction: Tensor) -> Tensor:
        """The most probable class, ``(B,)`` int64, from logits."""
        return prediction.argmax(1)
