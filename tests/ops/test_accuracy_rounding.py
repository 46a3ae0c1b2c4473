"""rounding_coupling: equal to the last bit, half to even, straight-through gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hybridkern import ops
from tests.conftest import DEVICE
from tests.ops import inputs
from tests.ops.checks import check_rounding

FLOATS = [torch.float32, torch.float64]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("beta", [None, 1.0, 0.0, -0.7, 3.3, 1e-3])
def test_any_beta(backend: str, beta: float | None, inverse: bool, dtype: torch.dtype) -> None:
    shape = (5, 3, 7, 9)
    args = {"x": inputs.normal(0, shape, dtype, scale=50.0).round(), "t": inputs.normal(1, shape, dtype, scale=20.0)}
    if beta is not None:
        args["beta"] = torch.tensor([beta], dtype=dtype)
    check_rounding(args, inverse)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_half_goes_to_even_and_large_numbers_stay(backend: str, dtype: torch.dtype) -> None:
    t = torch.tensor(
        [0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 0.49999997, 0.50000006, 8388607.5, 16777216.0, -0.0], dtype=dtype
    )
    expected = [0, 2, 2, 0, -2, -2, 0, 1, 8388608, 16777216, 0]
    x = torch.zeros_like(t)
    assert ops.rounding_coupling(x, t).tolist() == expected
    assert ops.rounding_coupling(x, t, inverse=True).tolist() == [-value for value in expected]
    assert ops.rounding_coupling(x, 2 * t, beta=0.5).tolist() == expected


def nearly_half(beta: np.float32) -> np.ndarray:
    """``t`` with ``beta * t`` within one float32 rounding of a half."""
    t = np.random.default_rng(0).uniform(0.1, 30, 20000).astype(np.float32)
    return (np.floor(t) + np.float32(0.5)) / beta


def test_product_is_formed_in_float32(backend: str) -> None:
    """A fused or wider product would round some of these otherwise."""
    beta = np.float32(0.7310585)
    near_half = nearly_half(beta)
    product = (beta * near_half).astype(np.float32)
    wider = near_half.astype(np.float64) * np.float64(beta)
    assert np.any(np.rint(product) != np.rint(wider))
    got = ops.rounding_coupling(torch.zeros(20000), torch.from_numpy(near_half).to(DEVICE), beta=torch.tensor(beta))
    assert np.array_equal(got.cpu().numpy(), np.rint(product))


def test_float_beta_is_the_same_as_a_tensor(backend: str) -> None:
    x, t = torch.zeros(2, 50), inputs.normal(0, (2, 50), torch.float32, scale=30.0)
    assert torch.equal(ops.rounding_coupling(x, t, beta=0.3), ops.rounding_coupling(x, t, beta=torch.tensor(0.3)))
    assert torch.equal(ops.rounding_coupling(x, t, beta=2), ops.rounding_coupling(x, t, beta=torch.tensor([[2.0]])))


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)], ids=str)
def test_gradient_of_beta_has_its_shape(backend: str, shape: tuple[int, ...]) -> None:
    args = {"x": torch.zeros(4, 9), "t": inputs.normal(0, (4, 9), torch.float32), "beta": torch.full(shape, 0.3)}
    check_rounding(args)


def test_beta_may_be_float64_beside_float32(backend: str) -> None:
    """It is rounded to float32 first: the same steps, and a gradient of its own dtype."""
    t = torch.from_numpy(nearly_half(np.float32(0.3))).to(DEVICE)
    beta = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    y = ops.rounding_coupling(torch.zeros_like(t), t, beta=beta)
    assert torch.equal(y, ops.rounding_coupling(torch.zeros_like(t), t, beta=beta.detach().float()))
    y.sum().backward()
    assert beta.grad.dtype is torch.float64
    assert abs(beta.grad.item() - t.double().sum().item()) <= 2e-6 * t.abs().sum().item()


def test_gradient_of_beta_over_many_elements(backend: str) -> None:
    """A sum over 600000 terms of one sign: a single float32 running sum would lose digits."""
    shape = (3, 200000)
    t = inputs.normal(1, shape, torch.float32).abs()
    beta = torch.tensor(1.0, requires_grad=True)
    ops.rounding_coupling(torch.zeros(shape), t, beta=beta).sum().backward()
    exact = t.double().sum().item()
    assert abs(beta.grad.item() - exact) <= 2e-6 * exact
