"""Inputs of the operator tests: seeded, exact in the dtype that is tested, hard where the formulas are hard."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from tests.conftest import DEVICE
from tests.ops import oracle

FRACTION_BITS = 30  # float64 inputs are multiples of 2**-30: not float32 numbers, but differences of them are exact


def tensor(value: np.ndarray, dtype: torch.dtype) -> Tensor:
    """``value`` in ``dtype``, on the device that is tested."""
    if dtype is torch.float64:
        value = np.where(np.abs(value) < 2.0**20, np.round(value * 2.0**FRACTION_BITS) / 2.0**FRACTION_BITS, value)
    return torch.from_numpy(np.ascontiguousarray(value)).to(dtype).to(DEVICE)


def normal(seed: int, shape: tuple[int, ...], dtype: torch.dtype, scale: float = 1.0) -> Tensor:
    """Normal variables."""
    return tensor(scale * np.random.default_rng(seed).standard_normal(shape), dtype)


def coupling_params(name: str, shape: tuple[int, ...], dtype: torch.dtype, seed: int = 1, reach: float = 1.0) -> Tensor:
    """Network output for ``x`` of this shape; raw scales within ``12 * reach``, most of them near 0."""
    rng = np.random.default_rng(seed)
    form = oracle.FORMS[name]
    shift = 2.0 * rng.standard_normal(shape)
    scale = None if form.log_scale is None else reach * 12.0 * rng.uniform(-1, 1, shape) ** 3
    return tensor(oracle.join(scale, shift, form), dtype)


def logistic_grid(bin_width: float, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """``x, mean, log_scale``, each ``(19, n)``: a row for each log-scale from -10 to 10.

    ``|x - mean|`` runs from 0 to 1e4 scales; the last columns lie at the edge of the bin and a hair beside it, and
    the means are far enough from zero that ``x - mean`` cancels.
    """
    rng = np.random.default_rng(3)
    log_scale = np.linspace(-10.0, 10.0, 19)[:, None]
    multiples = np.concatenate([[0.0, 1e-7, 1e-4, 0.01], np.geomspace(0.1, 1e4, 60), [30.0, 88.0, 104.0, 745.0]])
    far = multiples * np.exp(log_scale)
    hairs = np.array([-0.5, -1e-2, -1e-4, -1e-6, 0.0, 1e-6, 1e-4, 1e-2, 0.5])
    edges = 0.5 * bin_width * (1.0 + np.broadcast_to(hairs, (19, hairs.size)))
    distance = np.concatenate([far, edges, 0.5 * bin_width + hairs * np.exp(log_scale)], axis=1)
    mean = tensor(np.where(rng.uniform(size=distance.shape) < 0.5, 0.0, rng.normal(0, 3, distance.shape)), dtype)
    x = mean.double().cpu().numpy() + np.where(rng.uniform(size=distance.shape) < 0.5, -1, 1) * distance
    x_tensor, scale_tensor = tensor(x, dtype), tensor(np.broadcast_to(log_scale, distance.shape).copy(), dtype)
    # rounding x may carry a point beyond 1e4 scales, which is where the contract ends
    beyond = (x_tensor.double() - mean.double()).abs() > 1e4 * scale_tensor.double().exp()
    return torch.where(beyond, mean, x_tensor), mean, scale_tensor


def mixture_args(components: int, dtype: torch.dtype, spread: float, shape=(6, 4, 5)) -> dict[str, Tensor]:
    """A mixture of logistics of quite different scales; ``x`` is ``spread`` times wider than the means."""
    full = (shape[0], components, *shape[1:])
    rng = np.random.default_rng(components)
    return {
        "x": normal(0, shape, dtype, scale=3.0 * spread),
        "logits": tensor(rng.uniform(-50, 50, full) * rng.integers(0, 2, full), dtype),
        "mean": normal(1, full, dtype, scale=3.0),
        "log_scale": tensor(rng.uniform(-3.0, 1.5, full), dtype),
    }
