"""A posterior of two moons by sbi, its estimator as it is and accelerated: ``python -m benchmarks.posteriors``.

    python -m benchmarks.posteriors --estimators zuko_nsf zuko_maf --picture docs/images/two-moons-posterior.png

Both train on the same simulations in the same order from the same weights. Printed are CPU seconds per epoch, those of
10000 samples, and how far their log-probabilities lie apart in the end. Needs sbi (``pip install sbi``).
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hybridkern.integrations import accelerate

SAMPLES = 10000


def two_moons(theta: Tensor) -> Tensor:
    """Data for parameters ``(n, 2)``: a noisy half ring, moved by their sum and difference.

    Source: Greenberg et al. 2019 (arXiv:1905.07488), appendix; its benchmark is that of Lueckmann et al. 2021.
    """
    angle = math.pi * (torch.rand(len(theta)) - 0.5)
    radius = 0.1 + 0.01 * torch.randn(len(theta))
    ring = torch.stack([radius * angle.cos() + 0.25, radius * angle.sin()], 1)
    moved = torch.stack([-theta.sum(1).abs(), theta[:, 1] - theta[:, 0]], 1) / math.sqrt(2)
    return ring + moved


class Trained:
    """An estimator after training.

    Attributes:
        epochs: how many it took.
        seconds: CPU seconds per epoch.
        sampling: CPU seconds of :data:`SAMPLES` samples.
        samples: at the observation (0, 0).
        log_prob: of the validation data, mean.
        estimator: the network.
        report: what was accelerated.
    """

    def __init__(self, name: str, simulations: int, epochs: int, networks: bool | None) -> None:
        from sbi.inference import NPE
        from sbi.neural_nets import posterior_nn
        from sbi.utils import BoxUniform

        torch.manual_seed(0)
        prior = BoxUniform(-torch.ones(2), torch.ones(2))
        theta = prior.sample((simulations,))
        x = two_moons(theta)
        build = posterior_nn(name)
        self.report: Any = None

        def built(*data: Tensor) -> Any:
            estimator = build(*data)
            if networks is not None:
                self.report = accelerate(estimator, networks=networks)
            return estimator

        inference = NPE(prior, density_estimator=built, show_progress_bars=False)
        inference.append_simulations(theta, x)
        began = time.process_time()
        self.estimator = inference.train(max_num_epochs=epochs)
        spent = time.process_time() - began
        self.epochs = int(inference.summary["epochs_trained"][-1])
        self.seconds = spent / self.epochs
        self.log_prob = -float(inference.summary["best_validation_loss"][-1])
        posterior = inference.build_posterior(self.estimator)
        torch.manual_seed(1)
        began = time.process_time()
        self.samples = posterior.sample((SAMPLES,), x=torch.zeros(2), show_progress_bars=False)
        self.sampling = time.process_time() - began


def draw(pairs: Sequence[tuple[str, Tensor]], path: Path) -> None:
    """Samples side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.0 * len(pairs), 3.2), layout="constrained")
    for axes, (title, samples) in zip(figure.subplots(1, len(pairs), squeeze=False)[0], pairs, strict=True):
        axes.hist2d(*samples.T.numpy(), bins=120, range=[(-1, 1), (-1, 1)], cmap="Blues", vmax=12)
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("$\\theta_1$")
        axes.set_ylabel("$\\theta_2$")
        axes.set_aspect("equal")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)


WAYS: dict[str, bool | None] = {"sbi": None, "accelerated": False, "accelerated, networks too": True}


def main(arguments: Sequence[str] | None = None, say: Callable[[str], object] = print) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.posteriors", description=__doc__)
    parser.add_argument("--estimators", nargs="+", default=["zuko_nsf"], help="names that sbi's posterior_nn takes")
    parser.add_argument("--simulations", type=int, default=5000)
    parser.add_argument("--epochs", type=int, default=100, help="at most")
    parser.add_argument("--picture", type=Path, help="where to draw the first estimator's posteriors")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    pictures: list[tuple[str, Tensor]] = []
    for name in options.estimators:
        for way, networks in WAYS.items():
            trained = Trained(name, options.simulations, options.epochs, networks)
            say(
                f"{name}, {way}: {trained.epochs} epochs of {trained.seconds:.3f} CPU s, "
                f"{SAMPLES} samples in {trained.sampling:.3f} CPU s, validation log-probability {trained.log_prob:.4f}"
            )
            if name == options.estimators[0] and way != "accelerated, networks too":
                pictures.append((f"{name}, {way}", trained.samples))
    if options.picture is not None:
        draw(pictures, options.picture)
    return 0


if __name__ == "__main__":
    sys.exit(main())
