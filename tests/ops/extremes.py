"""Every combination of absurd finite numbers, and the check that no NaN comes of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch

BIG = {torch.float32: 3e38, torch.float64: 1e300, torch.bfloat16: 3e38, torch.float16: 6e4}


def corners(dtype: torch.dtype, count: int, sizes=(0.5, 20.0, 88.8, 104.0, 745.0, 1e4)) -> list[torch.Tensor]:
    """Every combination of absurd, ordinary and tiny numbers, as ``count`` columns of one example each."""
    small = [0.0, torch.finfo(dtype).smallest_normal / 2, *sizes, BIG[dtype]]
    values = sorted({sign * value for value in small for sign in (1.0, -1.0)})
    columns = zip(*itertools.product(values, repeat=count), strict=True)
    return [torch.tensor(column, dtype=torch.float64).to(dtype).reshape(-1, 1) for column in columns]


def finite_leaves(args: list[torch.Tensor]) -> list[torch.Tensor]:
    assert all(bool(value.isfinite().all()) for value in args)
    return [value.detach().requires_grad_() for value in args]


def assert_no_nan(value: torch.Tensor, args: list[torch.Tensor], what: str) -> None:
    bad = value.isnan().flatten(1).any(1) if value.ndim > 1 else value.isnan()
    where = [[float(v) for v in arg[bad][0].flatten()] for arg in args] if bool(bad.any()) else None
    assert where is None, f"{what}: NaN in {int(bad.sum())} of {bad.numel()} examples, the first at {where}"


def check_no_nan(function: Callable[..., torch.Tensor], args: list[torch.Tensor]) -> None:
    leaves = finite_leaves(args)
    out = function(*leaves)
    assert_no_nan(out.detach(), args, "value")
    out.backward(torch.ones_like(out))
    for index, leaf in enumerate(leaves):
        assert_no_nan(leaf.grad, args, f"gradient of argument {index}")
