"""The pictures of a run on images beside those of :mod:`hybridkern.lab.plots`, as matplotlib figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from hybridkern.lab.plots import bin_edges, contact_sheet, draw_sheet

_INSIDE, _OUTSIDE, _TRAINING = "#1f5fa8", "#b3261e", "0.55"
_BINS = 80
_GROUPS = 10


def rows_of_images(x: Tensor, shape: tuple[int, ...], grey_levels: int, title: str) -> Figure:
    """A sheet of ``x (rows, columns, prod(shape))``, grey (or colour) range fixed to ``0..grey_levels-1``."""
    rows, columns = x.shape[:2]
    tiles = x.detach().numpy().reshape(rows * columns, *shape)
    sheet = contact_sheet(tiles, rows, columns, fill=grey_levels - 1)
    figure = Figure(figsize=(7.0, 7.0 * sheet.shape[0] / sheet.shape[1] + 0.4), layout="compressed")
    draw_sheet(figure.subplots(), sheet, grey_levels, title)
    return figure


def log_likelihoods(inside: Tensor, outside: Tensor | None, name: str, auroc: float | None) -> Figure:
    """Histograms of bits per dimension ``(N,)`` of the test part and of other images, on one axis."""
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    sets = {"test part": inside} | ({} if outside is None else {name: outside})
    histograms(axes, sets)
    axes.set_title("Likelihood" + ("" if auroc is None else f" (AUROC {auroc:.4f})"))
    return figure


def histograms(axes: Axes, sets: Mapping[str, Tensor]) -> None:
    """Draws densities of bits per dimension ``(N,)`` by the name of their set, two sets at most, with their means.

    The axis leaves out the thousandth at each end: a few images far away would squeeze all others into one bar.
    """
    ends = [np.quantile(values.numpy(), (0.001, 0.999)) for values in sets.values()]
    bins = bin_edges(min(low for low, _ in ends), max(high for _, high in ends), _BINS)
    for (name, values), colour in zip(sets.items(), (_INSIDE, _OUTSIDE), strict=False):
        axes.hist(
            values.numpy().clip(bins[0], bins[-1]), bins, density=True, alpha=0.6, color=colour,
            label=f"{name}, mean {values.mean().item():.2f}",
        )  # fmt: skip
    axes.set_xlabel("$-\\log_2 p(x) / D$, bits per dimension")
    axes.set_ylabel("density of images")
    finish(axes)


def confidence(values: Tensor, right: Tensor) -> Figure:
    """Accuracy of the images of at least a confidence, with their share, and accuracy by confidence in tenths.

    Args:
        values: probability of the predicted class, ``(N,)``.
        right: whether that class is right, ``(N,)`` bool.
    """
    figure = Figure(figsize=(10.0, 4.0), layout="constrained")
    left, calibration = figure.subplots(1, 2)
    order = values.argsort(descending=True)
    accuracy = right[order].double().cumsum(0).numpy() / np.arange(1, len(values) + 1)
    sorted_values = values[order].numpy()
    left.plot(sorted_values, accuracy, color=_INSIDE, label="accuracy of images at least as confident")
    left.plot(
        sorted_values, np.arange(1, len(values) + 1) / len(values), color=_TRAINING, linestyle="--", label="their share"
    )
    left.set_xlabel("confidence, the largest p(y|x)")
    left.set_ylabel("share")
    left.set_ylim(0, 1.02)
    left.set_title("Accuracy above a confidence")
    finish(left, "lower left")
    groups = np.clip((values.numpy() * _GROUPS).astype(int), 0, _GROUPS - 1)
    used = [group for group in range(_GROUPS) if (groups == group).any()]
    calibration.plot([0, 1], [0, 1], color=_TRAINING, linestyle="--", label="perfectly calibrated")
    calibration.plot(
        [values.numpy()[groups == group].mean() for group in used],
        [right.numpy()[groups == group].mean() for group in used],
        "o-", color=_INSIDE, label="images by tenth of confidence",
    )  # fmt: skip
    calibration.set_xlabel("mean confidence")
    calibration.set_ylabel("accuracy")
    calibration.set_title("Accuracy against confidence")
    finish(calibration, "upper left")
    return figure


def training(trained: Mapping[str, Sequence[float]], validated: Mapping[str, Sequence[float]], scale: float) -> Figure:
    """Error and bits per dimension of training and validation by minutes of training; ``scale`` turns nats to bits."""
    figure = Figure(figsize=(10.0, 4.0), layout="constrained")
    panels = figure.subplots(1, 2)
    for axes, key, unit, factor in zip(
        panels, ("error", "nll"), ("error, share of images", "bits per dimension"), (1.0, scale), strict=True
    ):
        for curves, name, colour, label in (
            (trained, key, _TRAINING, "training, as trained on"),
            (validated, f"val_{key}", _INSIDE, "validation"),
        ):
            if curves[name]:
                minutes = np.asarray(curves["seconds"]) / 60
                axes.plot(minutes, np.asarray(curves[name]) * factor, color=colour, label=label, marker=".")
        axes.set_xlabel("minutes of training")
        axes.set_ylabel(unit)
        axes.margins(y=0.1)
        finish(axes, "best")
    panels[0].set_title("Error")
    panels[0].set_ylim(bottom=0)
    panels[1].set_title("Negative log-likelihood")
    return figure


def finish(axes: Axes, legend: Any = "upper right", title: str | None = None) -> None:
    """Gives axes the grid, frame and legend of all pictures."""
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc=legend, title=title, framealpha=0.9, edgecolor="none")
