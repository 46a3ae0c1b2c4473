"""Likelihoods as they are reported."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hybridkern._arguments import as_number, as_size
from hybridkern.hybrid._labels import log_prob_of_labels


def bits_per_dim(log_px: Tensor, dim: int, bits: float = 8) -> Tensor:
    """Negative log-likelihood in bits per dimension: ``-log_px / (dim * ln 2) + bits``.

    ``bits`` says in which units of ``x`` the log-likelihood was taken:

    - ``bits=b``: ``log_px`` is a density of ``b``-bit data that were dequantized and scaled to an interval of width
      1 (``[0, 1)`` or ``[-1/2, 1/2)``), as image flows do, so that neighbouring values lie ``2**-b`` apart. A cell
      of this volume has the probability ``p(x) * 2**(-b * dim)``: hence ``+ b``. The default is that of 8-bit images.
    - ``bits=0``: ``log_px`` is a log-probability of integers (every integer flow, :class:`~hybridkern.HybridIDF`),
      or a density of dequantized data in integer units: neighbouring values lie 1 apart, nothing is added.

    Both give the same number for the same model of the same data: the bits a lossless code needs per dimension.

    Args:
        log_px: log-likelihoods in nats, any shape.
        dim: dimensions ``D`` of one example, as in ``C*H*W``.
        bits: bits per value of data scaled to unit width; 0 for integer units.

    Returns:
        Shape and dtype of ``log_px``.

    Raises:
        TypeError, ValueError: ``dim`` is not a positive integer, or ``bits`` no number or negative.

    Source: Theis et al. 2016 (arXiv:1511.01844), section 3.1, for the relation of density and cell probability.
    """
    dim = as_size("dim", dim)
    bits = as_number("bits", bits, lambda b: b >= 0, "0 or a positive number")
    return -log_px / (dim * math.log(2)) + bits


def nll(logits: Tensor, labels: Tensor) -> float:
    """Mean of ``-log p(y|x)`` in nats, the cross-entropy that is reported as NLL.

    Args:
        logits: ``(N, classes)`` with ``N >= 1``: logits, or log-probabilities, which are logits too.
        labels: ``(N,)``, any integer dtype.

    Raises:
        TypeError: ``labels`` is not an integer tensor.
        ValueError: another shape, no rows, or a label out of range.
    """
    if logits.ndim != 2 or len(logits) == 0:
        raise ValueError(f"logits: got shape {tuple(logits.shape)}, expected (N, classes) with at least one row")
    return -log_prob_of_labels(torch.log_softmax(logits.double(), 1), labels).mean().item()
