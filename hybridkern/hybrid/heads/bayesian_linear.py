"""Bayesian linear regression on the latents: everything in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from hybridkern._arguments import as_flag, as_number
from hybridkern._finite import check_finite_values, is_plain
from hybridkern._values import refuse_vmap
from hybridkern.hybrid import _evidence
from hybridkern.hybrid._evidence import Posterior, Statistics
from hybridkern.hybrid._targets import check_targets, features_of
from hybridkern.hybrid.heads.base import Regressor, at_least_float32

_STATISTICS = ("gram", "moment", "square", "rows")


def check_positive(name: str, value: object) -> float:
    """``value`` as a finite, positive float; TypeError or ValueError otherwise."""
    return as_number(name, value, lambda v: math.isfinite(v) and v > 0, "a finite, positive number")


class BayesianLinear(Regressor):
    """Regression with a Gaussian prior on the weights: ``y = w' z + e``, integrated over ``w``.

    ``w ~ N(0, I / prior_precision)`` and ``e ~ N(0, noise**2)``. This is a Gaussian process with the kernel
    ``z' z' / prior_precision`` on the latents ``z = f(x)``.

    Three steps use it. Training the flow: :meth:`log_evidence`, which ``HybridModel.loss`` calls on each batch, has
    gradients with respect to the latents and, if ``trainable``, to the two hyperparameters. Then :meth:`observe` takes
    in the training data, batch by batch, as sufficient statistics (``F**2 + F + 2`` numbers, whatever the number of
    rows). From then on the head predicts; before that it predicts from the prior.

    All arithmetic is in float64, by Cholesky factors. The hyperparameters and statistics stay in float64 when the
    module is converted to another dtype. The prediction ``(B, 2)`` is mean and log standard deviation.

    Args:
        dim: dimensions ``D`` of the latents.
        prior_precision: of each weight, in units of (latent / target) squared.
        noise: standard deviation of the observations around the line, in the units of ``y``.
        bias: adds a constant feature of 1 with the same prior; ``F`` is then ``D + 1``, otherwise ``D``.
        trainable: whether the hyperparameters (on a log scale: ``log_prior_precision``, ``log_noise``) get gradients.

    Raises:
        TypeError, ValueError: a number that is not finite and positive, or another argument of the wrong type.

    Source: Nalisnick et al. 2019 (arXiv:1902.02767), equation 13; Bishop 2006, "Pattern Recognition and Machine
    Learning", section 3.3.

    >>> import torch
    >>> head = BayesianLinear(1, prior_precision=1.0, noise=0.1)
    >>> z = torch.tensor([[1.0], [2.0], [3.0]])
    >>> prediction = head.observe(z, 2 * z[:, 0])(torch.tensor([[4.0]]))
    >>> round(head.mean(prediction).item(), 2)
    7.99
    """

    gram: Tensor
    moment: Tensor
    square: Tensor
    rows: Tensor
    log_prior_precision: nn.Parameter
    log_noise: nn.Parameter

    def __init__(
        self,
        dim: int,
        prior_precision: float = 1.0,
        noise: float = 1.0,
        *,
        bias: bool = False,
        trainable: bool = False,
    ) -> None:
        super().__init__(dim)
        self.bias, trainable = as_flag("bias", bias), as_flag("trainable", trainable)
        for name, value in (("prior_precision", prior_precision), ("noise", noise)):
            start = torch.tensor(math.log(check_positive(name, value)), dtype=torch.float64)
            self.register_parameter(f"log_{name}", nn.Parameter(start, requires_grad=trainable))
        features = self.dim + self.bias
        for name, shape in zip(_STATISTICS, ((features, features), (features,), (), ()), strict=True):
            self.register_buffer(name, torch.zeros(shape, dtype=torch.float64))

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> BayesianLinear:
        # Everything here is float64 whatever the model's dtype: statistics of many rows are worth nothing in float32.
        kept = {name: (value.detach(), value.grad) for name, value in self._own()}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, value in self._own():
            data, grad = kept[name]
            value.grad = None
            # from the meta device there is nothing to take along (to_empty)
            value.data = value.data.double() if data.is_meta else data.to(value.device)
            value.grad = None if grad is None else grad.to(value.device)
        return self

    def _own(self) -> list[tuple[str, Tensor]]:
        return [*self.named_parameters(), *self.named_buffers()]

    @property
    def prior_precision(self) -> Tensor:
        """The prior precision of each weight, ``()`` float64."""
        return self.log_prior_precision.exp()

    @property
    def noise(self) -> Tensor:
        """The standard deviation of the noise, ``()`` float64, in the units of ``y``."""
        return self.log_noise.exp()

    @property
    def statistics(self) -> Statistics:
        """What :meth:`observe` has gathered."""
        return Statistics(self.gram, self.moment, self.square, self.rows)

    def _rows(self, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        features = features_of(z, self.dim, self.bias)
        check_targets(y, len(z))
        return features, y.double()

    @torch.no_grad()
    def observe(self, z: Tensor, y: Tensor) -> BayesianLinear:
        """Adds rows to the data that the posterior is given; call it for each batch of the training data.

        Each process of a distributed run counts the rows that it was given: give all of them to every process.

        Args:
            z: latents ``(B, dim)``, any floating-point dtype.
            y: targets ``(B,)``.

        Returns:
            The head itself.

        Raises:
            TypeError, ValueError: another type or shape, or a value that is not finite; nothing is added then.
            RuntimeError: inside ``torch.func.vmap``.
        """
        refuse_vmap("BayesianLinear.observe", "it adds to buffers that all share")
        features, targets = self._rows(z, y)
        for given, value in (("z", features), ("y", targets)):  # on a GPU, too, where nothing has been looked at
            if is_plain(value):
                check_finite_values(given, value)
        for name, value in _evidence.statistics_of(features, targets)._asdict().items():
            getattr(self, name).add_(value)
        return self

    @torch.no_grad()
    def forget(self) -> BayesianLinear:
        """Removes all that was observed; the head predicts from its prior again."""
        for value in self.statistics:
            value.zero_()
        return self

    def posterior(self) -> Posterior:
        """The posterior of the weights given what was observed; the prior, if that is nothing.

        Returns:
            Mean ``(F,)`` and lower Cholesky factor ``(F, F)`` of the precision, float64; the bias comes last.

        Raises:
            ValueError: the precision is singular in float64: features that depend on each other linearly, together
                with a prior precision of less than about 1e-16 of their sum of squares over ``noise**2``.
        """
        return _evidence.posterior(self.statistics, self.prior_precision, self.noise)

    def forward(self, z: Tensor) -> Tensor:
        """Posterior predictive mean and log standard deviation ``(B, 2)``, the noise included.

        Args:
            z: latents ``(B, dim)``.

        Raises:
            TypeError, ValueError: another type or shape, or a latent that is not finite; as :meth:`posterior`.
        """
        features = features_of(z, self.dim, self.bias)
        weights = self.posterior()
        white = torch.linalg.solve_triangular(weights.precision_cholesky, features.T, upper=False)
        variance = white.square().sum(0) + self.noise.square()
        prediction = torch.stack([features @ weights.mean, 0.5 * variance.log()], 1)
        return prediction.to(at_least_float32(z).dtype)

    def log_evidence(self, z: Tensor, y: Tensor) -> Tensor:
        """Log marginal likelihood ``log N(y; 0, noise**2 I + Z Z' / prior_precision)`` in nats, ``()`` float64.

        Of the rows given alone, under the prior; what was observed does not enter. Computed from an ``F x F`` or an
        ``N x N`` matrix, whichever is smaller. Differentiable with respect to all arguments and hyperparameters.

        Args:
            z: latents ``(N, dim)``.
            y: targets ``(N,)``.

        Raises:
            TypeError, ValueError: another type or shape, a value that is not finite, or a matrix that is singular in
                float64.
        """
        features, targets = self._rows(z, y)
        return _evidence.evidence(features, targets, self.prior_precision, self.noise)

    def observed_log_evidence(self) -> Tensor:
        """:meth:`log_evidence` of all that was observed, from its statistics: ``()`` float64, 0 for no data.

        Its error is at most about 1e-14 of ``y'y / noise**2``: subtract the mean of targets that lie far from 0.
        """
        return _evidence.evidence_of_statistics(self.statistics, self.prior_precision, self.noise)

    def log_likelihood(self, z: Tensor, y: Tensor) -> Tensor:
        """Each row's equal share of :meth:`log_evidence` of the batch, ``(B,)`` in nats.

        On a full batch their sum is the paper's objective. Minibatches are treated as data sets of their own, each
        with its own weights; under the model this is, in expectation, a lower bound on the evidence of all rows.
        """
        share = self.log_evidence(z, y) / max(len(z), 1)
        return share.to(at_least_float32(z).dtype).expand(len(z))

    @torch.no_grad()
    def maximize_evidence(self) -> float:
        """Sets ``prior_precision`` and ``noise`` to those of the greatest evidence of what was observed.

        The noise is eliminated in closed form; the ratio that remains is searched over 28 decades, so that the
        maximum found is the global one. Features that explain nothing end at the lower end of the ratios, a prior
        precision that all but sets the weights to 0.

        Returns:
            The log evidence there, in nats.

        Raises:
            ValueError: nothing was observed, or the features explain the targets without error, so that there is no
                maximum, or but for 1e-11 of their sum of squares, which the statistics do not resolve.
            RuntimeError: inside ``torch.func.vmap``.
        """
        refuse_vmap("BayesianLinear.maximize_evidence", "its search goes by what it finds")
        precision, noise = _evidence.maximize(self.statistics)
        self.log_prior_precision.fill_(math.log(precision))
        self.log_noise.fill_(math.log(noise))
        return float(self.observed_log_evidence())
