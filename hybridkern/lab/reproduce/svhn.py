"""Experiment ``svhn``: a hybrid model of SVHN for each of four weights of ``log p(x)``, and CIFAR-10 as OOD data."""

from __future__ import annotations

from typing import Any

from hybridkern.lab.recipes.images.published import SVHN_ROWS
from hybridkern.lab.reproduce.sweep import Sweep, sweep_experiment

# Below this, Highway networks, far more expensive per step than the fused ones, see too few images to learn from.
_MINUTES_OF_PAPER = 60.0
_LINEAR = {"head_hidden": 0, "head_dropout": 0.0}
_OPTIONS: dict[str, Any] = _LINEAR | {"levels": 3, "steps": 8, "draws": 1, "ood_size": 2000}
_OF_PAPER = {"net": "highway", "hidden": 300}
_SMALL = {"net": "conv", "hidden": 128}


def options(minutes: float) -> dict[str, Any]:
    """Settings for a run of so many minutes: the paper's model where there is time for it."""
    return _OPTIONS | (_OF_PAPER if minutes >= _MINUTES_OF_PAPER else _SMALL)


EXPERIMENT = sweep_experiment(
    Sweep(
        recipe="svhn",
        name="SVHN",
        other="CIFAR-10",
        paper=SVHN_ROWS,
        options=options,
        differences=(
            "The paper trains on the whole training set of 73 257 images (the conditions say how many there were "
            "here), with Adam at 1e-4 and without a time limit; here a one-cycle schedule with a higher rate fits into "
            "the time, 1x1 convolutions are initialized from data, and log p(x) has more weight than lambda in the "
            "first half. "
            f"Under {_MINUTES_OF_PAPER:g} minutes per model the networks are Glow's (3x3, 1x1, 3x3 convolution, "
            "width 128) in place of three-layer Highway networks of width 300, which take far longer per step.",
            "At most 2000 images of the OOD set are scored, with their classes as digits for the NLL.",
        ),
    ),
    summary="Hybrid models of SVHN with four weights of log p(x), and how they judge CIFAR-10.",
    minutes=20.0,
)
