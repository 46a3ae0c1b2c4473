"""Batches of a data set that lies in memory, in an order that depends on the seed and the epoch alone."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from hybridkern.lab.data import Split

_DRAWS_AN_EPOCH = 3


class Batches:
    """Yields ``(x (B, D), y (B,))``, by one index per batch: collating 64 rows in Python costs more than the step.

    The order is the one that a plain PyTorch loop has which builds its model after ``torch.manual_seed`` and then
    goes through a ``DataLoader(shuffle=True)`` and a validation loader an epoch. So a run can be compared with such a
    loop seed by seed; and since it is a function of the state and the epoch, a resumed run needs nothing else.

    Args:
        split: the examples.
        batch_size: examples a batch; the last one holds the rest.
        state: state of a CPU generator (``torch.get_rng_state()``) once the model is built; ``None`` keeps the order
            of the file.
    """

    def __init__(self, split: Split, batch_size: int, state: Tensor | None = None) -> None:
        self.split = split
        self.batch_size = batch_size
        self.state = state
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
        if self.state is None:
            yield from zip(x.split(self.batch_size), y.split(self.batch_size), strict=True)
            return
        for rows in self._order(self.state).split(self.batch_size):
            yield x[rows], y[rows]

    def _order(self, state: Tensor) -> Tensor:
        generator = torch.Generator()
        generator.set_state(state)
        # an epoch draws a number for each loader's workers and, between the two, the seed of the shuffle
        draws = torch.empty(_DRAWS_AN_EPOCH * (self.epoch + 1), dtype=torch.int64).random_(generator=generator)
        shuffle = torch.Generator().manual_seed(int(draws[-2]))
        return torch.randperm(len(self.split), generator=shuffle)
