"""Layers whose parameters are in half precision: their log-determinants are sums in float32, not rounded to 8 bits."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from hybridkern import flows, transforms
from hybridkern.hybrid.vae.latents import Posterior

HALF = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])


def varied(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(0)
    with torch.no_grad():
        for value in module.parameters():
            value += 0.1 * torch.rand_like(value) + 0.05
    return module.to(dtype)


@HALF
def test_mixing(dtype: torch.dtype) -> None:
    mixing = varied(transforms.Mixing(8, 48), dtype)
    found, expected = (one().log_det * 64 * 64 for one in (mixing, copy.deepcopy(mixing).double()))
    assert found.dtype is torch.float32 and expected > 1e5  # beyond what float16 holds
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=0)


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "actnorm": lambda: transforms.ActNorm(40),
    "linear": lambda: transforms.LULinear(40),
}


@HALF
@pytest.mark.parametrize("name", LAYERS)
def test_layers_on_vectors(name: str, dtype: torch.dtype) -> None:
    layer = varied(LAYERS[name](), dtype)
    x, wide = torch.rand(4, 40).to(dtype), copy.deepcopy(layer).double()
    for inverse in (False, True):
        y, found = layer(x, inverse=inverse)
        expected_y, expected = wide(x.double(), inverse=inverse)
        assert y.dtype is dtype and found.dtype is torch.float32 and expected.abs().min() > 2
        torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=0)
        off = (y.double() - expected_y).abs().max() / expected_y.abs().max()
        assert off < 4 * torch.finfo(dtype).eps, "of rounding alone"


@HALF
def test_samples_of_a_spline_flow(dtype: torch.dtype) -> None:
    flow = flows.NSF(4, layers=2, hidden=8).to(dtype).eval()
    assert flow.sample(5).isfinite().all()


@HALF
def test_divergence(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    posterior = Posterior(torch.randn(3, 200).to(dtype), torch.randn(3, 200).to(dtype))
    found, expected = posterior.kl(), Posterior(*(value.double() for value in posterior)).kl()
    assert found.dtype is torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=0)
