"""What every head is: latents in, a prediction out, and the log-probability of a target under the prediction."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from hybridkern._arguments import as_size
from hybridkern._finite import check_finite_values, is_plain
from hybridkern._ranks import rows_over_ranks
from hybridkern._saved.built import Built
from hybridkern.hybrid._labels import log_prob_of_labels
from hybridkern.hybrid._targets import check_targets

_HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


def at_least_float32(x: Tensor) -> Tensor:
    """``x``, or its float32 copy where its dtype is a lower one."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class Head(Built, nn.Module, ABC):
    """``p(y|x)`` as a function of the latents: ``head(z)`` is a ``prediction``, which the other methods take.

    Args:
        dim: dimensions ``D`` of the latents.

    Raises:
        TypeError, ValueError: ``dim`` is not a positive integer.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = as_size("dim", dim)

    def initialize(self, z: Tensor, y: Tensor | None = None) -> None:
        """Sets what starts from a sample of the latents ``(N, dim)`` and targets ``(N,)``: here, nothing."""

    @abstractmethod
    def forward(self, z: Tensor) -> Tensor:
        """The prediction for latents ``z`` ``(B, dim)``."""

    @abstractmethod
    def log_prob(self, prediction: Tensor, y: Tensor) -> Tensor:
        """``log p(y|x)`` of each example in nats, ``(B,)``, at least float32."""

    @abstractmethod
    def predict(self, prediction: Tensor) -> Tensor:
        """The point prediction of each example, ``(B,)``."""

    def log_likelihood(self, z: Tensor, y: Tensor) -> Tensor:
        """What training maximizes, ``(B,)`` in nats: ``log p(y|x)``, or a Bayesian head's share of its evidence.

        Args:
            z: latents ``(B, dim)``.
            y: targets ``(B,)``, as :meth:`log_prob` takes them.

        Raises:
            TypeError, ValueError: as :meth:`log_prob`.
        """
        return self.log_prob(self(z), y)

    def log_likelihood_of_labelled(self, z: Tensor, y: Tensor, labelled: Tensor) -> Tensor:
        """:meth:`log_likelihood` of the rows that have a target, 0 for the others: ``(B,)`` in nats.

        A head whose rows share something among them shares it among these.

        Args:
            z: latents ``(B, dim)``.
            y: targets ``(B,)``, any valid ones where there are none.
            labelled: ``(B,)`` bool.

        Raises:
            TypeError, ValueError: as :meth:`log_prob`.
        """
        return torch.where(labelled, self.log_likelihood(z, y), 0.0)


class Classifier(Head):
    """A head whose targets are classes.

    Args:
        dim: dimensions of the latents.
        classes: number of classes, at least 2.

    Raises:
        TypeError, ValueError: ``dim`` or ``classes`` is too small or no integer.
    """

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__(dim)
        self.classes = as_size("classes", classes, 2)

    @abstractmethod
    def log_probabilities(self, prediction: Tensor) -> Tensor:
        """``log p(y|x)`` of every class in nats, ``(B, classes)``, at least float32."""

    def probabilities(self, prediction: Tensor) -> Tensor:
        """``p(y|x)`` of every class, ``(B, classes)``, at least float32."""
        return self.log_probabilities(prediction).exp()

    def log_prob(self, prediction: Tensor, y: Tensor) -> Tensor:
        """``log p(y|x)`` in nats, ``(B,)``, at least float32.

        Args:
            prediction: of the head, for ``B`` examples.
            y: labels ``(B,)`` in ``0 .. classes-1``, any integer dtype.

        Raises:
            TypeError: ``y`` is not an integer tensor.
            ValueError: ``y`` has another shape or a label out of range; -1 (unlabelled) is out of range too.
        """
        return log_prob_of_labels(self.log_probabilities(prediction), y)

    def entropy(self, prediction: Tensor) -> Tensor:
        """Entropy of ``p(y|x)`` in nats, ``(B,)``: 0 for a certain prediction, ``log(classes)`` for an even one."""
        log_p = self.log_probabilities(prediction)
        p = log_p.exp()
        # 0 log 0 is 0, and so is its gradient
        return -(p * torch.where(p > 0, log_p, torch.zeros_like(log_p))).sum(1)

    def predict(self, prediction: Tensor) -> Tensor:
        """The most probable class, ``(B,)`` int64."""
        return self.log_probabilities(prediction).argmax(1)


class Regressor(Head):
    """A head with a Gaussian ``p(y|x)`` on the real line; its prediction ``(B, 2)`` is mean and log standard deviation.

    Both are in the units of ``y``.
    """

    def log_prob(self, prediction: Tensor, y: Tensor) -> Tensor:
        """``log N(y; mean, std**2)`` in nats, ``(B,)``, at least float32.

        Args:
            prediction: ``(B, 2)``.
            y: targets ``(B,)``, floating point, in their own units.

        Raises:
            TypeError: ``y`` is not a floating-point tensor.
            ValueError: another shape, or a target that is not finite. On a GPU and in compiled graphs the values are
                not looked at, and a NaN passes through.
        """
        check_targets(y, len(prediction))
        mean, log_std = at_least_float32(prediction).unbind(1)
        wide = torch.promote_types(mean.dtype, y.dtype)  # a target far from 0 is rounded after the difference
        residual = (y.to(wide) - mean.to(wide)).to(mean.dtype) * torch.exp(-log_std)
        return -0.5 * residual.square() - log_std - _HALF_LOG_TWO_PI

    def predict(self, prediction: Tensor) -> Tensor:
        """The predictive mean, ``(B,)``."""
        return self.mean(prediction)

    def mean(self, prediction: Tensor) -> Tensor:
        """The predictive mean ``(B,)``, in the units of ``y``."""
        return prediction[:, 0]

    def std(self, prediction: Tensor) -> Tensor:
        """The predictive standard deviation ``(B,)``, noise included, in the units of ``y``."""
        return prediction[:, 1].exp()

    def variance(self, prediction: Tensor) -> Tensor:
        """The predictive variance ``(B,)``, noise included, in squared units of ``y``."""
        return (2 * prediction[:, 1]).exp()


def standardization(z: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Mean of each latent ``(dim,)``, and the standard deviation of all of them together, over those of all ranks.

    One scale for all, since a latent that hardly varies in the sample would be blown up by its own.

    Raises:
        TypeError: ``z`` is no tensor.
        ValueError: ``z`` is not ``(N, dim)`` with a row, a value is not finite, or none differs from another.
    """
    if not isinstance(z, Tensor):
        raise TypeError(f"z: got {type(z).__name__}, expected a torch.Tensor")
    z = rows_over_ranks(at_least_float32(z if z.is_floating_point() else z.to(torch.get_default_dtype())))
    if z.ndim != 2 or z.shape[1] != dim or len(z) == 0:
        raise ValueError(f"z: got shape {tuple(z.shape)}, expected (N, {dim}) with at least one row")
    if is_plain(z):
        check_finite_values("z", z)
    center = z.mean(0)
    scale = (z - center).square().mean().sqrt()
    if is_plain(z) and not (scale.isfinite() and scale > 0):
        raise ValueError(f"z: got latents of standard deviation {scale.item()}, expected a finite, positive one")
    return center, scale
