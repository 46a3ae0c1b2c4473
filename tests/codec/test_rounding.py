"""Weights as integers: the error of the sums they are for, against rounding each to the nearest, in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from hybridkern.codec.rounding import covariances, fitted, rounded


def _smooth(n: int = 40, channels: int = 3) -> Tensor:
    """Images whose pixels are all but equal, as those that codecs see."""
    generator = torch.Generator().manual_seed(3)
    level = 100 * torch.randn(n, 1, 1, 1, generator=generator, dtype=torch.float64)
    return level + torch.randn(n, channels, 6, 5, generator=generator, dtype=torch.float64)


def _weight(out: int = 4, channels: int = 3, side: int = 3) -> Tensor:
    return torch.randn(out, channels, side, side, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


def _rows(x: Tensor, side: int) -> np.ndarray:
    return torch.nn.functional.unfold(x, side, padding=side // 2).transpose(1, 2).flatten(0, 1).numpy()


@pytest.mark.parametrize("side", [1, 3])
def test_covariances_are_those_of_numpy(side: int) -> None:
    x, y = _smooth(), _smooth(channels=2)
    square, product = covariances(x, y, side)
    rows = np.concatenate([_rows(x, side), _rows(y, 1)], 1)
    wanted = np.cov(rows.T, bias=True)
    np.testing.assert_allclose(square.numpy(), wanted[:-2, :-2], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(product.numpy(), wanted[:-2, -2:], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("side", [1, 3])
def test_sums_of_smooth_images_change_far_less_than_with_nearest_integers(side: int) -> None:
    x, weight = _smooth(), _weight(side=side)
    square, _ = covariances(x, x[:, :1], side)
    steps = weight.flatten(1).abs().amax(1) / 7  # few levels, so that roundings matter
    found = rounded(weight, steps, square)
    assert torch.equal(found, found.round()) and found.abs().max() <= 127
    rows = _rows(x, side)
    errors = [
        (rows @ (value * steps[:, None, None, None] - weight).flatten(1).numpy().T).std(0)
        for value in (found, (weight / steps[:, None, None, None]).round())
    ]
    # their sum is kept to half a step; that of nearest integers is off by the root of their number, 3 or 27
    assert (errors[0] <= errors[1]).all() and errors[0].mean() < (0.35 if side == 3 else 0.9) * errors[1].mean()


def test_inputs_that_tell_nothing_leave_the_nearest() -> None:
    weight = _weight()
    steps = weight.flatten(1).abs().amax(1) / 127
    nearest = (weight / steps[:, None, None, None]).round()
    for square in (torch.zeros(27, 27).double(), torch.eye(27).double(), torch.full((27, 27), torch.nan).double()):
        assert torch.equal(rounded(weight, steps, square), nearest)


def test_fitted_weights_make_up_for_inputs_that_lost_something() -> None:
    """They give what the given ones make of the whole inputs, as well as linear weights can: least squares."""
    x, weight = _smooth(), _weight()
    seen = (x / 8).round() * 8
    wanted = torch.nn.functional.conv2d(x, weight, padding=1)
    square, product = covariances(seen, wanted, 3)
    found = fitted(weight, square, product).flatten(1).numpy()
    rows, target = _rows(seen, 3), wanted.transpose(0, 1).flatten(1).numpy().T
    centred, aim = rows - rows.mean(0), target - target.mean(0)
    best = np.linalg.lstsq(centred, aim, rcond=None)[0].T
    errors = [((centred @ w.T - aim) ** 2).sum() for w in (found, best, weight.flatten(1).numpy())]
    assert errors[1] <= errors[0] < 1.05 * errors[1] < errors[2]


def test_fitted_weights_stay_where_no_input_moves() -> None:
    weight = _weight()
    assert torch.equal(fitted(weight, torch.zeros(27, 27).double(), torch.zeros(27, 4).double()), weight)


@pytest.mark.parametrize("value", [7.0, -121.0, 127.0])
def test_fitted_weights_stay_where_inputs_are_a_constant(value: float) -> None:
    """Whose covariances are what rounding leaves of them, not zero."""
    y = torch.randn(1, 3, 1, 1, generator=torch.Generator().manual_seed(0)).double().expand(20, -1, -1, -1) / 3
    square, product = covariances(torch.full((20, 4, 1, 1), value).double(), y, 3)
    weight = torch.randn(3, 4, 3, 3, generator=torch.Generator().manual_seed(1)).double()
    torch.testing.assert_close(fitted(weight, square, product), weight, rtol=0, atol=1e-4)
