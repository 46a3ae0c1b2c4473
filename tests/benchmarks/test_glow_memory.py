"""The count of activation bytes, against one made by hand."""

from __future__ import annotations

import torch
from torch import nn

from benchmarks.glow_memory import peak_bytes


def test_count_by_hand() -> None:
    """Three exponentials keep their results; gradients come and go one after the other.

    Most is alive while the second gradient is made from the first: three results (the caller's name holds the last)
    and two gradients. The third gradient ends as the parameter's, and is not counted.
    """
    n = 1 << 16
    parameter = nn.Parameter(torch.zeros(n))

    def step() -> None:
        y = parameter
        for _ in range(3):
            y = y.exp()
        y.sum().backward()

    peak = peak_bytes(step, [parameter])
    assert 5 * 4 * n <= peak <= 5 * 4 * n + 1024


def test_what_lived_before_is_not_counted() -> None:
    held = [torch.zeros(1 << 16)]
    assert peak_bytes(held.clear, []) == 0
