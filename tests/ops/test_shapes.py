"""Every operator on every rank, on odd and empty sizes, and with parameters of fewer dimensions."""

from __future__ import annotations

import pytest
import torch

from tests.ops import inputs
from tests.ops.checks import check_coupling, check_gaussian, check_logistic, check_mixture, check_rounding
from tests.ops.layouts import channels_last

SHAPES = [
    (1, 1),
    (3, 7),
    (1, 31),
    (17, 33),
    (2, 1000),
    (1, 4097),
    (1000, 1),
    (7, 1, 33),
    (2, 3, 7),
    (3, 5, 17, 31),
    (33, 3, 1, 1),
    (1, 1, 1, 17),
    (2, 17, 3, 1),
    (2, 3, 3, 5, 7),
    (2, 1, 3, 1, 2, 3),
]
EMPTY = [(0, 4), (0, 3, 4, 4), (2, 0), (2, 0, 4, 4), (2, 3, 0, 4), (0, 0)]
DTYPES = [torch.float32, torch.float64]
IDS = {"ids": lambda value: str(value).replace(" ", "")}


@pytest.mark.parametrize("dtype", DTYPES, **IDS)
@pytest.mark.parametrize("shape", SHAPES + EMPTY, **IDS)
def test_coupling(backend: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    for name, inverse in (("glow", False), ("additive", True), ("normflows", False), ("nflows", True)):
        args = {"x": inputs.normal(0, shape, dtype), "params": inputs.coupling_params(name, shape, dtype)}
        check_coupling(args, name, inverse)
        check_coupling({key: channels_last(value) for key, value in args.items()}, name, inverse)


@pytest.mark.parametrize("dtype", DTYPES, **IDS)
@pytest.mark.parametrize("shape", SHAPES + EMPTY + [(5,), (0,), (4097,)], **IDS)
def test_densities(backend: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    args = {name: inputs.normal(i, shape, dtype) for i, name in enumerate(("x", "mean", "log_scale"))}
    check_gaussian(args)
    check_gaussian({"x": args["x"]})
    for reduction in ("none", "sum"):
        check_logistic(args, reduction=reduction)
        shared = {name: args[name] if name == "x" else args[name][:1] for name in args}
        check_logistic(shared, reduction=reduction)


@pytest.mark.parametrize("dtype", DTYPES, **IDS)
@pytest.mark.parametrize("shape", SHAPES + EMPTY + [(5,), (0,), (4097,)], **IDS)
def test_mixture(backend: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    args = {"x": inputs.normal(0, shape, dtype)}
    for components in (1, 3):
        full = (shape[0], components, *shape[1:])
        args |= {name: inputs.normal(i, full, dtype) for i, name in enumerate(("logits", "mean", "log_scale"), 1)}
        for reduction in ("none", "sum"):
            check_mixture(args, reduction=reduction)
            check_mixture({name: args[name] if name == "x" else args[name][:1] for name in args}, reduction=reduction)


@pytest.mark.parametrize("dtype", DTYPES, **IDS)
@pytest.mark.parametrize("shape", SHAPES + EMPTY + [(5,), (0,), (4097,)], **IDS)
def test_rounding(backend: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    args = {"x": inputs.normal(0, shape, dtype, scale=9.0).round(), "t": inputs.normal(1, shape, dtype, scale=3.0)}
    check_rounding(args)
    check_rounding(args | {"beta": torch.tensor(0.3, dtype=dtype)}, inverse=True)


def test_mixture_weights_may_have_one_component_that_others_broadcast(backend: str) -> None:
    args = {
        "x": inputs.normal(0, (4, 6), torch.float32),
        "logits": inputs.normal(1, (4, 1, 6), torch.float32),
        "mean": inputs.normal(2, (1, 5, 1), torch.float32),
        "log_scale": inputs.normal(3, (4, 5, 6), torch.float32),
    }
    check_mixture(args)
