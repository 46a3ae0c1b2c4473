"""Does speed cost likelihood? The same training run in bfloat16, in float32, and eagerly in float32.

All sides start from the same weights, actnorm initialized on the first batch, and see the same images with the same
noise in the same order. Compared are bits per dimension of held-out images: of the integers 0..255, by uniform
dequantization: ``-log2 p(x) / D + 8`` for ``x = (integer + noise) / 256 - 1/2``.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy
import torch
from torch import Tensor

from benchmarks.glow import sides
from benchmarks.glow.eager import EagerGlow
from benchmarks.glow.side import Architecture, Side, optimizer_of

TOLERANCE = 0.02  # bits per dimension
NAMES = ("eager", "ours", "ours-bf16")
_WARM_UP = 50  # steps until the learning rate is reached
# Share of the steps, the last ones, over which the learning rate falls to 0. At a constant rate a run ends somewhere on
# a path that rocks by more than the tolerance from step to step; falling to 0 averages that out for every side alike.
_COOL_DOWN = 1 / 3
# Largest norm of the gradients, that of the recipes. Without it single batches throw every side back by whole bits, and
# how near the end that last happened, which rounding decides, would be what is compared.
_CLIP = 10.0
_BATCH_OF_EVALUATION = 100


@dataclass(frozen=True)
class Images:
    """Integers 0..255, ``(N, C, H, W)`` uint8."""

    train: Tensor
    held_out: Tensor


def load(path: Path, shape: tuple[int, int, int]) -> Images:
    """Images of an ``.npz`` file, parted by its ``split`` or ``suggested_split`` (0 train, 1 held out).

    Raises:
        ValueError: images of another shape, or no split in the file.
    """
    with numpy.load(path, allow_pickle=False) as file:
        raw = torch.from_numpy(file["images"])
        names = [name for name in ("split", "suggested_split") if name in file]
        if not names:
            raise ValueError(f"data: {path} has neither 'split' nor 'suggested_split'")
        split = torch.from_numpy(file[names[0]])
    raw = raw.unsqueeze(-1) if raw.ndim == 3 else raw
    raw = raw.permute(0, 3, 1, 2)
    if tuple(raw.shape[1:]) != shape:
        raise ValueError(f"data: got images of shape {tuple(raw.shape[1:])}, expected {shape}")
    return Images(raw[split == 0], raw[split == 1])


def dequantized(images: Tensor, generator: torch.Generator) -> Tensor:
    """``(integer + noise) / 256 - 1/2`` with uniform noise in [0, 1)."""
    return (images.float() + torch.rand(images.shape, generator=generator)) / 256 - 0.5


def batches(images: Tensor, steps: int, size: int, seed: int) -> Iterator[Tensor]:
    """The same ones for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        index = torch.randint(len(images), (size,), generator=generator)
        yield dequantized(images[index], generator)


def same_start(names: Sequence[str], architecture: Architecture, first: Tensor, seed: int) -> list[Side]:
    """The sides, all with the weights of the first of them that is ours, initialized on ``first``."""
    torch.manual_seed(seed)
    model = sides.build("ours", architecture).model
    model.initialize(first)
    built = []
    for name in names:
        side = sides.build(name, architecture)
        if isinstance(side.model, EagerGlow):
            side.model.take_over(model)
        else:
            side.model.load_state_dict(copy.deepcopy(model.state_dict()))
        built.append(side)
    return built


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Of step 0, 1, ..., ``steps - 1``: linear up over the first steps, constant, linear down over the last third."""
    return peak * min(1.0, (step + 1) / _WARM_UP, (steps - step) / (_COOL_DOWN * steps))


def train(side: Side, stream: Iterator[Tensor], steps: int, lr: float) -> float:
    """Adam over ``steps`` batches, with :func:`learning_rate` and clipped gradients; returns the last loss."""
    optimizer = optimizer_of(side)
    side.model.train()
    loss = torch.full((), torch.nan)
    for step, x in enumerate(stream):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, lr)
        optimizer.zero_grad()
        loss = side.loss(side.prepared(x))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(side.model.parameters(), _CLIP)
        optimizer.step()
    return loss.item()


@torch.no_grad()
def bits_per_dim(side: Side, images: Tensor, seed: int) -> float:
    """Mean over ``images``, with the same noise for the same seed."""
    side.model.eval()
    x = dequantized(images, torch.Generator().manual_seed(seed))
    parts = x.split(_BATCH_OF_EVALUATION)
    return sum(side.loss(side.prepared(part)).item() * len(part) for part in parts) / len(x) + 8


def compare(
    names: Sequence[str], architecture: Architecture, data: Images, *, steps: int, batch: int, lr: float, seed: int
) -> dict[str, tuple[float, float]]:
    """Bits per dimension of the held-out images before and after training, by side."""
    (first,) = batches(data.train, 1, batch, seed)
    found = {}
    for side in same_start(names, architecture, first, seed):
        before = bits_per_dim(side, data.held_out, seed)
        train(side, batches(data.train, steps, batch, seed), steps, lr)
        found[side.name] = before, bits_per_dim(side, data.held_out, seed)
        print(f"{side.name}: {before:.4f} -> {found[side.name][1]:.4f} bits per dimension", flush=True)
    return found


def verdict(found: dict[str, tuple[float, float]]) -> bool:
    """Whether all sides end within :data:`TOLERANCE` of each other (NaN is not)."""
    after = [value for _, value in found.values()]
    return all(abs(a - b) <= TOLERANCE for a in after for b in after)
