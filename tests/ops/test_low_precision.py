"""bfloat16 and float16: parameters beside float32, everything low, autocast."""

from __future__ import annotations

import pytest
import torch

from hybridkern import ops
from tests.ops import inputs, layouts, oracle
from tests.ops.checks import check_coupling, check_rounding
from tests.ops.samples import SAMPLES, a_shape, check

F32, BF16, F16 = torch.float32, torch.bfloat16, torch.float16
PAIRS = [(F32, BF16), (F32, F16), (BF16, BF16), (F16, F16)]  # dtypes of x and of the parameters
SHAPE = (5, 3, 7, 9)

SERVED = [
    (name, x_dtype, dtype)
    for name, sample in SAMPLES.items()
    for x_dtype, dtype in PAIRS
    if x_dtype in sample.dtypes and (sample.lower or x_dtype is dtype)
]

with_pairs = pytest.mark.parametrize(("x_dtype", "dtype"), PAIRS, ids=str)


@pytest.mark.parametrize(("name", "x_dtype", "dtype"), SERVED, ids=str)
def test_every_operator(backend: str, name: str, x_dtype: torch.dtype, dtype: torch.dtype) -> None:
    """Results are those of the same numbers in float64, rounded once, in row-major memory and channels_last."""
    sample = SAMPLES[name]
    args = sample.arguments(a_shape(sample, SHAPE, SHAPE[:2]), x_dtype)
    args = {key: value.to(dtype) if key in sample.lower else value for key, value in args.items()}
    for place in (layouts.contiguous, layouts.channels_last):
        got = check(sample, {key: place(value) for key, value in args.items()})
        assert all(value.dtype in (x_dtype, dtype, F32) for key, value in got.items() if key.startswith("out"))


@with_pairs
@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("name", oracle.FORMS)
def test_coupling(backend: str, name: str, inverse: bool, x_dtype: torch.dtype, dtype: torch.dtype) -> None:
    args = {
        "x": inputs.normal(0, SHAPE, x_dtype, scale=2.0),
        "params": inputs.coupling_params(name, SHAPE, dtype, reach=0.4),
        "log_det": inputs.normal(2, SHAPE[:1], F32),
    }
    check_coupling(args, name, inverse)
    check_coupling({key: layouts.channels_last(value) for key, value in args.items()}, name, inverse)
    y, log_det = ops.affine_coupling(**args, form=name, inverse=inverse)
    assert (y.dtype, log_det.dtype) == (x_dtype, F32)


@with_pairs
def test_totals_are_float32_and_may_start_in_float64(backend: str, x_dtype: torch.dtype, dtype: torch.dtype) -> None:
    x, params = inputs.normal(0, SHAPE, x_dtype), inputs.coupling_params("exp", SHAPE, dtype)
    assert ops.affine_coupling(x, params)[1].dtype is F32
    assert ops.affine_coupling(x, params, torch.zeros(5, dtype=torch.float64))[1].dtype is torch.float64
    mean = inputs.normal(1, SHAPE, dtype)
    assert ops.discretized_logistic_log_prob(x, mean, mean, reduction="sum").dtype is F32
    assert ops.discretized_logistic_log_prob(x, mean, mean).dtype is x_dtype
    assert ops.gaussian_log_prob(x, mean, mean).dtype is F32


@with_pairs
@pytest.mark.parametrize("inverse", [False, True])
def test_rounding(backend: str, inverse: bool, x_dtype: torch.dtype, dtype: torch.dtype) -> None:
    args = {"x": inputs.normal(0, SHAPE, x_dtype, scale=20.0).round(), "t": inputs.normal(1, SHAPE, dtype, scale=9.0)}
    check_rounding(args, inverse)
    check_rounding(args | {"beta": torch.tensor([1.75])}, inverse)
    check_rounding(args | {"beta": torch.tensor(0.75, dtype=dtype)}, inverse)


def test_every_bfloat16_and_float16_number_is_converted_exactly(backend: str) -> None:
    """All 65536 bit patterns as the shift of an additive coupling, NaN and infinities included."""
    bits = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
    for dtype in (BF16, F16):
        t = bits.view(dtype).reshape(8, -1)
        y, _ = ops.affine_coupling(torch.zeros(t.shape), t, form="additive")
        assert torch.equal(y.nan_to_num(nan=1.5), t.float().nan_to_num(nan=1.5))
        y, _ = ops.affine_coupling(torch.zeros_like(t), t, form="additive")
        assert torch.equal(y.float().nan_to_num(nan=1.5), t.float().nan_to_num(nan=1.5))


@pytest.mark.parametrize("dtype", [BF16, F16], ids=str)
def test_results_are_rounded_to_nearest_even(backend: str, dtype: torch.dtype) -> None:
    """Sums half-way between two numbers of the dtype, and a hair to either side; overflow gives infinity."""
    eps = torch.finfo(dtype).eps
    halves = torch.tensor([1 + k * eps / 2 for k in range(64)], dtype=torch.float64)
    big = torch.tensor([torch.finfo(dtype).max] * 2, dtype=torch.float64)
    x = torch.cat([torch.ones(64, dtype=torch.float64), big]).to(dtype).reshape(1, -1)
    t = torch.cat([halves - 1, big]).to(dtype).reshape(1, -1)
    y, _ = ops.affine_coupling(x, t, form="additive")
    assert torch.equal(y, (x.double() + t.double()).to(dtype))
    assert y[0, -2:].tolist() == [float("inf")] * 2


def test_autocast_keeps_x_and_totals_in_float32(backend: str) -> None:
    """A network under autocast gives bfloat16 parameters; what autocast lowered of ``x`` itself is raised again."""
    torch.manual_seed(0)
    net, x = torch.nn.Linear(6, 12), torch.randn(4, 6)
    with torch.autocast("cpu", torch.bfloat16):
        params = net(x)
        low = x.to(BF16)
        results = [
            *ops.affine_coupling(x, params),
            *ops.affine_coupling(low, params, torch.zeros(4)),
            ops.rounding_coupling(low, params[:, :6]),
            ops.discretized_logistic_log_prob(low, params[:, :6], params[:, 6:]),
            ops.discretized_logistic_mixture_log_prob(low, *params.view(4, 2, 6).repeat(3, 1, 1, 1)),
            ops.gaussian_log_prob(low, params[:, :6]),
            *ops.paired_conv1x1(low, low, torch.eye(12)),
            *ops.affine_coupling_actnorm(low, params[:, :6], torch.ones(6), torch.zeros(6)),
        ]
        results[0].sum().backward()
    assert params.dtype is BF16
    assert [value.dtype for value in results] == [F32] * 12
    assert net.weight.grad.dtype is F32
    outside = ops.affine_coupling(x, params)
    assert all(torch.equal(a, b) for a, b in zip(results[:2], outside, strict=True))
