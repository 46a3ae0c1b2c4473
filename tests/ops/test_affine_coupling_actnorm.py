"""affine_coupling_actnorm against float64: every form, size, dtype and instruction set; and that it is its parts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hybridkern import ops
from hybridkern.ops.affine_coupling.form import NAMED_FORMS
from tests._tolerances import Expected, assert_matches, log_quantity, to_numpy
from tests.conftest import COMPILED_BACKENDS
from tests.ops import inputs, oracle
from tests.ops.checks import Args, Layout, as_it_is, assert_unchanged, leaves_of

F32, F64, BF16, F16 = torch.float32, torch.float64, torch.bfloat16, torch.float16
# rows, numbers that stay, numbers that are transformed
SIZES = [(1, 0, 1), (3, 7, 4), (17, 33, 16), (64, 32, 32), (0, 3, 2), (700, 1, 2), (5, 40, 129), (200, 16, 17)]


def arguments(size: tuple[int, int, int], dtype: torch.dtype, name: str = "freia_all_in_one", low=None) -> Args:
    rows, kept, coupled = size
    scale = inputs.normal(3, (kept + coupled,), low or dtype)
    return {
        "x": inputs.normal(0, (rows, kept + coupled), dtype),
        "params": inputs.coupling_params(name, (rows, coupled), low or dtype, reach=0.3),
        "scale": scale + torch.where(scale < 0, -0.25, 0.25).to(scale.dtype),
        "offset": inputs.normal(4, (kept + coupled,), low or dtype),
    }


def expected_of(args: Args, grad_y: np.ndarray, grad_log_det: np.ndarray, name: str) -> dict[str, Expected]:
    """Outputs and gradients in float64; the magnitude of a sum is the sum of its terms' magnitudes."""
    x, params, scale, offset = (to_numpy(args[key]) for key in ("x", "params", "scale", "offset"))
    coupled = params.shape[1] // (1 if NAMED_FORMS[name].scale == "none" else 2)
    kept = x.shape[1] - coupled
    part = oracle.affine_coupling(
        x[:, kept:], params, None, (grad_y * scale)[:, kept:], grad_log_det, name, inverse=False
    )
    u = np.concatenate([x[:, :kept], part.y.value], 1)
    u_size = np.concatenate([np.abs(x[:, :kept]), part.y.magnitude], 1)
    logs = np.log(np.abs(scale))
    terms = (grad_y * u).sum(0) + grad_log_det.sum() / scale
    sizes = (np.abs(grad_y) * u_size).sum(0) + np.abs(grad_log_det).sum() / np.abs(scale)
    grad_x = np.concatenate([(grad_y * scale)[:, :kept], part.grad_x.value], 1)
    return {
        "out0": Expected(u * scale + offset, u_size * abs(scale) + abs(offset), True),
        "out1": log_quantity(part.log_det.value + logs.sum(), part.log_det.magnitude + np.abs(logs).sum()),
        "grad x": log_quantity(grad_x),
        "grad params": part.grad_params,
        "grad scale": Expected(terms, sizes, True),
        "grad offset": Expected(grad_y.sum(0), np.abs(grad_y).sum(0), True),
    }


def check(args: Args, name: str = "freia_all_in_one", grad_layout: Layout = as_it_is) -> None:
    """Holds outputs and gradients against float64."""
    copies = {key: value.clone() for key, value in args.items()}
    leaves = leaves_of(args)
    y, log_det = ops.affine_coupling_actnorm(**leaves, form=name)
    grad_y = grad_layout(inputs.normal(9, tuple(y.shape), y.dtype))
    grad_log_det = inputs.normal(10, tuple(log_det.shape), log_det.dtype)
    torch.autograd.backward((y, log_det), (grad_y, grad_log_det))
    got = {"out0": y, "out1": log_det} | {f"grad {key}": leaf.grad for key, leaf in leaves.items()}
    for key, expected in expected_of(args, to_numpy(grad_y), to_numpy(grad_log_det), name).items():
        assert_matches(got[key], expected, key)
    assert y.is_contiguous()
    assert_unchanged(args, copies)


@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_sizes(backend: str, size: tuple[int, int, int], dtype: torch.dtype) -> None:
    check(arguments(size, dtype))


@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
@pytest.mark.parametrize("name", NAMED_FORMS)
def test_forms(backend: str, name: str, dtype: torch.dtype) -> None:
    check(arguments((19, 5, 20), dtype, name), name)


def test_nan_and_infinity_stay_in_their_row(backend: str) -> None:
    args = arguments((6, 5, 7), F32)
    clean = ops.affine_coupling_actnorm(**args)
    for bad in (float("nan"), float("inf")):
        dirty = args | {"params": args["params"].clone()}
        dirty["params"][2, 9] = bad
        y, log_det = ops.affine_coupling_actnorm(**dirty)
        assert not y[2, 7].isfinite()
        y[2, 7] = clean[0][2, 7]
        assert torch.equal(y, clean[0]) and torch.equal(log_det, clean[1])


if "cpp" in COMPILED_BACKENDS:

    @pytest.mark.usefixtures("level")
    def test_every_instruction_set() -> None:
        for size in SIZES:
            check(arguments(size, F32))
        for name in NAMED_FORMS:
            check(arguments((19, 5, 20), F32, name), name)
