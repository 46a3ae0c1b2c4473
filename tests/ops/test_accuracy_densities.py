"""The three log-probabilities against float64, values and gradients, from the centre to the far tails."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.ops import inputs
from tests.ops.checks import check_gaussian, check_logistic, check_mixture

FLOATS = [torch.float32, torch.float64]
BIN_WIDTHS = [1.0, 1 / 256, 2 / 255]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("bin_width", BIN_WIDTHS)
def test_logistic_from_centre_to_tails(backend: str, bin_width: float, dtype: torch.dtype) -> None:
    x, mean, log_scale = inputs.logistic_grid(bin_width, dtype)
    check_logistic({"x": x, "mean": mean, "log_scale": log_scale}, bin_width)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("shapes", [((1, 5, 7), (1, 5, 7)), ((5, 1), (7,)), ((), (4, 1, 1)), ((4, 5, 7), (1, 1, 1))])
@pytest.mark.parametrize("reduction", ["none", "sum"])
def test_logistic_with_shared_parameters(backend: str, shapes, reduction: str, dtype: torch.dtype) -> None:
    args = {
        "x": inputs.tensor(np.round(np.random.default_rng(0).normal(0, 4, (4, 5, 7))), dtype),
        "mean": inputs.normal(1, shapes[0], dtype, scale=3.0),
        "log_scale": inputs.normal(2, shapes[1], dtype, scale=0.7),
    }
    check_logistic(args, 1.0, reduction)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("bin_width", [1.0, 2 / 255])
@pytest.mark.parametrize("components", [1, 3, 5, 10])
def test_mixture(backend: str, components: int, bin_width: float, dtype: torch.dtype) -> None:
    check_mixture(inputs.mixture_args(components, dtype, spread=1.0), bin_width)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("components", [1, 3, 5, 10])
def test_mixture_in_the_tails(backend: str, components: int, dtype: torch.dtype) -> None:
    """Every component is tens to thousands of scales away: one floor in a logarithm would show."""
    check_mixture(inputs.mixture_args(components, dtype, spread=60.0), 1.0)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_mixture_of_components_that_compete_in_the_tail(backend: str, dtype: torch.dtype) -> None:
    """Components of like log-probability near -1000: the shares hang on the last digits of the exponents."""
    full = (6, 3, 8)
    args = {
        "x": inputs.tensor(np.random.default_rng(0).uniform(900, 1000, (6, 8)), dtype),
        "logits": inputs.normal(1, full, dtype),
        "mean": inputs.normal(2, full, dtype),
        "log_scale": inputs.tensor(np.zeros(full), dtype),
    }
    check_mixture(args, 1.0)


@pytest.mark.parametrize("reduction", ["none", "sum"])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_mixture_with_shared_parameters(backend: str, reduction: str, dtype: torch.dtype) -> None:
    args = {
        "x": inputs.tensor(np.round(np.random.default_rng(0).normal(0, 4, (6, 4, 5))), dtype),
        "logits": inputs.normal(1, (1, 3, 1, 1), dtype),
        "mean": inputs.normal(2, (1, 3, 4, 5), dtype, scale=3.0),
        "log_scale": inputs.normal(3, (6, 1, 1, 5), dtype, scale=0.5),
    }
    check_mixture(args, 1.0, reduction)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("given", [(), ("mean",), ("log_scale",), ("mean", "log_scale")], ids=str)
@pytest.mark.parametrize("param_shape", [(6, 4, 5), (1, 4, 5), (4, 1), ()], ids=str)
def test_gaussian(backend: str, given, param_shape, dtype: torch.dtype) -> None:
    args = {"x": inputs.normal(0, (6, 4, 5), dtype, scale=3.0)}
    args |= {name: inputs.normal(i, param_shape, dtype, scale=2.0) for i, name in enumerate(given, 1)}
    check_gaussian(args)
