"""Heads: the distribution of the target given the latents of a flow."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from hybridkern.hybrid._labels import log_prob_of_labels
from hybridkern.nets import mlp


class Categorical(nn.Module):
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
        ValueError: a size or probability out of range.

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
        super().__init__()
        if not isinstance(classes, int) or classes < 2:
            raise ValueError(f"classes: got {classes!r}, expected an integer of at least 2")
        self.dim = dim
        self.classes = classes
        self.net = mlp(dim, classes, hidden, activation=activation, dropout=dropout, input_dropout=input_dropout)
        self.register_buffer("center", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(()))

    @torch.no_grad()
    def initialize(self, z: Tensor) -> None:
        """Sets ``center`` to the mean of each latent and ``scale`` to the standard deviation of all of them together.

        One scale for all, since a latent that hardly varies in the sample would be blown up by its own.

        Args:
            z: a sample of the latents, ``(N, dim)`` with ``N >= 1``, any dtype.

        Raises:
            ValueError: another shape, a value that is not finite, or latents that do not vary at all.
        """
        if z.ndim != 2 or z.shape[1] != self.dim or len(z) == 0:
            raise ValueError(f"z: got shape {tuple(z.shape)}, expected (N, {self.dim}) with at least one row")
        z = z.to(torch.promote_types(z.dtype, torch.float32))
        center = z.mean(0)
        scale = (z - center).square().mean().sqrt()
        if not (scale.isfinite() and scale > 0):
            raise ValueError(f"z: got latents of standard deviation {scale.item()}, expected a finite, positive one")
        self.center.copy_(center)
        self.scale.copy_(scale)

    def forward(self, z: Tensor) -> Tensor:
        """Logits ``(B, classes)`` for latents ``z`` ``(B, dim)``."""
        logits: Tensor = self.net((z - self.center) / self.scale)
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
