"""Classification by a softmax."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from hybridkern._arguments import short
from hybridkern._tensors import check_width
from hybridkern.hybrid._labels import log_prob_of_labels
from hybridkern.hybrid.heads.base import Classifier, at_least_float32, standardization
from hybridkern.nets import as_probability, mlp


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
        seen: positions of the latents that the network sees, ``(K,)`` int64, such as those of a flow's top level;
            ``None``: all.
        label_smoothing: share of the label that training spreads over all classes.

    Raises:
        TypeError, ValueError: a size or probability out of range, or an argument of the wrong type.

    Source: Nalisnick et al. 2019 (arXiv:1902.02767).
    """

    _settings = ("label_smoothing",)
    center: Tensor
    scale: Tensor
    seen: Tensor | None

    def __init__(
        self,
        dim: int,
        classes: int,
        hidden: Sequence[int] = (),
        *,
        activation: Callable[[], nn.Module] = nn.LeakyReLU,
        dropout: float = 0.0,
        input_dropout: float = 0.0,
        seen: Tensor | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(dim, classes)
        width = self.dim if seen is None else len(_positions(seen, self.dim))
        self.net = mlp(width, self.classes, hidden, activation=activation, dropout=dropout, input_dropout=input_dropout)
        self.register_buffer("center", torch.zeros(width))
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("seen", seen)
        self.label_smoothing = as_probability("label_smoothing", label_smoothing)

    @torch.no_grad()
    def initialize(self, z: Tensor, y: Tensor | None = None) -> None:
        """Sets ``center`` to the mean of each latent and ``scale`` to the standard deviation of all of them together.

        One scale for all, since a latent that hardly varies in the sample would be blown up by its own.
        Under ``torch.distributed`` every rank must call this, each with its own ``z``: all start from all of it.

        Args:
            z: a sample of the latents, ``(N, dim)`` with ``N >= 1``, any dtype.
            y: taken as every head takes it; labels need no preparation.

        Raises:
            TypeError, ValueError: no tensor, another shape, a value that is not finite, or latents that do not vary.
        """
        center, scale = standardization(z, self.dim)
        if self.seen is not None:
            center, scale = standardization(z[:, self.seen], len(self.seen))
        self.center.copy_(center)
        self.scale.copy_(scale)

    def forward(self, z: Tensor) -> Tensor:
        """Logits ``(B, classes)`` for latents ``z`` ``(B, dim)``.

        Raises:
            TypeError, ValueError: ``z`` is no tensor, or has another shape.
        """
        check_width("z", z, self.dim)
        seen = z if self.seen is None else z[:, self.seen]
        logits: Tensor = self.net((seen - self.center) / self.scale)
        return logits

    def log_likelihood(self, z: Tensor, y: Tensor) -> Tensor:
        """What training maximizes, ``(B,)`` in nats: ``log p(y|x)``, with the label smoothed."""
        log_p = self.log_probabilities(self(z))
        log_py = log_prob_of_labels(log_p, y)
        return torch.lerp(log_py, log_p.mean(1), self.label_smoothing) if self.label_smoothing else log_py

    def log_probabilities(self, prediction: Tensor) -> Tensor:
        """``log p(y|x)`` of every class in nats, ``(B, classes)``, at least float32, from logits."""
        return torch.log_softmax(at_least_float32(prediction), 1)

    def probabilities(self, prediction: Tensor) -> Tensor:
        """``p(y|x)`` of every class, ``(B, classes)``, from logits."""
        return torch.softmax(at_least_float32(prediction), 1)

    def predict(self, prediction: Tensor) -> Tensor:
        """The most probable class, ``(B,)`` int64, from logits."""
        return prediction.argmax(1)


def _positions(seen: object, dim: int) -> Tensor:
    if not isinstance(seen, Tensor) or seen.dtype != torch.int64 or seen.ndim != 1 or len(seen) == 0:
        raise TypeError(f"seen: got {short(seen)}, expected positions of latents, (K,) in torch.int64")
    if not seen.is_meta and not (int(seen.min()) >= 0 and int(seen.max()) < dim):
        raise ValueError(f"seen: got {int(seen.min())} to {int(seen.max())}, expected positions from 0 to {dim - 1}")
    return seen
