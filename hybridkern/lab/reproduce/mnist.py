"""Experiment ``mnist``: hybrid models of MNIST with four weights of ``log p(x)``, and notMNIST as OOD data."""

from __future__ import annotations

from typing import Any

from hybridkern.lab.recipes.images.published import MNIST_ROWS
from hybridkern.lab.reproduce.sweep import Sweep, sweep_experiment

# Below this, Highway networks, far more expensive per step than the fused ones, see too few images to learn from.
_MINUTES_OF_PAPER = 15.0
_OPTIONS: dict[str, Any] = {"levels": 2, "steps": 8, "draws": 1, "ood_size": 2000, "translation": 0}
_OF_PAPER = {"net": "highway", "hidden": 200, "norm": "batchnorm"}
_SMALL = {"net": "conv", "hidden": 128, "norm": "actnorm"}


def options(minutes: float) -> dict[str, Any]:
    """Settings for a run of so many minutes: the paper's model where there is time for it."""
    return _OPTIONS | (_OF_PAPER if minutes >= _MINUTES_OF_PAPER else _SMALL)


EXPERIMENT = sweep_experiment(
    Sweep(
        recipe="mnist",
        name="MNIST",
        other="notMNIST",
        paper=MNIST_ROWS,
        options=options,
        differences=(
            "The paper trains with Adam at 1e-4 and without a time limit; here a one-cycle schedule with a higher rate "
            "fits into the time, 1x1 convolutions are initialized from data, and log p(x) has more weight than lambda "
            "in the first half. "
            f"Under {_MINUTES_OF_PAPER:g} minutes per model the networks are Glow's (two 3x3 and a 1x1 "
            "convolution, width 128) with actnorm in place of three-layer Highway networks of width 200 with batch "
            "norm, which take far longer per step.",
            "At most 2000 images of the OOD set are scored, with letters A to J as classes 0 to 9 for the NLL.",
        ),
    ),
    summary="Hybrid models of MNIST with four weights of log p(x), and how they judge notMNIST.",
    minutes=12.0,
)
