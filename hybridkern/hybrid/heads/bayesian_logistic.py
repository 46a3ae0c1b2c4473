"""Bayesian logistic regression on the latents: a variational or a Laplace posterior."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from hybridkern._arguments import as_flag, as_name, as_size
from hybridkern._finite import check_finite_values
from hybridkern._values import refuse_vmap
from hybridkern.hybrid import _laplace
from hybridkern.hybrid._labels import check_labels
from hybridkern.hybrid._logistic_normal import expected_log_sigmoid, log_expected_sigmoid
from hybridkern.hybrid._targets import features_of
from hybridkern.hybrid.heads.base import Classifier, at_least_float32
from hybridkern.hybrid.heads.bayesian_linear import check_positive

COVARIANCES = ("full", "diagonal")
_LEAST_VARIANCE = 1e-12


class BayesianLogistic(Classifier):
    """Two classes with a Gaussian prior on the weights: ``p(y=1|x) = E[sigma(w' z)]`` over ``q(w)``.

    The prior is ``w ~ N(0, I / prior_precision)``; ``q(w) = N(mean, L L')`` approximates the posterior. Trained by
    gradient, as ``HybridModel.loss`` does, ``q`` follows the evidence lower bound (:meth:`elbo`); :meth:`laplace` sets
    it to the Gaussian around the most probable weights instead. It starts at the prior.

    Expectations over ``q`` are one-dimensional integrals, which are computed in float64 to about ten digits: no
    sampling. The prediction ``(B, 2)`` is mean and standard deviation of the logit ``w' z``.

    Args:
        dim: dimensions ``D`` of the latents.
        prior_precision: of each weight.
        rows: labelled rows ``N`` of the training data, over which the Kullback-Leibler divergence is shared out in
            minibatches; ``None`` takes every batch for the whole data set.
        bias: adds a constant feature of 1 with the same prior; ``F`` is then ``D + 1``, otherwise ``D``.
        covariance: of ``q``: ``"full"``, ``F**2`` numbers, or ``"diagonal"``.

    Raises:
        TypeError, ValueError: a number that is not positive, an unknown ``covariance``, or another argument of the
            wrong type.

    Source: Nalisnick et al. 2019 (arXiv:1902.02767), equation 14; Bishop 2006, "Pattern Recognition and Machine
    Learning", section 4.5, for the Laplace approximation.

    >>> import torch
    >>> head = BayesianLogistic(2)
    >>> head.probabilities(head(torch.zeros(1, 2))).tolist()
    [[0.5, 0.5]]
    """

    _settings = ("prior_precision", "rows")

    def __init__(
        self,
        dim: int,
        prior_precision: float = 1.0,
        *,
        rows: int | None = None,
        bias: bool = False,
        covariance: str = "full",
    ) -> None:
        super().__init__(dim, 2)
        as_name("covariance", covariance, COVARIANCES)
        self.prior_precision = check_positive("prior_precision", prior_precision)
        self.rows = None if rows is None else as_size("rows", rows, expected="a positive integer or None")
        self.bias = as_flag("bias", bias)
        self.covariance = covariance
        features = self.dim + self.bias
        self.mean = nn.Parameter(torch.zeros(features))
        self.log_diagonal = nn.Parameter(torch.full((features,), -0.5 * math.log(self.prior_precision)))
        below = torch.zeros(features, features) if covariance == "full" else None
        self.below_diagonal = None if below is None else nn.Parameter(below)

    def cholesky(self) -> Tensor:
        """Lower Cholesky factor ``L`` of the covariance of ``q``, ``(F, F)`` float64."""
        diagonal = torch.diag(self.log_diagonal.double().exp())
        return diagonal if self.below_diagonal is None else diagonal + self.below_diagonal.double().tril(-1)

    def _logits(self, z: Tensor) -> tuple[Tensor, Tensor]:
        features = features_of(z, self.dim, self.bias)
        variance = (features @ self.cholesky()).square().sum(1)
        # the square root has a kink at 0, where what follows is smooth in the variance: without the addition, which is
        # below what the integrals resolve, its part of second derivatives at z = 0 would be lost
        return features @ self.mean.double(), (variance + _LEAST_VARIANCE).sqrt()

    def forward(self, z: Tensor) -> Tensor:
        """Mean and standard deviation of the logit, ``(B, 2)``, for latents ``z`` ``(B, dim)``.

        Raises:
            TypeError, ValueError: another type or shape, or a latent that is not finite.
        """
        return torch.stack(self._logits(z), 1).to(at_least_float32(z).dtype)

    def log_probabilities(self, prediction: Tensor) -> Tensor:
        """``log p(y|x)`` of both classes in nats, ``(B, 2)``, at least float32."""
        mean, std = prediction.double().unbind(1)
        both = torch.stack([log_expected_sigmoid(-mean, std), log_expected_sigmoid(mean, std)], 1)
        return both.to(at_least_float32(prediction).dtype)

    def kl_divergence(self) -> Tensor:
        """``KL(q(w) || p(w))`` in nats, ``()`` float64."""
        mean, factor = self.mean.double(), self.cholesky()
        energy = self.prior_precision * (factor.square().sum() + mean.square().sum())
        log_det = 2 * self.log_diagonal.double().sum() + len(mean) * math.log(self.prior_precision)
        return 0.5 * (energy - len(mean) - log_det)

    def log_likelihood(self, z: Tensor, y: Tensor) -> Tensor:
        """``E_q[log p(y|z, w)] - KL(q || p) / N`` of each row, ``(B,)`` in nats.

        Their sum over the ``N`` rows of the training data is the evidence lower bound.

        Args:
            z: latents ``(B, dim)``.
            y: labels ``(B,)``, 0 or 1.

        Raises:
            TypeError, ValueError: another type or shape, a label or latent out of range.
        """
        return self._shared(z, y, max(len(z), 1))

    def log_likelihood_of_labelled(self, z: Tensor, y: Tensor, labelled: Tensor) -> Tensor:
        """:meth:`log_likelihood` of the labelled rows ``(B,)``, which share the divergence; 0 for the others."""
        return torch.where(labelled, self._shared(z, y, labelled.sum().clamp(min=1)), 0.0)

    def _shared(self, z: Tensor, y: Tensor, rows: int | Tensor) -> Tensor:
        """Each row with its share of the divergence, among ``rows`` where the head was not told how many there are."""
        mean, std = self._logits(z)
        labels = check_labels(y, len(z), 2)
        sign = (2 * labels - 1).to(mean.dtype)
        share = self.kl_divergence() / (rows if self.rows is None else self.rows)
        return (expected_log_sigmoid(sign * mean, std) - share).to(at_least_float32(z).dtype)

    def elbo(self, z: Tensor, y: Tensor) -> Tensor:
        """The evidence lower bound of the rows as the whole data set, in nats, ``()`` float64.

        Arguments and errors as for :meth:`log_likelihood`.
        """
        mean, std = self._logits(z)
        sign = (2 * check_labels(y, len(z), 2) - 1).to(mean.dtype)
        return expected_log_sigmoid(sign * mean, std).sum() - self.kl_divergence()

    @torch.no_grad()
    def laplace(self, z: Tensor, y: Tensor) -> float:
        """Sets ``q`` to the Laplace approximation of the posterior given these rows, found by Newton's method.

        With ``covariance="diagonal"``, to the diagonal Gaussian nearest to it in ``KL(q || .)``.

        Args:
            z: latents ``(N, dim)`` of the whole training data.
            y: labels ``(N,)``, 0 or 1. Classes that a plane separates are no difficulty: the prior bounds the weights.

        Returns:
            The Laplace approximation of the log evidence ``log p(y|Z)``, in nats.

        Raises:
            TypeError, ValueError: another type or shape, a label or latent out of range.
            RuntimeError: inside ``torch.func.vmap``.
        """
        refuse_vmap("BayesianLogistic.laplace", "it sets parameters and stops by what it finds")
        features = features_of(z, self.dim, self.bias)
        check_finite_values("z", features)  # on a GPU, too, where nothing has been looked at
        sign = (2 * check_labels(y, len(z), 2) - 1).to(features.dtype)
        found = _laplace.approximate(features, sign, self.prior_precision)
        self.mean.copy_(found.mean)
        if self.below_diagonal is None:
            self.log_diagonal.copy_(-0.5 * found.precision.diagonal().log())
        else:
            factor = torch.linalg.cholesky(torch.cholesky_inverse(found.precision_cholesky))
            self.log_diagonal.copy_(factor.diagonal().log())
            self.below_diagonal.copy_(factor.tril(-1))
        return found.log_evidence
