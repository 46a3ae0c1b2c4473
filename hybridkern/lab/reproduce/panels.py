"""Pictures of hybrid models between data and other data, as matplotlib figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from hybridkern.lab.recipes.images.plots import finish, histograms

_SERIES = ("#b3261e", "#c77f1a", "#1f5fa8", "#2e7d4f", "#6d4c9f", "0.3")


@dataclass(frozen=True)
class Curve:
    """What a model answers.

    Attributes:
        label: of the model.
        confidence, right: of each answer to data and other data, ``(N,)``, and whether it is right.
        outside: ``p(y|x)`` ``(M, K)`` of the other data.
    """

    label: str
    confidence: Tensor
    right: Tensor
    outside: Tensor


def three_panels(bits: tuple[Tensor, Tensor], which: str, inside: str, outside: str, curves: Sequence[Curve]) -> Figure:
    """Histograms of ``log p(x)`` of data and other data, entropies on the other data, accuracy above a confidence.

    Args:
        bits: per dimension, of data and of other data, of one model.
        which: that model.
        inside, outside: names of the two sets.
        curves: of every model.
    """
    figure = Figure(figsize=(15.0, 4.2), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    histograms(left, {inside: bits[0], outside: bits[1]})
    left.set_title(f"log p(x), {which}")
    for curve, colour in zip(curves, _SERIES, strict=False):
        entropies = torch.special.entr(curve.outside).sum(1)
        middle.hist(
            entropies.numpy(), np.linspace(0, math.log(curve.outside.shape[1]) * 1.02, 40).tolist(), color=colour,
            histtype="step", linewidth=1.8, label=f"{curve.label}, mean {entropies.mean().item():.2f}",
        )  # fmt: skip
        thresholds = np.linspace(0.1, 0.99, 90)
        kept = [(curve.confidence >= threshold).numpy() for threshold in thresholds]
        values = curve.right.numpy()
        right.plot(
            thresholds,
            [values[mask].mean() if mask.any() else np.nan for mask in kept],
            color=colour,
            label=curve.label,
        )
    middle.set_xlabel("entropy of the answer, nats")
    middle.set_ylabel("images")
    middle.set_yscale("log")
    middle.set_title(f"Entropy on {outside}")
    right.set_xlabel(f"confidence at least; no answer to {outside} is right")
    right.set_ylabel("accuracy")
    right.set_ylim(0, 1.02)
    right.set_title(f"Accuracy on {inside} and {outside} together")
    for axes, place in ((middle, "upper center"), (right, "lower right")):
        finish(axes, place, "lambda")
    return figure
