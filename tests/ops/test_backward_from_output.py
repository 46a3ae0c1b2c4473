"""affine_coupling_backward_from_output: the gradients of the ordinary backward pass, and ``x``, from ``y`` alone."""

from __future__ import annotations

import pytest
import torch

from hybridkern import ops
from tests._tolerances import ROUND_TRIP_FACTOR, Expected, assert_matches, to_numpy
from tests.ops import inputs, layouts, oracle
from tests.ops.checks import assert_strides_like, assert_unchanged

SHAPE = (4, 3, 6, 7)


def check(x: torch.Tensor, params: torch.Tensor, name: str, inverse: bool) -> None:
    """Recovers the exact inverse of ``y``, near the true ``x``, with the exact gradients there."""
    y, log_det = ops.affine_coupling(x, params, form=name, inverse=inverse)
    grad_y, grad_log_det = inputs.normal(3, tuple(y.shape), y.dtype), inputs.normal(4, (x.shape[0],), log_det.dtype)
    args = {"y": y, "params": params, "grad_y": grad_y, "grad_log_det": grad_log_det}
    copies = {key: value.clone() for key, value in args.items()}
    got = ops.affine_coupling_backward_from_output(**args, form=name, inverse=inverse)
    numbers = to_numpy(params), None, to_numpy(grad_y), to_numpy(grad_log_det), name
    back = oracle.affine_coupling(to_numpy(y), *numbers, not inverse).y
    exact = oracle.affine_coupling(back.value, *numbers, inverse)
    assert_matches(got[0], back, "x")
    assert_matches(got[1], exact.grad_x, "grad x")
    assert_matches(got[2], exact.grad_params, "grad params")
    # y was rounded: that error comes back through the inverse, relative to the terms it was made of
    assert_matches(got[0], Expected(to_numpy(x), ROUND_TRIP_FACTOR * round_trip_size(x, params, name, inverse), False))
    assert [value.dtype for value in got] == [x.dtype, x.dtype, params.dtype]
    assert_strides_like(got[0], y)
    assert_unchanged(args, copies)


def round_trip_size(x: torch.Tensor, params: torch.Tensor, name: str, inverse: bool):
    """Sum of the absolute values of the terms that make ``x`` from ``y``."""
    form = oracle.FORMS[name]
    raw, t = oracle.split(to_numpy(params), form)
    s = 1.0 if raw is None else oracle.np.exp(form.log_scale(raw) * (-1 if inverse else 1))
    size = oracle.np.abs(to_numpy(x)) + oracle.np.abs(t) * (1.0 if (form.shift == "after") == inverse else 1.0 / s)
    return size + oracle.np.abs(t)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("name", oracle.FORMS)
def test_every_form(backend: str, name: str, inverse: bool, dtype: torch.dtype) -> None:
    check(inputs.normal(0, SHAPE, dtype), inputs.coupling_params(name, SHAPE, dtype, reach=0.5), name, inverse)


@pytest.mark.parametrize("layout", layouts.LAYOUTS)
def test_every_layout(backend: str, layout: str) -> None:
    place = layouts.LAYOUTS[layout]
    for name in ("glow", "normflows"):
        params = inputs.coupling_params(name, SHAPE, torch.float32, reach=0.5)
        check(place(inputs.normal(0, SHAPE, torch.float32)), place(params), name, False)


@pytest.mark.parametrize("shape", [(0, 4), (2, 0, 3), (1, 1), (3, 7), (2, 1000), (2, 3, 2, 3, 5)], ids=str)
def test_every_shape(backend: str, shape: tuple[int, ...]) -> None:
    params = inputs.coupling_params("nflows", shape, torch.float32, reach=0.5)
    check(inputs.normal(0, shape, torch.float32), params, "nflows", True)


@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16], ids=str)
def test_low_precision_parameters(backend: str, low: torch.dtype) -> None:
    check(inputs.normal(0, SHAPE, torch.float32), inputs.coupling_params("glow", SHAPE, low, reach=0.5), "glow", False)


@pytest.mark.parametrize("name", ["glow", "exp", "freia"])
def test_equals_backward_from_x(backend: str, name: str) -> None:
    """In float64, where the error of the recovered ``x`` is far below what a wrong formula would show."""
    x = inputs.normal(0, SHAPE, torch.float64).requires_grad_()
    params = inputs.coupling_params(name, SHAPE, torch.float64, reach=0.2).requires_grad_()
    outputs = ops.affine_coupling(x, params, form=name)
    grads = [inputs.normal(5 + i, tuple(out.shape), out.dtype) for i, out in enumerate(outputs)]
    torch.autograd.backward(outputs, grads)
    found = ops.affine_coupling_backward_from_output(outputs[0].detach(), params.detach(), *grads, form=name)
    for got, expected in zip(found, (x.detach(), x.grad, params.grad), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-11)
