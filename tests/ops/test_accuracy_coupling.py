"""affine_coupling against float64: every named form, both directions, outputs and gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hybridkern import ops
from hybridkern.ops.affine_coupling.form import NAMED_FORMS
from tests._tolerances import assert_matches, to_numpy
from tests.ops import inputs, oracle
from tests.ops.checks import check_coupling

FLOATS = [torch.float32, torch.float64]


def test_every_named_form_is_tested() -> None:
    assert set(oracle.FORMS) == set(NAMED_FORMS)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("name", oracle.FORMS)
def test_random_batch(backend: str, name: str, inverse: bool, dtype: torch.dtype) -> None:
    shape = (5, 3, 7, 9)
    args = {
        "x": inputs.normal(0, shape, dtype, scale=3.0),
        "params": inputs.coupling_params(name, shape, dtype),
        "log_det": inputs.normal(2, (5,), dtype),
    }
    check_coupling(args, name, inverse)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("name", oracle.FORMS)
def test_each_raw_scale_alone(backend: str, name: str, inverse: bool, dtype: torch.dtype) -> None:
    """One element an example, so that no sum over elements hides the log-determinant of a hard raw scale."""
    rng = np.random.default_rng(4)
    hard = np.array([0.0, 1e-30, 1e-8, -1e-8, -2.0, -2.0001, 4.9, 4.9068, 20.0, -20.0, 15.9, -15.9])
    scale = np.concatenate([np.linspace(-20, 20, 401), hard])[:, None]
    form = oracle.FORMS[name]
    shift = rng.standard_normal(scale.shape)
    params = oracle.join(None if form.log_scale is None else scale, shift, form)
    x = inputs.tensor(rng.standard_normal(scale.shape), dtype)
    check_coupling({"x": x, "params": inputs.tensor(params, dtype)}, name, inverse)


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("name", ["exp", "glow", "normflows", "freia_all_in_one"])
def test_shift_that_cancels_x(backend: str, name: str, inverse: bool) -> None:
    """``x`` within a hair of ``-t``, ``t`` or ``-t/s``: exact where one rounding can be, else relative to the terms."""
    rng = np.random.default_rng(5)
    shape, form = (64, 5), oracle.FORMS[name]
    raw, shift = rng.uniform(-2, 2, shape), rng.uniform(1, 2, shape)
    scale = np.exp(form.log_scale(raw))
    t = form.shift_gain * shift * (-1 if form.shift == "subtract" else 1)
    root = {("after", False): -t / scale, ("after", True): t}
    x = root.get((form.shift, inverse), scale * t if inverse else -t) * (1 + 1e-6 * rng.standard_normal(shape))
    params = oracle.join(raw, shift, form)
    args = {"x": inputs.tensor(x, torch.float32), "params": inputs.tensor(params, torch.float32)}
    check_coupling(args, name, inverse)


def test_log_det_of_many_elements_keeps_its_digits(backend: str) -> None:
    """A total over 300000 elements of one sign: a single float32 running sum would lose digits."""
    shape = (2, 3, 317, 317)
    x = inputs.normal(0, shape, torch.float32)
    params = inputs.coupling_params("glow", shape, torch.float32)
    got = ops.affine_coupling(x, params, form="glow")[1]
    zeros = np.zeros(shape), np.zeros(2)
    expected = oracle.affine_coupling(to_numpy(x), to_numpy(params), None, *zeros, "glow", False)
    assert_matches(got, expected.log_det, "log_det")


def test_float64_total_beside_float32_x(backend: str) -> None:
    """The layer's own part is a float32 result; adding it to a given one loses nothing of either."""
    x = inputs.normal(0, (4, 6), torch.float32)
    params = inputs.coupling_params("realnvp", (4, 6), torch.float32)
    given = torch.tensor([1e6 + 1e-7, -1e6, 1e-9, 0.0], dtype=torch.float64, requires_grad=True)
    y, log_det = ops.affine_coupling(x, params, given, form="realnvp")
    assert log_det.dtype is torch.float64 and y.dtype is torch.float32
    own = ops.affine_coupling(x, params, form="realnvp")[1]
    zeros = np.zeros(x.shape), np.zeros(4)
    expected = oracle.affine_coupling(to_numpy(x), to_numpy(params), None, *zeros, "realnvp", False).log_det
    assert_matches(own, expected, "log_det")
    assert_matches((log_det - given).float(), expected, "log_det")
    log_det.backward(torch.tensor([1.0, 2.0, 3.0, 1 / 3], dtype=torch.float64))
    assert given.grad.tolist() == [1.0, 2.0, 3.0, 1 / 3]
