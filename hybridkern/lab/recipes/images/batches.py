"""Batches of images for training: order, moves and noise are functions of seed and step alone.

So a resumed run needs to know nothing but its step, and processes that share a batch draw it whole, each keeping its
part: together they train on what one process would have trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hybridkern.lab.data import Split
from hybridkern.lab.recipes.augment import distorted, translated
from hybridkern.lab.recipes.device import CPU, current

_ORDER, _NOISE, _UNLABELLED_ORDER = 0, 1, 3


def seeded(*numbers: int, device: torch.device = CPU) -> torch.Generator:
    """A generator that depends on all the numbers, each from 0 on; other devices draw other numbers than a CPU."""
    state = np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(state) % 2**63)


def dequantized(x: Tensor, generator: torch.Generator) -> Tensor:
    """Grey values ``x`` (any shape, whole numbers) plus uniform noise from [0, 1): float32."""
    return _within_cells(x, torch.rand(x.shape, generator=generator))


def _within_cells(x: Tensor, noise: Tensor) -> Tensor:
    """``x + noise`` in float32, below ``x + 1``: the sum may round up to it, the next grey value."""
    values = x.to(torch.float32)
    return torch.minimum(values + noise, torch.nextafter(values + 1, values))


def rank_and_size() -> tuple[int, int]:
    """Which of how many processes this is."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def of_first_process(values: Iterable[Tensor]) -> None:
    """Writes the numbers of the first process into those of all; NCCL, by which GPUs talk, takes none of a CPU."""
    if rank_and_size()[1] > 1:
        for value in values:
            torch.distributed.broadcast(value.detach(), 0)


class TrainingBatches:
    """Yields ``(x (B, D), y (B,))`` for Lightning: images moved and dequantized, ``x`` in grey values.

    To Lightning an epoch is a stretch of steps, at whose end it writes checkpoints; passes over the data are no concern
    of it. Every pass leaves out the images that would fill only a part of a batch.

    Args:
        split: the images, whole numbers.
        shape: of one image, ``(H, W[, C])``.
        batch_size: images per step, over all processes.
        stretch: steps of the next one of Lightning's epochs; asked at the beginning of each, when ``done`` is known.
        seed: of order, moves and noise.
        translation: the most pixels an image is moved by, each way.
        done: steps done so far; asked at the beginning of a stretch. Lightning's own count of epochs is ahead by one
            after a resumed run.
        moving: whether images are still moved; asked at every step.
        redrawn: share of the grey values that are drawn anew, and how many grey values there are.
        unlabelled: share of each batch drawn from the images of label -1; 0 where all have labels. These and the others
            then pass at their own pace.
        views: how often each of the former is in its batch, moved and dequantized anew each time; one view of all of
            them follows another.
        distortion: strength of :func:`~hybridkern.lab.recipes.augment.distorted` on the views after the first.
        device: where batches are made; all images are kept there. Steps then wait for no copy from the host.
    """

    def __init__(
        self,
        split: Split,
        shape: tuple[int, ...],
        batch_size: int,
        *,
        stretch: Callable[[], int],
        seed: int,
        done: Callable[[], int],
        translation: int = 0,
        moving: Callable[[], bool] = lambda: True,
        redrawn: tuple[float, int] = (0.0, 1),
        unlabelled: float = 0.0,
        views: int = 1,
        distortion: float = 0.0,
        device: torch.device = CPU,
    ) -> None:
        self.split = split
        self.device = device
        self._held: Split | None = None  # there, from the first batch on: not handed to other processes
        self.shape = shape
        self.batch_size = batch_size
        self.stretch = stretch
        self.seed = seed
        self.translation = translation
        self.moving = moving
        self.done = done
        self.redrawn = redrawn
        self.distortion = distortion
        self._groups = _groups(split.y, batch_size, unlabelled, views, seed)

    @property
    def steps_per_pass(self) -> int:
        """Steps of one pass over the data; of the labelled images, where there are others."""
        return self._groups[0].steps_per_pass

    def __len__(self) -> int:
        return self.stretch()

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        first = self.done()
        for step in range(first, first + self.stretch()):
            yield self.batch(step)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """This process's part of the batch of a step (from 0)."""
        rows = torch.cat([group.take(step) for group in self._groups])
        held = self._here()
        device = held.x.device
        rows = rows.to(device)
        generator = seeded(self.seed, _NOISE, step, device=device)
        size = 2 * self.translation + 1
        moves = torch.randint(size, (len(rows), 2), generator=generator, device=device) - self.translation
        noise = torch.rand((len(rows), held.x.shape[1]), generator=generator, device=device)
        rank, processes = rank_and_size()
        mine = slice(rank, None, processes)
        x = held.x[rows[mine]]
        if self.translation and self.moving():
            x = translated(x, self.shape, moves[mine])
        if self.distortion:
            x = self._with_distorted_views(x, generator)
        share, grey_levels = self.redrawn
        if share:
            chosen = torch.rand(noise.shape, generator=generator, device=device) < share
            drawn = torch.randint(grey_levels, noise.shape, generator=generator, device=device)
            x = torch.where(chosen[mine], drawn[mine], x)
        return _within_cells(x, noise[mine]), held.y[rows[mine]]

    def _here(self) -> Split:
        if self._held is None:
            device = current(self.device)
            self._held = Split(self.split.x.to(device), self.split.y.to(device))
        return self._held

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_held": None}

    def _with_distorted_views(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """The last of a batch's images are its later views; processes do not share batches that have them."""
        *_, last = self._groups
        later = (last.views - 1) * last.size
        first, views = x.split([len(x) - later, later])
        return torch.cat([first, distorted(views, self.shape, self.distortion, generator)])


class _Group:
    """Images that are drawn in one order: every pass over them in another, by seed and number of the pass.

    Args:
        rows: of the split, ``(N,)`` int64.
        size: of them in each batch.
        numbers: seed and kind of the order.
        views: how often each is in its batch.
    """

    def __init__(self, rows: Tensor, size: int, *numbers: int, views: int = 1) -> None:
        self.rows = rows
        self.size = size
        self.views = views
        self._numbers = numbers
        self._order: tuple[int, Tensor] = (-1, torch.empty(0))

    @property
    def steps_per_pass(self) -> int:
        return len(self.rows) // self.size

    def take(self, step: int) -> Tensor:
        """The rows of a step (from 0)."""
        index, place = divmod(step, self.steps_per_pass)
        if self._order[0] != index:
            self._order = index, torch.randperm(len(self.rows), generator=seeded(*self._numbers, index))
        return self.rows[self._order[1][place * self.size : (place + 1) * self.size]].repeat(self.views)


def labelled_in_batch(batch_size: int, unlabelled: float, labels: int) -> int:
    """Images with a label in each batch: as many as the share ``unlabelled`` leaves, and no more than there are."""
    return min(max(1, round((1 - unlabelled) * batch_size)), batch_size - 1, labels)


def _groups(y: Tensor, batch_size: int, unlabelled: float, views: int, seed: int) -> list[_Group]:
    if not unlabelled:
        return [_Group(torch.arange(len(y)), batch_size, seed, _ORDER)]
    labelled = torch.nonzero(y >= 0).squeeze(1)
    size = labelled_in_batch(batch_size, unlabelled, len(labelled))
    others = max((batch_size - size) // views, 1)
    rest = torch.nonzero(y < 0).squeeze(1)
    return [_Group(labelled, size, seed, _ORDER), _Group(rest, others, seed, _UNLABELLED_ORDER, views=views)]


class FixedBatches:
    """Yields ``(x (B, D), y (B,))`` in the order of the file, dequantized with the same noise at every iteration."""

    def __init__(self, split: Split, batch_size: int, seed: int) -> None:
        self.split = split
        self.batch_size = batch_size
        self.seed = seed

    def __len__(self) -> int:
        return -(-len(self.split) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        generator = seeded(self.seed, _NOISE)
        for x, y in zip(self.split.x.split(self.batch_size), self.split.y.split(self.batch_size), strict=True):
            yield dequantized(x, generator), y
