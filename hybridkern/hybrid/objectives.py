"""Objectives of hybrid models: how much weight ``log p(x)`` gets beside ``log p(y|x)``.

Called with ``log_py`` and ``log_px`` ``(B,)`` in nats and the number ``dim`` of dimensions of ``x``, an objective
returns the loss of each example, ``(B,)`` in nats. Conventions of the weight differ between papers; the relation to
:class:`Weighted` is given with each, and ``describe()`` says in one line what is minimized.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hybridkern import ops
from hybridkern._arguments import as_flag, as_number
from hybridkern._tensors import shape_text
from hybridkern.flows import FlowPass
from hybridkern.hybrid._labels import split_unlabelled
from hybridkern.hybrid.heads import Bayes, Classifier, Head

_NATS = "nats per example, mean over the batch"


class Objective(ABC):
    """What :meth:`hybridkern.hybrid.HybridModel.loss` takes; a subclass gives ``__call__`` and ``describe``."""

    @abstractmethod
    def __call__(self, log_py: Tensor, log_px: Tensor, dim: int) -> Tensor:
        """Loss of each example ``(B,)``."""

    @abstractmethod
    def describe(self) -> str:
        """What is minimized, in one line, with the convention of the weight and the unit."""

    def latents_for_head(self, z: Tensor) -> Tensor:
        """The latents ``(B, D)`` that the head is trained on: those of the flow."""
        return z

    def combine(self, log_py: Tensor, latents: FlowPass) -> Tensor:
        """Loss of each example ``(B,)`` from the head's part and the pass of the flow."""
        return self(log_py, latents.log_px, latents.dim)

    def loss(self, latents: FlowPass, head: Head, y: Tensor) -> Tensor:
        """Loss of each example ``(B,)`` in nats.

        Args:
            latents: of a batch of ``B`` examples.
            head: gives ``p(y|x)``.
            y: targets ``(B,)``, as the head's ``log_prob`` takes them.

        Raises:
            TypeError, ValueError: what the head raises.
        """
        return self.combine(head.log_likelihood(self.latents_for_head(latents.z), y), latents)


def _from_zero(value: float) -> bool:
    return math.isfinite(value) and value >= 0


def _above_zero(value: float) -> bool:
    return math.isfinite(value) and value > 0


_FROM_ZERO, _ABOVE_ZERO = "a finite number of at least 0", "a finite number greater than 0"


def _set(objective: Objective, **values: object) -> None:
    """Sets fields of a frozen dataclass, once they are checked, to the plain numbers that they stand for."""
    for name, value in values.items():
        object.__setattr__(objective, name, value)


def _as_weight(lam: float | Tensor, test: Callable[[float], bool], expected: str, name: str = "lam") -> float | Tensor:
    """``lam``, checked where it is a number; a tensor is looked at by no one, so that nothing waits for its device."""
    if not isinstance(lam, Tensor):
        return as_number(name, lam, test, expected)
    if lam.ndim or not lam.is_floating_point():
        raise ValueError(
            f"{name}: got {lam.dtype} of shape {tuple(lam.shape)}, expected {expected}, or a tensor () of one"
        )
    return lam


def _log(lam: float | Tensor) -> float | Tensor:
    return lam.log() if isinstance(lam, Tensor) else math.log(lam)


def _weight_text(lam: float | Tensor, per_dimension: bool) -> str:
    return f"{lam:g}/D" if per_dimension else f"{lam:g}"


@dataclass(frozen=True)
class Joint(Objective):
    """``-log p(y|x) - log p(x)``, the negative log-likelihood of the pair: ``Weighted(1)``."""

    def __call__(self, log_py: Tensor, log_px: Tensor, dim: int) -> Tensor:
        """Loss of each example ``(B,)``."""
        return -(log_py + log_px)

    def describe(self) -> str:
        """What is minimized, in one line."""
        return f"-log p(y|x) - log p(x), {_NATS} (lambda = 1)"


@dataclass(frozen=True)
class Weighted(Objective):
    """``-log p(y|x) - lam * log p(x)``; with ``per_dimension`` the weight is ``lam / dim``.

    ``HybridIDF(alpha=a)`` is ``Weighted(a)``; bits per dimension plus cross-entropy over ``ln 2`` (residual flows) is
    proportional to ``Weighted(1, per_dimension=True)``.

    Args:
        lam: the weight; or a tensor ``()`` on the model's device, which is read anew at each step: what a captured
            step (:class:`hybridkern.graphs.GraphedStep`) can follow. Its value is not checked.
        per_dimension: see above.

    Raises:
        TypeError, ValueError: an argument of the wrong type, or ``lam`` is not a finite number of at least 0.

    Source: Nalisnick et al. 2019 (arXiv:1902.02767), equation 7.
    """

    lam: float | Tensor
    per_dimension: bool = False

    def __post_init__(self) -> None:
        lam = _as_weight(self.lam, _from_zero, _FROM_ZERO)
        _set(self, lam=lam, per_dimension=as_flag("per_dimension", self.per_dimension))

    def __call__(self, log_py: Tensor, log_px: Tensor, dim: int) -> Tensor:
        """Loss of each example ``(B,)``."""
        return -log_py - (self.lam / dim if self.per_dimension else self.lam) * log_px

    def describe(self) -> str:
        """What is minimized, in one line."""
        weight = _weight_text(self.lam, self.per_dimension)
        where = "; D: dimensions of an example" if self.per_dimension else ""
        return f"-log p(y|x) - lambda log p(x), lambda = {weight}, {_NATS}{where}"


@dataclass(frozen=True)
class Convex(Objective):
    """``-(1 - lam) * log p(y|x) - lam * log p(x)``: 0 is purely discriminative, 1 purely generative.

    ``(1 - lam) * Weighted(lam / (1 - lam))``. ``lam`` may be a tensor, as that of :class:`Weighted`.

    Raises:
        TypeError, ValueError: ``lam`` is no number, or outside ``[0, 1]``.

    Source: Bouchard and Triggs 2004, "The tradeoff between generative and discriminative classifiers".
    """

    lam: float | Tensor

    def __post_init__(self) -> None:
        _set(self, lam=_as_weight(self.lam, lambda v: 0 <= v <= 1, "a number from 0 to 1"))

    def __call__(self, log_py: Tensor, log_px: Tensor, dim: int) -> Tensor:
        """Loss of each example ``(B,)``."""
        return -(1 - self.lam) * log_py - self.lam * log_px

    def describe(self) -> str:
        """What is minimized, in one line."""
        same = "all weight on p(x)" if self.lam == 1 else f"as lambda = {self.lam / (1 - self.lam):g} in Weighted"
        return f"-(1 - lambda) log p(y|x) - lambda log p(x), lambda = {self.lam:g}, {_NATS} ({same})"


@dataclass(frozen=True)
class JacobianWeighted(Objective):
    """``-log p(y|x) - log N(z; 0, I / lam) - lam * log|det dz/dx|``: the weight on the Jacobian alone.

    The latents' distribution is the Gaussian of variance ``1 / lam``, whatever the flow's own base is. For a flow over
    a standard Gaussian this is ``Weighted(lam)`` but for a constant, ``D/2 ((1 - lam) log(2 pi) - log lam)``: weighing
    ``log p(x)`` is the same as widening the latents and weighing the volume. Calling the objective with ``log_px``
    alone supposes such a flow.

    Args:
        lam: the weight; with ``per_dimension`` it is ``lam / dim``. It may be a tensor, as that of :class:`Weighted`.
        per_dimension: see ``lam``.

    Raises:
        TypeError, ValueError: an argument of the wrong type, or ``lam`` is not finite and positive.

    Source: Nalisnick et al. 2019 (arXiv:1902.02767), on equation 7.
    """

    lam: float | Tensor
    per_dimension: bool = False

    def __post_init__(self) -> None:
        lam = _as_weight(self.lam, _above_zero, _ABOVE_ZERO)
        _set(self, lam=lam, per_dimension=as_flag("per_dimension", self.per_dimension))

    def _weight(self, dim: int) -> float | Tensor:
        return self.lam / dim if self.per_dimension else self.lam

    def __call__(self, log_py: Tensor, log_px: Tensor, dim: int) -> Tensor:
        """Loss of each example ``(B,)``, for a flow whose base is the standard Gaussian."""
        lam = self._weight(dim)
        return -log_py - lam * log_px + 0.5 * dim * ((1 - lam) * math.log(2 * math.pi) - _log(lam))

    def combine(self, log_py: Tensor, latents: FlowPass) -> Tensor:
        """Loss of each example ``(B,)``, for a flow of any base."""
        lam = self._weight(latents.dim)
        scaled = ops.gaussian_log_prob(latents.z * lam**0.5) + 0.5 * latents.z.shape[1] * _log(lam)
        return -log_py - scaled - lam * latents.log_det

    def describe(self) -> str:
        """What is minimized, in one line."""
        weight = _weight_text(self.lam, self.per_dimension)
        return f"-log p(y|x) - log N(z; 0, I/lambda) - lambda log|det dz/dx|, lambda = {weight}, {_NATS}"


@dataclass(frozen=True)
class Separate(Objective):
    """``-log p(y|x) - log p(x)`` with the head's gradient kept from the flow: the naive baseline.

    The flow is trained on ``log p(x)`` alone, as in unsupervised learning, and the head on the latents as they come. A
    weight would change nothing but the flow's step size.
    """

    def __call__(self, log_py: Tensor, log_px: Tensor, dim: int) -> Tensor:
        """Loss of each example ``(B,)``."""
        return -(log_py + log_px)

    def latents_for_head(self, z: Tensor) -> Tensor:
        """The latents ``(B, D)`` without their gradient."""
        return z.detach()

    def describe(self) -> str:
        """What is minimized, in one line."""
        return f"-log p(y|x) for the head alone, -log p(x) for the flow alone, {_NATS}"


@dataclass(frozen=True)
class SemiSupervised(Objective):
    """``base`` on labelled rows; on rows with label -1 its term in ``p(x)``, plus ``entropy_weight`` times the entropy.

    Unlabelled rows train ``p(x)``, and the entropy term pushes boundaries between classes to where there are no data.
    In the mean of the loss over a batch, the term in ``p(x)`` is a mean over all rows, the term in ``p(y|x)`` one over
    the labelled rows and the entropy one over the unlabelled rows. In a batch without a label the term in ``p(y|x)`` is
    0, not undefined.

    Args:
        base: objective of labelled rows. Its unlabelled part is its value for ``log p(y|x) = 0``.
        entropy_weight: weight of the entropy of ``p(y|x)``, in nats, of unlabelled rows; 0 leaves it out. It may be a
            tensor, as the weight of :class:`Weighted`.
        balanced: as said above, so that a few labels among many rows keep their weight; without it all parts are
            sums over their rows divided by the rows of the batch. Few labels then have almost no weight beside the
            entropy, which is smallest where every answer is the same.

    Raises:
        ValueError: ``entropy_weight`` is not a finite number of at least 0.
        TypeError: ``base`` is no objective, or is one of these itself; in :meth:`loss`, the head is no classifier.

    Source: Nalisnick et al. 2019 (arXiv:1902.02767), semi-supervised experiments; Grandvalet and Bengio 2004,
    "Semi-supervised learning by entropy minimization".
    """

    base: Objective
    entropy_weight: float | Tensor = 1.0
    balanced: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.base, Objective) or isinstance(self.base, SemiSupervised):
            raise TypeError(f"base: got {type(self.base).__name__}, expected an objective for labelled rows")
        weight = _as_weight(self.entropy_weight, _from_zero, _FROM_ZERO, "entropy_weight")
        _set(self, entropy_weight=weight, balanced=as_flag("balanced", self.balanced))

    def __call__(self, log_py: Tensor, log_px: Tensor, dim: int) -> Tensor:
        """Loss of labelled examples ``(B,)``: that of ``base``."""
        return self.base(log_py, log_px, dim)

    def loss(self, latents: FlowPass, head: Head, y: Tensor) -> Tensor:
        """Loss of each example ``(B,)`` in nats; ``y`` ``(B,)`` holds classes, and -1 for unlabelled rows."""
        if not isinstance(head, Classifier):
            raise TypeError(f"head: got {type(head).__name__}, expected a classifier: -1 is a target like any other")
        z = self.base.latents_for_head(latents.z)
        unlabelled, labels = split_unlabelled(y, len(z), head.classes)
        known, unknown = self._factors(unlabelled)
        log_py = head.log_likelihood_of_labelled(z, labels, ~unlabelled)
        loss = self.base.combine(log_py * known, latents)
        if not isinstance(self.entropy_weight, Tensor) and self.entropy_weight == 0:
            return loss
        return loss + self.entropy_weight * unknown * torch.where(unlabelled, head.entropy(head(z)), 0.0)

    def _factors(self, unlabelled: Tensor) -> tuple[Tensor | float, Tensor | float]:
        """By what the parts of labelled and of unlabelled rows are multiplied."""
        if not self.balanced:
            return 1.0, 1.0
        rows, unknown = len(unlabelled), unlabelled.sum().double()
        return rows / (rows - unknown).clamp(min=1), rows / unknown.clamp(min=1)

    def describe(self) -> str:
        """What is minimized, in one line."""
        return (
            f"{self.base.describe()}; rows with label -1: the same without log p(y|x), "
            f"plus {self.entropy_weight:g} times the entropy of p(y|x) in nats"
            + ("; log p(y|x) and entropy are means over their own rows" if self.balanced else "")
        )


def consistency(latents: FlowPass, other: Tensor, head: Bayes) -> Tensor:
    """``-log p(x|y)`` of each example in nats, ``(B,)``, for the class ``y`` that another view of it is given.

    A term for unlabelled rows: both views, such as two shifts of an image, are to lie in one class. No gradient flows
    to the choice of the class.

    Args:
        latents: of the pass over one view.
        other: latents ``(B, D)`` of the other view.
        head: of the model.

    Raises:
        TypeError: the head is no :class:`~hybridkern.hybrid.heads.Bayes`.
        ValueError: ``other`` has another shape than the latents.

    Source: Izmailov et al. 2020 (arXiv:1912.13025), section 4.
    """
    if not isinstance(head, Bayes):
        raise TypeError(f"head: got {type(head).__name__}, expected heads.Bayes")
    if other.shape != latents.z.shape:  # a single row would be the class of all
        wanted = shape_text(latents.z.shape)
        raise ValueError(f"other: got shape {shape_text(other.shape)}, expected {wanted}, that of latents.z")
    with torch.no_grad():
        chosen = head.predict(head(other))
    log_pz: Tensor = (head(latents.z) - head.base.log_frequencies()).gather(1, chosen[:, None]).squeeze(1)
    return -(log_pz + latents.log_det)
