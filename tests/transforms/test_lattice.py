"""Exact evaluation of a network: float64 throughout, with gradients, and without a trace."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hybridkern.transforms.lattice import evaluate, integer_limit


def _net() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.LeakyReLU(), nn.Linear(5, 2))
    net(torch.randn(20, 3))
    return net.eval()


def test_is_the_network_in_float64() -> None:
    net, x = _net(), torch.randn(7, 3)
    got = evaluate(net, x)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    assert got.dtype == torch.float64
    assert all(value.dtype == before[name].dtype for name, value in net.state_dict().items())
    torch.testing.assert_close(got, net.double()(x.double()), rtol=1e-12, atol=1e-12)


def test_gradients_reach_parameters_and_input() -> None:
    net, x = _net(), torch.randn(7, 3, requires_grad=True)
    evaluate(net, x).sum().backward()
    assert x.grad is not None and x.grad.dtype == torch.float32
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and parameter.grad.dtype == torch.float32, name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_integer_limit(dtype: torch.dtype) -> None:
    limit = integer_limit(dtype)
    below = torch.tensor([limit - 1, limit], dtype=torch.int64)
    assert torch.equal(below.to(dtype).to(torch.int64), below)
    above = torch.tensor([limit + 1], dtype=torch.int64)
    assert not torch.equal(above.to(dtype).to(torch.int64), above)
