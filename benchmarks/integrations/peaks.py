"""Peak activation memory of a pass through a deep Glow of another library, as it is and with ``memory="recompute"``."""

from __future__ import annotations

import warnings

import torch

from benchmarks.glow.allocations import initialized, pass_of, peak_bytes
from benchmarks.glow.side import Architecture
from hybridkern.integrations import accelerate

DEEP = Architecture(steps=32)
BATCH = 4


def peak(library: str, recompute: bool, architecture: Architecture, batch: int, threads: int) -> int:
    """Bytes of activations alive at once at most, forward and backward; for a fresh process."""
    torch.set_num_threads(threads)
    x = torch.rand(batch, *architecture.shape, generator=torch.Generator().manual_seed(0)) - 0.5
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the libraries call that torch deprecates
        side = initialized(library, architecture, x)
    if recompute:
        accelerate(side.model, memory="recompute")
    return peak_bytes(pass_of(side, x), list(side.model.parameters()))
