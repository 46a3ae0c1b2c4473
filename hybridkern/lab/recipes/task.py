"""What training, evaluation and sampling need of a hybrid model, whichever class it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Terms(NamedTuple):
    """Per example, from one pass: ``class_nll (B,)`` and ``nll (B,)`` in nats, ``predicted (B,)`` int64 classes."""

    class_nll: Tensor
    nll: Tensor
    predicted: Tensor


class Task(nn.Module, ABC):
    """A model with its objective ``-log p(y|x) - lam * log p(x)``, nats per example, averaged over a batch.

    Args:
        lam: the weight of the likelihood in nats per example, whatever unit a recipe's setting of that name has:
            :meth:`~hybridkern.lab.recipes.config.Config.weight` turns the one into the other.

    Attributes:
        brings_inputs: whether inputs on the CPU are brought to where the model lies.
    """

    brings_inputs = False

    def __init__(self, lam: float) -> None:
        super().__init__()
        self.lam = lam

    def initialize(self, x: Tensor, y: Tensor) -> None:
        """Sets what starts from the training data ``x (N, D)``, ``y (N,)``, without drawing random numbers."""

    def prior_parameters(self) -> list[nn.Parameter]:
        """Parameters of ``p(z)`` that take a learning rate of their own and no weight decay; none, here."""
        return []

    @abstractmethod
    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """The objective to minimize, a 0-d tensor, for ``x (B, D)`` and ``y (B,)``."""

    @abstractmethod
    def terms(self, x: Tensor, y: Tensor) -> Terms:
        """Both parts of the objective and the prediction, per example."""

    def refit(self) -> None:
        """Brings what is computed from the training data, not trained, in line with the weights; nothing, here."""

    def errors(self, predicted: Tensor, y: Tensor) -> Tensor:
        """Of each example ``(B,)``, what ``val_error`` is the mean of: whether the class is wrong, here."""
        return predicted != y

    def error_text(self, mean: float) -> str:
        """The mean of :meth:`errors` as the progress line shows it."""
        return f"error {mean:.1%}"

    @abstractmethod
    def latent(self, x: Tensor) -> Tensor:
        """``z (B, D)`` of ``x (B, D)``."""

    @abstractmethod
    def invert(self, z: Tensor) -> Tensor:
        """``x (B, D)`` of ``z (B, D)``."""

    @abstractmethod
    def sample(self, n: int, temperature: float = 1.0, label: int | None = None) -> Tensor:
        """``n`` draws ``(n, D)`` from the model, or of the class ``label``, with torch's global generator.

        Raises:
            TypeError, ValueError: the model has no temperature or draws no classes; the class is too rare.
        """


def samples_of(model: Any, n: int, temperature: float, label: int | None) -> Tensor:
    """``n`` samples of a model, or of one of its classes."""
    if label is None:
        drawn: Tensor = model.sample(n, temperature=temperature)
    else:
        drawn = model.sample_of_class(label, n, temperature=temperature)
    return drawn


def uniform(x: Tensor, generator: torch.Generator | None, dtype: torch.dtype | None = None) -> Tensor:
    """Uniform numbers like ``x``, from 0 to below 1; those of a generator are drawn where it is."""
    device = x.device if generator is None else generator.device
    return torch.rand(x.shape, generator=generator, dtype=dtype or x.dtype, device=device).to(x.device)
