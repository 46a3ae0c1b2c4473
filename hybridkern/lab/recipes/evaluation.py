"""The figures of a trained model on examples it has not seen."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from hybridkern._modes import evaluating as evaluation_mode
from hybridkern.lab.data import Split
from hybridkern.lab.recipes.task import Task

_FORWARD_BATCH = 512
_INVERSE_BATCH = 64  # another one than forward: the inverse must not depend on how the examples are grouped


def evaluate(task: Task, split: Split, grey_levels: int) -> dict[str, Any]:
    """Evaluates ``task`` on whole numbers ``0..grey_levels-1``.

    Returns:
        ``test_error`` (share), ``test_class_nll_nats``, ``test_nll_nats`` (mean ``-log p(x)`` of an example),
        ``test_bits_per_dim`` and its convention, ``lattice_share`` (share of the latents' elements that are whole
        numbers), ``round_trip_mismatches`` (elements that differ in int64 after forward and inverse, of
        ``round_trip_elements``), ``round_trip_max_abs_error`` (before rounding).
    """
    sums = torch.zeros(3, dtype=torch.float64)
    latents = []
    with evaluating(task):
        for x, y in zip(split.x.split(_FORWARD_BATCH), split.y.split(_FORWARD_BATCH), strict=True):
            terms = task.terms(x, y)
            parts = (terms.class_nll, terms.nll, terms.predicted != y)
            sums += torch.stack([part.sum(dtype=torch.float64) for part in parts])
            latents.append(task.latent(x))
        z = torch.cat(latents)
        inverted = torch.cat([task.invert(part) for part in z.split(_INVERSE_BATCH)])
    class_nll, nll, error = (sums / len(split)).tolist()
    return {
        "test_error": error,
        "test_class_nll_nats": class_nll,
        "test_nll_nats": nll,
        "test_bits_per_dim": nll / (split.x.shape[1] * math.log(2)),
        "bits_per_dim_convention": f"NLL in nats / (D ln 2), of the grey values 0..{grey_levels - 1} as they are: "
        f"no dequantization, no rescaling; D = {split.x.shape[1]}",
        "lattice_share": (z == z.round()).double().mean().item(),
        **_round_trip(split.x, inverted),
    }


def draw(task: Task, n: int, seed: int, **options: Any) -> Tensor:
    """``n`` samples ``(n, D)`` of a task, a function of the seed; torch's global generator is left as it was.

    ``options`` are those of :meth:`Task.sample`, which has its errors.
    """
    with evaluating(task), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return task.sample(n, **options)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards every part is in the mode that it was in."""
    with evaluation_mode(model), torch.no_grad():
        yield


def _round_trip(x: Tensor, inverted: Tensor) -> dict[str, Any]:
    mismatches = inverted.round().to(torch.int64) != x.to(torch.int64)
    return {
        "round_trip_mismatches": int(mismatches.sum()),
        "round_trip_elements": x.numel(),
        "round_trip_max_abs_error": (inverted.double() - x.double()).abs().max().item(),
    }
