"""Selective classification: a classifier that answers only for inputs that look like its training data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hybridkern._arguments import as_number, short
from hybridkern._modes import evaluating
from hybridkern.hybrid._labels import UNLABELLED, split_unlabelled
from hybridkern.hybrid.heads import Classifier
from hybridkern.hybrid.metrics import CoverageRisk, coverage_risk
from hybridkern.hybrid.model import HybridModel

_ROUNDINGS = 16  # batches of other sizes differed by up to 3


class SelectiveClassifier(nn.Module):
    """Predicts with ``p(y|x)`` where ``p(x)`` is high enough, and with the class prior ``p(y)`` elsewhere.

    The threshold is the lowest ``log p(x)`` of the training data minus a slack. Without slack every training example is
    accepted, whatever batch it is in: a value that misses the threshold by rounding only, 16 units in the last place of
    the dtype for each nat of the threshold and each dimension of ``x`` (0.0001 nats at -50 and 20 dimensions in
    float32), counts as reaching it. The class prior is the share of each class among the labelled training examples.
    Both are buffers, ``threshold`` ``()`` and ``class_prior`` ``(classes,)``, NaN until :meth:`fit`. They stay in
    float64 when the module is converted to another dtype.

    Raw ``log p(x)`` is known to accept some kinds of outliers: see :mod:`hybridkern.hybrid.scores`.

    Args:
        model: a hybrid model whose head is a classifier; it is always run in evaluation mode here, without gradients.
        slack: nats below the lowest training likelihood that are still accepted; negative ones reject more, the
            training data included. ``math.inf`` accepts everything.

    Raises:
        TypeError: no hybrid model, the head is no classifier, or ``slack`` is no number.
        ValueError: ``slack`` is NaN.

    Source: Nalisnick et al. 2019 (arXiv:1902.02767), equations 9 and 10; Bishop 1994, "Novelty detection and neural
    network validation".
    """

    threshold: Tensor
    class_prior: Tensor

    def __init__(self, model: HybridModel, slack: float = 0.0) -> None:
        super().__init__()
        if not isinstance(model, HybridModel):
            raise TypeError(f"model: got {short(model)}, expected a HybridModel")
        if not isinstance(model.head, Classifier):
            raise TypeError(f"model: got a head {type(model.head).__name__}, expected a classifier")
        slack = as_number("slack", slack, lambda v: not math.isnan(v), "a number of nats")
        self.model = model
        self.slack = slack
        self.classes = model.head.classes
        self.register_buffer("threshold", torch.full((), math.nan, dtype=torch.float64))
        self.register_buffer("class_prior", torch.full((self.classes,), math.nan, dtype=torch.float64))

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> SelectiveClassifier:
        # rounded to 16 bits, a threshold of thousands of nats would reject training data, or be minus infinity
        kept = {name: getattr(self, name) for name in ("threshold", "class_prior")}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, value in kept.items():
            now = getattr(self, name)
            # from the meta device there is nothing to take along (to_empty)
            setattr(self, name, now.double() if value.is_meta else value.to(now.device))
        return self

    @torch.no_grad()
    def _run(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``log p(x)`` ``(B,)`` and ``p(y|x)`` ``(B, classes)``, in evaluation mode."""
        with evaluating(self.model):
            log_px, prediction = self.model.judge(x)
            head = self.model.head
            assert isinstance(head, Classifier)
            return log_px, head.probabilities(prediction)

    @torch.no_grad()
    def fit(self, loader: Iterable[Sequence[Any]]) -> SelectiveClassifier:
        """Sets the threshold and the class prior from the training data.

        Args:
            loader: batches ``(x, y)``: ``x`` ``(B, D)`` as the model takes it, labels ``y`` ``(B,)``, -1 for unlabelled
                rows, which count for the threshold only.

        Returns:
            The classifier itself.

        Raises:
            TypeError, ValueError: a batch the model cannot take, a label out of range, no labelled example, or a
                likelihood of the training data that is NaN or infinite; nothing is set then.
        """
        lowest = math.inf
        counts = torch.zeros(self.classes, dtype=torch.float64)
        for x, y in loader:
            unlabelled, labels = split_unlabelled(y, len(x), self.classes)
            log_px, _ = self._run(x)
            if not bool(log_px.isfinite().all()):
                row = int((~log_px.isfinite()).nonzero()[0])
                raise ValueError(
                    f"loader: log p(x) of row {row} of a batch is {log_px[row].item()}, expected finite likelihoods of "
                    "the training data (hybridkern.flows.check_finite finds the layer at fault)"
                )
            lowest = min(lowest, log_px.min().item()) if len(log_px) else lowest
            counts += torch.bincount(labels[~unlabelled].cpu(), minlength=self.classes)
        if not counts.any():
            raise ValueError(
                f"loader: got no labelled example (all labels {UNLABELLED}, or none at all), expected some"
            )
        self.threshold.fill_(lowest - self.slack)
        self.class_prior.copy_(counts / counts.sum())
        return self

    def _reached(self, log_px: Tensor, x: Tensor) -> Tensor:
        """Where the threshold is reached, ``(B,)`` bool: matrix products round otherwise in batches of other sizes."""
        unit = _ROUNDINGS * torch.finfo(log_px.dtype).eps
        return log_px >= self.threshold - unit * (self.threshold.abs() + math.prod(x.shape[1:]))

    def _check_fitted(self) -> None:
        if bool(self.threshold.isnan()):
            raise RuntimeError("SelectiveClassifier: not fitted; call fit(loader) with the training data first")

    def accepts(self, x: Tensor) -> Tensor:
        """Whether ``log p(x)`` reaches the threshold, ``(B,)`` bool. A likelihood of NaN is rejected.

        Raises:
            RuntimeError: :meth:`fit` was not called.
        """
        self._check_fitted()
        return self._reached(self._run(x)[0], x)

    def forward(self, x: Tensor) -> Tensor:
        """:meth:`predict_proba`."""
        return self.predict_proba(x)

    def predict_proba(self, x: Tensor) -> Tensor:
        """``p(y|x)`` where the input is accepted and ``p(y)`` where it is not, ``(B, classes)``, without gradient.

        Raises:
            RuntimeError: :meth:`fit` was not called.
        """
        self._check_fitted()
        log_px, p = self._run(x)
        return torch.where(self._reached(log_px, x)[:, None], p, self.class_prior.to(p.dtype))

    def predict(self, x: Tensor) -> Tensor:
        """The most probable class where the input is accepted, -1 where it is rejected, ``(B,)`` int64.

        Raises:
            RuntimeError: :meth:`fit` was not called.
        """
        self._check_fitted()
        log_px, p = self._run(x)
        return torch.where(self._reached(log_px, x), p.argmax(1), UNLABELLED)

    def coverage_risk(self, loader: Iterable[Sequence[Any]]) -> CoverageRisk:
        """The error rate of ``p(y|x)`` among the inputs of highest ``log p(x)``, for every coverage.

        Args:
            loader: batches ``(x, y)`` of test data. Rows of label -1 are outliers: any answer to them is an error.

        Raises:
            TypeError, ValueError: as :meth:`fit`; or no examples.
        """
        scores, losses = [torch.empty(0, dtype=torch.float64)], [torch.empty(0, dtype=torch.float64)]
        for x, y in loader:
            unlabelled, labels = split_unlabelled(y, len(x), self.classes)
            log_px, p = self._run(x)
            scores.append(log_px.double().cpu())
            losses.append(((p.argmax(1) != labels) | unlabelled).double().cpu())
        return coverage_risk(torch.cat(scores), torch.cat(losses))
