"""The figures of a trained model on images: error, likelihood, and how well ``log p(x)`` tells other images apart."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hybridkern.flows import Residual
from hybridkern.hybrid import metrics
from hybridkern.lab.data import Split
from hybridkern.lab.recipes.evaluation import evaluating
from hybridkern.lab.recipes.images.batches import dequantized, seeded
from hybridkern.lab.recipes.images.task import ImageTask

_BATCH = 128
_INVERSE_BATCH = 32
_ROUND_TRIP = 256
_ITERATED = 8  # images, where the inverse is iterated
_NOISE_SEED = 1


@dataclass(frozen=True)
class Scores:
    """Of each image: ``log_px (N,)`` in nats of grey values, and ``probabilities (N, K)``; means over the draws."""

    log_px: Tensor
    probabilities: Tensor

    @property
    def confidence(self) -> Tensor:
        """Probability of the most probable class, ``(N,)``."""
        return self.probabilities.max(1).values

    @property
    def entropy(self) -> Tensor:
        """Of ``p(y|x)``, in nats, ``(N,)``."""
        return torch.special.entr(self.probabilities).sum(1)


def score(task: ImageTask, x: Tensor, draws: int) -> Scores:
    """Scores whole numbers ``x (N, D)``, dequantized ``draws`` times with noise that depends on nothing else.

    ``log_px`` is the mean over the draws of ``log p(x + u)``, a lower bound of ``log P(x)`` in expectation;
    ``probabilities`` that of ``p(y|x + u)``. In float32. A discrete task sees no noise, so that one draw is enough.
    """
    draws = 1 if task.discrete else draws
    log_px, probabilities = [], []
    generator = seeded(_NOISE_SEED)
    with evaluating(task), torch.random.fork_rng(devices=[]):
        torch.manual_seed(_NOISE_SEED)  # of models that draw to estimate
        for part in x.split(_BATCH):
            outputs = [task.output(dequantized(part, generator)) for _ in range(draws)]
            log_px.append(torch.stack([out.log_px.double() - task.log_units for out in outputs]).mean(0).cpu())
            softmax = [torch.softmax(out.prediction.double(), 1) for out in outputs]
            probabilities.append(torch.stack(softmax).mean(0).cpu())
    return Scores(torch.cat(log_px), torch.cat(probabilities))


def figures(task: ImageTask, scores: Scores, split: Split, draws: int) -> dict[str, Any]:
    """The figures of the test part for ``metrics.json``, and the largest error of the round trip on some of it."""
    nll = -scores.log_px.mean().item()
    right = scores.probabilities.gather(1, split.y[:, None]).squeeze(1)
    predicted = scores.probabilities.argmax(1)
    return {
        "test_error": (predicted != split.y).double().mean().item(),
        "test_class_nll_nats": -right.clamp(min=1e-300).log().mean().item(),
        "test_entropy_nats": scores.entropy.mean().item(),
        "test_nll_nats": nll,
        "test_bits_per_dim": nll / (task.dim * math.log(2)),
        "bits_per_dim_convention": task.convention(draws),
        "round_trip_max_abs_error": _round_trip(task, split.x[: _ITERATED if _iterates(task) else _ROUND_TRIP]),
    }


def ood_figures(task: ImageTask, inside: Scores, outside: Scores, name: str) -> dict[str, Any]:
    """How ``log p(x)`` tells the test part from other images, and what the classifier makes of those."""
    return {
        "ood": name,
        "ood_images": len(outside.log_px),
        "ood_auroc": metrics.auroc(inside.log_px, outside.log_px),
        "ood_auroc_convention": "test part against the other set by log p(x), the higher the more like the test part",
        "ood_bits_per_dim": -outside.log_px.mean().item() / (task.dim * math.log(2)),
        "ood_entropy_nats": outside.entropy.mean().item(),
    }


def _iterates(task: ImageTask) -> bool:
    return isinstance(task.model.flow, Residual)


def _round_trip(task: ImageTask, x: Tensor) -> float | None:
    """Largest error of forward and inverse, in grey values; ``None`` where the inverse is not finite.

    It may overflow where nothing was trained to keep it from that: at ``lam`` 0.
    """
    x = dequantized(x, seeded(_NOISE_SEED))
    try:
        with evaluating(task):
            error = torch.stack(
                [
                    (task.invert(task.latent(part)).cpu() - task.seen(part)).abs().max()
                    for part in x.split(_INVERSE_BATCH)
                ]
            )
    except ArithmeticError:  # an inverse that is iterated, and does not settle
        return None
    return error.max().item() if error.isfinite().all() else None
