"""Rows and models that the tests of ``hybridkern.lab.fit`` share."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hybridkern import flows
from hybridkern.hybrid import HybridModel, heads

QUIET: dict[str, Any] = {"progress": False}


def clouds(n: int = 240, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two classes around (-2, 0) and (2, 0)."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    return rng.normal(size=(n, 2)) * 0.5 + np.stack([4 * y - 2, 0 * y], 1), y


def hybrid(head: heads.Head | None = None) -> HybridModel:
    torch.manual_seed(0)
    return HybridModel(flows.RealNVP(2, layers=2, hidden=16), heads.Categorical(2, classes=2) if head is None else head)


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}
