"""Batches of a data set that lies in memory, in an order that depends on the seed and the epoch alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from hybridkern.data import Split


class Batches:
    """Yields ``(x (B, D), y (B,))``, by one index a batch: collating 64 rows a step in Python costs more than the step.

    The order of an epoch is a function of ``(seed, epoch)``, so that a resumed run needs no state to go on with it.

    Args:
        split: the examples.
        batch_size: examples a batch; the last one holds the rest.
        seed: of the shuffle, or ``None`` for the order of the file.
    """

    def __init__(self, split: Split, batch_size: int, seed: int | None = None) -> None:
        self.split = split
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0
        # Lightning calls set_epoch of what a loader holds as its sampler
        self.sampler, self.batch_sampler = self, None

    def set_epoch(self, epoch: int) -> None:
        """The epoch (from 0) that the next iteration is of."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.split) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        x, y = self.split.x, self.split.y
        if self.seed is None:
            yield from zip(x.split(self.batch_size), y.split(self.batch_size), strict=True)
            return
        order = np.random.default_rng((self.seed, self.epoch)).permutation(len(y))
        for rows in torch.from_numpy(order).split(self.batch_size):
            yield x[rows], y[rows]
