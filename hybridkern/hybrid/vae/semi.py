"""What the models of ``p(x, y)`` share: labels and their absence, and the interface of a hybrid model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import partial

import torch
from torch import Tensor, nn

from hybridkern._arguments import as_size
from hybridkern._saved.built import Saved
from hybridkern._tensors import shape_text, total_dtype
from hybridkern.hybrid._labels import split_unlabelled
from hybridkern.hybrid.model import HybridOutput


def one_hot(y: Tensor, classes: int, like: Tensor) -> Tensor:
    """``(B, classes)`` in the dtype of ``like``."""
    return torch.nn.functional.one_hot(y, classes).to(like.dtype)


def log_shares(logits: Tensor) -> Tensor:
    """Log-softmax over the last dimension, at least float32: shares that do not sum to 1 make no bound."""
    return torch.log_softmax(logits.to(total_dtype(logits)), -1)


class SemiSupervisedVAE(Saved, nn.Module, ABC):
    """A model of ``p(x, y)`` with a classifier ``q(y|x)``, learnt from rows with and without a label.

    ``log_px`` of everything here **is a lower bound**, from one draw of the latents.

    Args:
        dim: dimensions of one example.
        classes: number of classes, at least 2.

    Raises:
        TypeError, ValueError: a number of the wrong type or range.
    """

    log_px_is_bound = True

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.dim, self.classes = as_size("dim", dim), as_size("classes", classes, 2)

    def _rows(self, x: Tensor) -> Tensor:
        """``x`` itself.

        Raises:
            TypeError: not a tensor.
            ValueError: rows of another number of values.
        """
        if not isinstance(x, Tensor):
            raise TypeError(f"x: got {type(x).__name__}, expected a torch.Tensor")
        if x.ndim < 2 or x.shape[1:].numel() != self.dim:
            raise ValueError(
                f"x: got shape {shape_text(x.shape)}, expected (B, {self.dim}), or images of as many values"
            )
        return x

    @abstractmethod
    def log_probabilities(self, x: Tensor) -> Tensor:
        """``log q(y|x)`` of every class in nats, ``(B, classes)``, at least float32."""

    @abstractmethod
    def labelled_bound(self, x: Tensor, y: Tensor) -> Tensor:
        """What rows of label ``y`` maximize, ``(B,)`` in nats.

        Raises:
            TypeError, ValueError: ``y`` is not one label for each row of ``x``, or rows have another width.
        """

    @abstractmethod
    def log_prob(self, x: Tensor) -> Tensor:
        """A lower bound of ``log p(x)``, ``(B,)`` in nats: what rows without a label maximize."""

    @abstractmethod
    def features(self, x: Tensor) -> Tensor:
        """Means of the latents, ``(B, L)``."""

    @abstractmethod
    def sample_of_class(
        self, label: int, n: int, *, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """``n`` samples of ``p(x|y=label)``, ``(n, dim)``, without gradient.

        ``temperature`` multiplies the deviations of the latents, and leaves the noise of ``p(x|z)`` as it is.

        Raises:
            TypeError, ValueError: no such class, or a negative ``n`` or ``temperature``.
        """

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Minus the bounds of all rows, a mean over the batch, in nats; ``y`` ``(B,)``, -1 for a row without a label.

        Raises:
            TypeError, ValueError: labels of another dtype or shape, or out of range, or rows of another width.
        """
        unlabelled, labels = split_unlabelled(y, len(self._rows(x)), self.classes)
        known, unknown = (~unlabelled).nonzero()[:, 0], unlabelled.nonzero()[:, 0]
        total = x.new_zeros(())
        if len(known):
            total = total - self.labelled_bound(x[known], labels[known]).sum()
        if len(unknown):
            total = total - self.log_prob(x[unknown]).sum()
        return total / max(len(x), 1)

    def forward(self, x: Tensor) -> HybridOutput:
        """Latents' means, the bound of ``log p(x)``, and ``log q(y|x)`` of every class."""
        return HybridOutput(self.features(x), self.log_prob(x), self.log_probabilities(x))

    @torch.no_grad()
    def predict_proba(self, x: Tensor) -> Tensor:
        """``q(y|x)`` of every class, ``(B, classes)``, without gradient."""
        return self.log_probabilities(x).exp()

    @torch.no_grad()
    def predict(self, x: Tensor) -> Tensor:
        """The most probable class, ``(B,)`` int64, without gradient."""
        return self.log_probabilities(x).argmax(1)

    @torch.no_grad()
    def sample(self, n: int, *, temperature: float = 1.0, generator: torch.Generator | None = None) -> Tensor:
        """``n`` samples of ``p(x)`` with classes in equal parts, ``(n, dim)``, without gradient."""
        n = as_size("n", n, 0)
        counts = [n // self.classes + (label < n % self.classes) for label in range(self.classes)]
        draw = partial(self.sample_of_class, temperature=temperature, generator=generator)
        return torch.cat([draw(label, count) for label, count in enumerate(counts)])
